"""Files that nobody else can reach: where bytes are put before they are believed.

They have no name, so no other user can write to them, whoever owns the cache. Small
ones live in memory; larger ones on disk, so that they do not count towards the memory
of the job. What a disk has no room for goes to the next one, and then to memory.
"""

import os
from collections.abc import Iterator

from cvmfsexec import log
from cvmfsexec.cache import scratch
from cvmfsexec.cache.open_files import close_quietly
from cvmfsexec.cache.pending import PendingFile
from cvmfsexec.errors import CacheError

SMALL_BYTES = 1 << 20
"""Up to here in memory: descriptors of 128 objects are kept open by a file server."""

DATABASE_START = b"SQLite format 3\0"
"""How a catalog begins, which should have a name: SQLite takes others into memory."""

SCRATCH = "/tmp"  # noqa: S108 -- unnamed files only
"""Where large ones go that have no better place."""


class PrivateFiles:
    """Makes such files; safe to call from any thread.

    Args:
        directories: Where larger ones go, the best first.
    """

    def __init__(self, *directories: str) -> None:
        self._directories = directories

    def places(self, *, is_small: bool) -> Iterator[PendingFile]:
        """Yield new files, the best first, as they are needed.

        Args:
            is_small: Whether that is in memory.
        """
        if is_small:
            yield from self._in_memory()
        yield from self._on_disk()
        if not is_small:
            yield from self._in_memory()

    def _on_disk(self) -> Iterator[PendingFile]:
        for directory in self._directories:
            try:
                descriptor = scratch.open_unnamed(directory)
            except OSError as error:
                log.debug("cache: no file in %s: %s", directory, error.strerror)
            else:
                yield PendingFile(descriptor, is_in_cache=False)

    def _in_memory(self) -> Iterator[PendingFile]:
        try:
            descriptor = scratch.open_in_memory()
        except OSError as error:
            log.debug("cache: no file in memory: %s", error.strerror)
        else:
            yield PendingFile(
                descriptor, is_in_cache=False, room_bytes=scratch.MEMORY_BYTES_MAX
            )

    def holding(self, content: bytes | bytearray) -> int:
        """Return a new file with some content.

        Raises:
            CacheError: There is no room for it.
        """
        writing = PrivateWriting(self)
        try:
            writing.write(content)
            return writing.finish()
        finally:
            writing.discard()


class PrivateWriting:
    """One private file being written: in memory first, then where it has room."""

    def __init__(self, files: PrivateFiles) -> None:
        self._files = files
        self._gathered = bytearray()
        self._places: Iterator[PendingFile] = iter(())
        self._file: PendingFile | None = None
        self.size_bytes = 0

    def write(self, data: bytes | bytearray) -> None:
        """Append bytes.

        Raises:
            CacheError: There is no room for them anywhere.
        """
        if self._file is not None:
            self._file = self._append(self._file, data)
        else:
            self._gathered += data
            if len(self._gathered) > SMALL_BYTES:
                self._file = self._begin(is_small=False)

    def take_over(self, source: int, size_bytes: int) -> None:
        """Begin with the first bytes of another file.

        Raises:
            CacheError: There is no room for them anywhere, or they cannot be read.
        """
        for offset in range(0, size_bytes, SMALL_BYTES):
            length = min(SMALL_BYTES, size_bytes - offset)
            try:
                piece = os.pread(source, length, offset)
            except OSError as error:
                raise CacheError(f"cannot copy: {error.strerror}") from error
            if len(piece) != length:
                raise CacheError("a file shrank while it was copied")
            self.write(piece)

    def finish(self) -> int:
        """Return a descriptor of the file, which becomes the caller's.

        Raises:
            CacheError: There is no room.
        """
        file = self._file or self._begin(is_small=True)
        self._file = None
        return file.descriptor

    def discard(self) -> None:
        """Forget what was not finished."""
        self._gathered = bytearray()
        if self._file is not None:
            close_quietly(self._file.descriptor)
            self._file = None

    def _begin(self, *, is_small: bool) -> PendingFile:
        self._places = self._files.places(is_small=is_small)
        gathered, self._gathered = self._gathered, bytearray()
        return self._append(self._next(None), gathered)

    def _append(self, file: PendingFile, data: bytes | bytearray) -> PendingFile:
        """Write to a file, or to one that has room for all; return that."""
        while not _has_taken(file, data, self.size_bytes):
            file = self._next(file)
        self.size_bytes += len(data)
        return file

    def _next(self, full: PendingFile | None) -> PendingFile:
        """Return another file, with what was written so far; the full one is closed."""
        self._file = None
        try:
            for file in self._places:
                try:
                    if full is not None:
                        scratch.copy_start(
                            full.descriptor, file.descriptor, self.size_bytes
                        )
                except OSError:
                    close_quietly(file.descriptor)  # no room here, either
                else:
                    return file
        finally:
            if full is not None:
                close_quietly(full.descriptor)
        raise CacheError("no room for an object, not even in memory")


def _has_taken(file: PendingFile, data: bytes | bytearray, offset: int) -> bool:
    if not file.has_room(offset + len(data)):
        return False
    try:
        scratch.write_all_at(file.descriptor, data, offset)
    except OSError:
        return False
    return True
