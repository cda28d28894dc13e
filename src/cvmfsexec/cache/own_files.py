"""Objects that lie beside packs in files of their own, in the layout of all caches.

Nobody counts or limits them here. An object that the directory has no room for goes to
a private file, with all that was written so far, and is read without being kept.
"""

import contextlib
import os

from cvmfsexec.cache import scratch
from cvmfsexec.cache.pending import PendingFiles
from cvmfsexec.cache.private_files import PrivateFiles
from cvmfsexec.errors import CacheError
from cvmfsexec.format.digest import ContentHash

_FLAGS = os.O_RDONLY | os.O_CLOEXEC


class OwnFiles:
    """The files of one directory; safe to call from any thread.

    Args:
        directory: Descriptor of it, which stays the caller's.
        private_files: Where objects go that it has no room for.
    """

    def __init__(self, directory: int, private_files: PrivateFiles) -> None:
        self.directory = directory
        self.pending = PendingFiles(directory)
        self.private_files = private_files

    def open(self, content_hash: ContentHash) -> int | None:
        """Return a descriptor of an object; ``None`` if it is not there."""
        path = content_hash.cache_path()
        try:
            return os.open(path, _FLAGS, dir_fd=self.directory)
        except OSError:
            return None

    def remove(self, content_hash: ContentHash) -> None:
        """Remove an object, if it is there."""
        with contextlib.suppress(OSError):
            os.unlink(content_hash.cache_path(), dir_fd=self.directory)

    def begin(self) -> "OwnFile":
        """Begin to write an object."""
        return OwnFile(self)


class OwnFile:
    """One object being written; belongs to one thread."""

    __slots__ = ("_descriptor", "_file", "_files", "_written_bytes", "refusal")

    def __init__(self, files: OwnFiles) -> None:
        self._files = files
        self._written_bytes = 0
        self.refusal: OSError | None = None
        try:
            self._file = files.pending.create()
            self._descriptor = self._file.descriptor
        except OSError as error:
            self.refusal = error
            self._descriptor = files.private_files.create(scratch.MEMORY_BYTES_MAX)

    def write(self, data: bytes | bytearray) -> None:
        """Append bytes.

        Raises:
            CacheError: There is no room for them anywhere.
        """
        try:
            scratch.write_all(self._descriptor, data)
        except OSError as error:
            if self.refusal is not None:
                raise CacheError(f"no room for an object: {error.strerror}") from error
            self._move(error)
            self.write(data)
        else:
            self._written_bytes += len(data)

    def commit(self, content_hash: ContentHash) -> int:
        """Return a descriptor of the object, visible if ``refusal`` is ``None``."""
        if self.refusal is None:
            try:
                if self._file.name is not None:
                    scratch.flush(self._descriptor)
                self._files.pending.keep(self._file, content_hash.cache_path())
            except OSError as error:
                self.refusal = error
                self._files.pending.forget(self._file)
        if self.refusal is None:
            named = self._files.open(content_hash)  # under its name, as SQLite needs it
            if named is not None:
                scratch.close_unwanted(self._descriptor)
                return named
        return self._descriptor

    def abort(self) -> None:
        """Forget what was written."""
        if self.refusal is None:
            self._files.pending.discard(self._file)
        else:
            scratch.close_unwanted(self._descriptor)

    def _move(self, reason: OSError) -> None:
        """Go on in a private file, with what was written so far."""
        descriptor = self._files.private_files.create(scratch.MEMORY_BYTES_MAX)
        try:
            scratch.copy_start(self._descriptor, descriptor, self._written_bytes)
        except OSError as error:
            os.close(descriptor)
            raise CacheError(f"no room for an object: {error.strerror}") from error
        self._files.pending.discard(self._file)
        self._descriptor = descriptor
        self.refusal = reason
