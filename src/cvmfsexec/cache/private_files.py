"""Files that nobody else can reach: where bytes are put before they are believed.

They have no name, so no other user can write to them, whoever owns the cache. Small
ones live in memory; larger ones on disk, so that they do not count towards the memory
of the job, or in memory if there is no disk.
"""

import contextlib
import os

from cvmfsexec.cache import scratch
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

    def create(self, size_bytes: int) -> int:
        """Return a new empty file that is going to hold so much.

        Raises:
            CacheError: There is no place for it.
        """
        if size_bytes > SMALL_BYTES:
            for directory in self._directories:
                with contextlib.suppress(OSError):
                    return scratch.open_unnamed(directory)
        if size_bytes > scratch.MEMORY_BYTES_MAX:
            raise CacheError("no place for a large object, not even in memory")
        try:
            return scratch.open_in_memory()
        except OSError as error:
            raise CacheError(f"no room for an object: {error.strerror}") from error

    def holding(self, content: bytes | bytearray | memoryview) -> int:
        """Return a new file with some content.

        Raises:
            CacheError: There is no room for it.
        """
        descriptor = self.create(len(content))
        try:
            scratch.write_all(descriptor, content)
        except OSError as error:
            os.close(descriptor)
            raise CacheError(f"no room for an object: {error.strerror}") from error
        return descriptor


class PrivateWriting:
    """One private file being written: in memory first, then where it has room."""

    def __init__(self, files: PrivateFiles) -> None:
        self._files = files
        self._gathered = bytearray()
        self._descriptor: int | None = None
        self.size_bytes = 0

    def write(self, data: bytes | bytearray) -> None:
        """Append bytes.

        Raises:
            CacheError: There is no room.
        """
        self.size_bytes += len(data)
        if self._descriptor is None:
            self._gathered += data
            if len(self._gathered) <= SMALL_BYTES:
                return
            # Nobody knows how large it will be, so it takes the place for large ones.
            self._descriptor = self._files.create(scratch.MEMORY_BYTES_MAX)
            data = self._gathered
        try:
            scratch.write_all(self._descriptor, data)
        except OSError as error:
            raise CacheError(f"no room for an object: {error.strerror}") from error
        self._gathered = bytearray()

    def finish(self) -> int:
        """Return a descriptor of the file, which becomes the caller's.

        Raises:
            CacheError: There is no room.
        """
        if self._descriptor is None:
            return self._files.holding(self._gathered)
        descriptor, self._descriptor = self._descriptor, None
        return descriptor

    def discard(self) -> None:
        """Forget what was not finished."""
        self._gathered = bytearray()
        if self._descriptor is not None:
            scratch.close_unwanted(self._descriptor)
            self._descriptor = None
