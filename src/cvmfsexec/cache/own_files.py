"""Objects that lie beside packs in files of their own, in the layout of all caches.

Nobody counts or limits them here. An object that the directory has no room for goes to
a private file, with all that was written so far, and is read without being kept; so do
those that follow, for a while (``refusals``).
"""

import contextlib
import os
import time
from collections.abc import Callable

from cvmfsexec.cache import scratch
from cvmfsexec.cache.open_files import close_quietly
from cvmfsexec.cache.pending import PendingFile, PendingFiles
from cvmfsexec.cache.private_files import PrivateFiles, PrivateWriting
from cvmfsexec.cache.refusals import Refusals
from cvmfsexec.errors import CacheError
from cvmfsexec.format.digest import ContentHash

USE_IS_OLD_S = 3600.0
"""So far away is the last use of a file, at least, when it is set anew."""

_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK  # a FIFO would wait


class OwnFiles:
    """The files of one directory; safe to call from any thread.

    Args:
        directory: Descriptor of it, which stays the caller's.
        private_files: Where objects go that it has no room for.
        refusals: Whether it is worth asking.
        attempt: Writes to the directory; returns ``None`` if it has no room.
        note_refusal: Told why it has none.
    """

    def __init__(
        self,
        directory: int,
        private_files: PrivateFiles,
        refusals: Refusals,
        attempt: Callable[[Callable[[], PendingFile]], PendingFile | None],
        note_refusal: Callable[[OSError], object],
    ) -> None:
        self.directory = directory
        self.pending = PendingFiles(directory)
        self.private_files = private_files
        self.refusals = refusals
        self.attempt = attempt
        self.note_refusal = note_refusal

    def open(self, content_hash: ContentHash) -> int | None:
        """Return a descriptor of an object; ``None`` if it is not there.

        Raises:
            CacheError: No descriptor or memory is left.
        """
        path = content_hash.cache_path()
        try:
            descriptor = os.open(path, _FLAGS, dir_fd=self.directory)
        except OSError as error:
            self.refusals.note_unreadable(path, error)
            return None  # the network has it too
        with contextlib.suppress(OSError):  # nothing is removed there, either
            if abs(time.time() - os.fstat(descriptor).st_mtime) > USE_IS_OLD_S:
                os.utime(descriptor)
        return descriptor

    def remove(self, content_hash: ContentHash) -> None:
        """Remove an object, if it is there."""
        with contextlib.suppress(OSError):
            os.unlink(content_hash.cache_path(), dir_fd=self.directory)

    def remove_torn(self, content_hash: ContentHash, size_bytes: int) -> None:
        """Remove a file of another size, which a crash has left and no pack tells of.

        Args:
            content_hash: The object.
            size_bytes: Its size.
        """
        path = content_hash.cache_path()
        with contextlib.suppress(OSError):
            if os.stat(path, dir_fd=self.directory).st_size != size_bytes:
                os.unlink(path, dir_fd=self.directory)

    def begin(self) -> "OwnFile":
        """Begin to write an object.

        Raises:
            CacheError: No descriptor or memory is left.
        """
        return OwnFile(self)


class OwnFile:
    """One object being written; belongs to one thread."""

    __slots__ = ("_file", "_files", "_private", "_written_bytes")

    def __init__(self, files: OwnFiles) -> None:
        self._files = files
        self._written_bytes = 0
        self._file: PendingFile | None = None
        self._private = PrivateWriting(files.private_files)
        if not files.refusals.are_recent:
            self._file = files.attempt(files.pending.create)

    def write(self, data: bytes | bytearray) -> None:
        """Append bytes.

        Raises:
            CacheError: There is no room for them anywhere.
        """
        if self._file is None:
            self._private.write(data)
            return
        try:
            scratch.write_all(self._file.descriptor, data)
        except OSError as error:
            self._move(error)
            self._private.write(data)
        else:
            self._written_bytes += len(data)

    def commit(self, content_hash: ContentHash) -> tuple[int, bool]:
        """Return a descriptor of the object, and whether others can find it.

        Raises:
            CacheError: What was written is lost.
        """
        if self._file is None:
            return self._private.finish(), False
        if self._file.name is not None:
            self._flush()
        self._files.remove_torn(content_hash, self._written_bytes)
        try:
            self._files.pending.keep(self._file, content_hash.cache_path())
        except OSError as error:
            self._files.pending.forget(self._file)
            self._files.note_refusal(error)
            return self._file.descriptor, False
        named = self._files.open(content_hash)  # under its name, as SQLite needs it
        if named is None:
            return self._file.descriptor, True
        close_quietly(self._file.descriptor)
        return named, True

    def abort(self) -> None:
        """Forget what was written."""
        self._private.discard()
        if self._file is not None:
            self._files.pending.discard(self._file)

    def _flush(self) -> None:
        if self._file is None:
            return
        try:
            scratch.flush(self._file.descriptor)
        except OSError as error:
            self._files.pending.discard(self._file)
            self._files.note_refusal(error)
            raise CacheError(
                f"the packed cache lost an object: {error.strerror}"
            ) from error

    def _move(self, reason: OSError) -> None:
        """Go on in a private file, with what was written so far."""
        file, self._file = self._file, None
        if file is None:
            return
        try:
            self._private.take_over(file.descriptor, self._written_bytes)
        finally:
            self._files.pending.discard(file)
        self._files.note_refusal(reason)
