"""An object on its way into a directory: written to the best place that has room.

That is a file without a name in the directory, as long as the limit and the disk have
room; else an unnamed file elsewhere, or memory if the object is not large. Whoever
writes does not see when it moves.
"""

import errno
import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Protocol, TypeVar

from cvmfsexec.cache import scratch
from cvmfsexec.cache.open_files import close_quietly
from cvmfsexec.cache.pending import PendingFile, PendingFiles
from cvmfsexec.cache.quota import BeyondLimitError, Quota
from cvmfsexec.cache.store import Transaction
from cvmfsexec.errors import CacheError
from cvmfsexec.format.digest import ContentHash

_T = TypeVar("_T")


class Intake(Protocol):
    """What is asked of the store of a directory; see ``DirectoryStore``."""

    path: str
    quota: Quota
    pending: PendingFiles

    def open_places(self) -> Iterator[PendingFile]:
        """Yield new files to write an object to, the best first."""

    def note_refusal(self, error: OSError) -> None:
        """Take notice that the directory does not take an object."""

    def trying_for_room(self, size_bytes: int, call: Callable[[], _T]) -> _T:
        """Make a system call; if the disk is full, again after making room."""

    def make_room_after(self, error: OSError, size_bytes: int) -> None:
        """Remove some objects if a system call failed because the disk is full."""

    def publish(
        self, file: PendingFile, content_hash: ContentHash, size_bytes: int
    ) -> int:
        """Make a file visible as its object; return a descriptor in its place."""

    def place(
        self, file: PendingFile, content_hash: ContentHash, size_bytes: int
    ) -> bool:
        """Give a file its place; return whether it could be done."""


class DirectoryWriting(Transaction):
    """A ``Transaction`` of a ``DirectoryStore``.

    Args:
        store: Where the object is to be kept.
    """

    __slots__ = (
        "_file",
        "_is_over",
        "_places",
        "_reserved_bytes",
        "_store",
        "_written_bytes",
    )

    def __init__(self, store: Intake) -> None:
        self._store = store
        self._places = store.open_places()
        self._written_bytes = 0
        self._reserved_bytes = 0
        self._is_over = False
        self._file = self._open_next(None)

    def write(self, data: bytes | bytearray) -> None:
        """See ``Transaction``."""
        while (refusal := self._append(data)) is not None:
            self._move(refusal)
        self._written_bytes += len(data)

    def _append(self, data: bytes | bytearray) -> OSError | None:
        """Write, or return why this place does not take it."""
        if not self._file.has_room(self._written_bytes + len(data)):
            return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        try:
            if self._file.is_in_cache:
                self._append_in_cache(data)
            else:
                scratch.write_all(self._file.descriptor, data)
        except OSError as error:
            return error
        return None

    def _append_in_cache(self, data: bytes | bytearray) -> None:
        if not self._store.quota.would_keep(self._written_bytes + len(data)):
            raise BeyondLimitError
        reserve = partial(self._store.quota.reserve, len(data))
        self._store.trying_for_room(len(data), reserve)
        self._reserved_bytes += len(data)
        try:
            scratch.write_all(self._file.descriptor, data)
        except OSError as error:
            self._store.make_room_after(error, len(data))
            write = partial(
                scratch.write_all_at, self._file.descriptor, data, self._written_bytes
            )
            self._store.trying_for_room(len(data), write)

    def commit(self, content_hash: ContentHash) -> int:
        """See ``Transaction``."""
        descriptor = self._file.descriptor
        if self._file.is_in_cache:
            self._flush()
            size_bytes, self._reserved_bytes = self._reserved_bytes, 0
            descriptor = self._store.publish(self._file, content_hash, size_bytes)
        self._is_over = True
        return descriptor

    def keep(self, content_hash: ContentHash) -> bool:
        """See ``Transaction``."""
        is_kept = False
        if self._file.is_in_cache:
            self._flush()
            size_bytes, self._reserved_bytes = self._reserved_bytes, 0
            is_kept = self._store.place(self._file, content_hash, size_bytes)
        self._is_over = True
        close_quietly(self._file.descriptor)
        return is_kept

    def _flush(self) -> None:
        if self._file.name is None:
            return  # only network file systems keep it to themselves, and have none
        try:
            scratch.flush(self._file.descriptor)
        except OSError as error:
            self._store.note_refusal(error)
            raise CacheError(
                f"the cache directory {self._store.path} lost an object: "
                f"{error.strerror}"
            ) from error

    def _move(self, reason: OSError) -> None:
        """Go on in the next place that takes what was written so far."""
        file = self._file
        if file.is_in_cache and not isinstance(reason, BeyondLimitError):
            self._store.note_refusal(reason)
        if reason.errno == errno.EFBIG:
            scratch.lift_size_limit()
        self._file = self._copy_to_next(file.descriptor, reason)
        self._store.pending.discard(file)
        self._give_back()

    def _copy_to_next(self, source: int, reason: OSError) -> PendingFile:
        while True:
            file = self._open_next(reason)
            try:
                scratch.copy_start(source, file.descriptor, self._written_bytes)
            except OSError:
                close_quietly(file.descriptor)  # no room here either
            else:
                return file

    def _open_next(self, reason: OSError | None) -> PendingFile:
        for file in self._places:
            if file.has_room(self._written_bytes):
                return file
            close_quietly(file.descriptor)
        is_limit = reason is not None and reason.errno == errno.EFBIG
        raise CacheError(
            "no room for an object, not even in memory"
            + (f": {reason.strerror}" if reason is not None else ""),
            hint="raise the limit of file sizes (ulimit -f)" if is_limit else "",
        ) from reason

    def abort(self) -> None:
        """See ``Transaction``."""
        if not self._is_over:
            self._is_over = True
            self._store.pending.discard(self._file)
            self._give_back()

    def _give_back(self) -> None:
        size_bytes, self._reserved_bytes = self._reserved_bytes, 0
        if size_bytes:
            self._store.quota.give_back(size_bytes)
