"""Objects in a directory, in the original client's layout, shared by many processes.

``<first 2 hex digits>/<the other 38>[-algorithm]`` holds the decompressed bytes: files
of mode 0600 in directories of mode 0700, made when first needed. An object is written
to a file without a name and then linked to its place (``pending``), which makes it
visible, makes any number of processes safe with each other, and leaves nothing behind
if one is killed. Everything is reached through one descriptor of the directory, so
that the store outlives changes of the mount tree.

**After a power failure** an object may be empty or cut off: nothing is
synchronised to disk, as that costs milliseconds for each of thousands of objects. File
systems grow a file only as its bytes reach the disk (ext4 data=ordered, xfs, btrfs),
so what is torn is also too short. The fetcher compares the size that the catalog
announces with that of the file and fetches a short one again. Objects of which nobody
announces a size are refused by their readers (SQLite, PEM, JSON know their own end)
and are then given up with ``Fetcher.discard``.

**Bounded**: bytes are written to the directory only if the quota has room for them,
which it makes by removing what was used least recently (:mod:`.quota`). The last use of
an object is noted when it is opened.

**Without room** a transaction moves to an unnamed file elsewhere, or, if the object is
not large, to memory, with all it has so far. If the disk is full, some objects are
removed first; if that does not help, the store asks the directory again only after a
minute.
"""

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import Self, TypeVar

from cvmfsexec import log
from cvmfsexec.cache import scratch
from cvmfsexec.cache.claims import Claims
from cvmfsexec.cache.pending import PendingFile, PendingFiles
from cvmfsexec.cache.pins import Pin
from cvmfsexec.cache.private_directory import open_private_directory
from cvmfsexec.cache.quota import BeyondLimitError, Quota
from cvmfsexec.cache.refusals import OUT_OF_MEANS, Refusals
from cvmfsexec.cache.store import Transaction
from cvmfsexec.errors import CacheError
from cvmfsexec.format.digest import ContentHash

_OPEN_FLAGS = os.O_RDONLY | os.O_CLOEXEC
_DISK_IS_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_CLEANINGS_MAX = 2

_T = TypeVar("_T")

USE_IS_RECENT_NS = 60 * 10**9
"""A use that is noted is true for so long; to note it costs a write of the inode."""


class DirectoryStore:
    """An ``ObjectStore`` on disk.

    Args:
        path: Where the directory is, for messages.
        directory: Descriptor of it; becomes the store's.
        limit_bytes: How much it may hold; 0 for anything.
        scratch_directory: Where objects go that the directory has no room for.
        clock: Seconds that do not jump.

    Attributes:
        quota: How much it holds, and may hold.
    """

    def __init__(
        self,
        path: str,
        directory: int,
        *,
        limit_bytes: int = 0,
        scratch_directory: str = "/tmp",  # noqa: S108 -- unnamed files only
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = path
        self._directory = directory
        self._scratch_directory = scratch_directory
        self.pending = PendingFiles(directory)
        self._claims = Claims(directory)
        self.refusals = Refusals(f"cache directory {path}", clock)
        self._notes_use = True
        self.quota = Quota(directory, path, limit_bytes, self.pending.remove_dead)

    @classmethod
    def open(cls, path: str, limit_bytes: int = 0) -> Self:
        """Open a cache directory, making it if needed, and clear what the dead left.

        Args:
            path: Where it is.
            limit_bytes: How much it may hold; 0 for anything.

        Raises:
            CacheError: The directory cannot be used, or others could have changed it.
        """
        return cls.on_descriptor(path, open_private_directory(path), limit_bytes)

    @classmethod
    def on_descriptor(cls, path: str, directory: int, limit_bytes: int = 0) -> Self:
        """Open a directory that is known to be this user's alone; as :meth:`open`.

        Args:
            path: Where it is, for messages.
            directory: Descriptor of it; becomes the store's.
            limit_bytes: How much it may hold; 0 for anything.
        """
        store = cls(path, directory, limit_bytes=limit_bytes)
        store.pending.remove_dead()
        try:
            store.quota.begin()
        except OSError as error:  # a read-only cache, or a disk that is full
            log.debug("cache directory %s: no ledger: %s", path, error)
        return store

    def close(self) -> None:
        """Give back the directory; descriptors of objects stay good."""
        self.quota.close()
        self._claims.close()
        os.close(self._directory)

    def open_object(self, content_hash: ContentHash) -> int | None:
        """See ``ObjectStore``; two system calls, a third if a use is to be noted."""
        path = content_hash.cache_path()
        try:
            descriptor = os.open(path, _OPEN_FLAGS, dir_fd=self._directory)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno in OUT_OF_MEANS:
                raise CacheError(f"cannot open {path}: {error.strerror}") from error
            log.warning("cache: cannot read %s: %s", path, error.strerror)
            return None  # a disk that fails: the network has it too
        if self._notes_use:
            self._note_use(descriptor)
        return descriptor

    def _note_use(self, descriptor: int) -> None:
        """Let the object be removed after those that were used before."""
        now_ns = time.time_ns()
        if abs(now_ns - os.fstat(descriptor).st_mtime_ns) > USE_IS_RECENT_NS:
            try:
                os.utime(descriptor, ns=(now_ns, now_ns))
            except OSError:  # a read-only file system: nothing is removed there, either
                self._notes_use = False

    def has(self, content_hash: ContentHash) -> bool:
        """See ``ObjectStore``."""
        return os.access(content_hash.cache_path(), os.F_OK, dir_fd=self._directory)

    def pin(self, content_hash: ContentHash) -> Pin:
        """See ``ObjectStore``."""
        return self.quota.pin(content_hash)

    def claim(
        self,
        content_hash: ContentHash,
        *,
        patience_s: float,
        size_bytes: int | None = None,
    ) -> AbstractContextManager[bool]:
        """See ``ObjectStore``; two system calls."""
        if self.refusals.are_recent or not self.quota.would_keep(size_bytes):
            # What is fetched is kept by nobody: waiting in line would gain nothing.
            return contextlib.nullcontext(enter_result=False)
        return self._claims.claim(
            content_hash,
            patience_s=patience_s,
            is_there=partial(self.has, content_hash),
        )

    def transaction(self) -> "_DirectoryTransaction":
        """See ``ObjectStore``."""
        return _DirectoryTransaction(self)

    def remove(self, content_hash: ContentHash) -> None:
        """See ``ObjectStore``."""
        from cvmfsexec.cache.lasting_pins import size_of

        size_bytes = size_of(self._directory, content_hash)
        try:
            os.unlink(content_hash.cache_path(), dir_fd=self._directory)
        except FileNotFoundError:
            pass
        except OSError as error:
            self.refusals.note(error)
        else:
            self.quota.count_removed(size_bytes)

    def used_bytes(self) -> int | None:
        """See ``ObjectStore``."""
        return self.quota.used_bytes()

    def open_places(self) -> Iterator[PendingFile]:
        """Yield new files to write an object to, the best first, as they are needed.

        Places that cannot make a file are passed over.

        Raises:
            CacheError: No descriptor or memory is left.
        """
        if not self.refusals.are_recent:
            try:
                file = self.trying_for_room(0, self.pending.create)
            except OSError as error:
                self.refusals.note(error)
            else:
                yield file
        with contextlib.suppress(OSError):
            descriptor = scratch.open_unnamed(self._scratch_directory)
            yield PendingFile(descriptor, is_in_cache=False)
        with contextlib.suppress(OSError):
            yield PendingFile(
                scratch.open_in_memory(),
                is_in_cache=False,
                room_bytes=scratch.MEMORY_BYTES_MAX,
            )

    def trying_for_room(self, size_bytes: int, call: Callable[[], _T]) -> _T:
        """Make a system call; if the disk is full, again after making room.

        Raises:
            OSError: As the last one.
        """
        for _ in range(_CLEANINGS_MAX):
            try:
                return call()
            except OSError as error:
                self.make_room_after(error, size_bytes)
        return call()

    def make_room_after(self, error: OSError, size_bytes: int) -> None:
        """Remove some objects if a system call failed because the disk is full.

        Raises:
            OSError: It is the same error if that is not the reason, or nothing can be
                removed.
        """
        is_full = error.errno in _DISK_IS_FULL
        if not is_full or not self.quota.make_room_on_disk(size_bytes):
            raise error

    def publish(
        self, file: PendingFile, content_hash: ContentHash, size_bytes: int
    ) -> int:
        """Make a file visible as its object, if possible.

        Returns:
            A descriptor that takes the place of the file's. It is another one if that
            does not know its name.
        """
        path = content_hash.cache_path()
        if self.place(file, path, size_bytes):
            return self._reopen(file.descriptor, path)
        return file.descriptor

    def place(self, file: PendingFile, path: str, size_bytes: int) -> bool:
        """Give a file its place; return whether it could be done.

        Its bytes were reserved; that is settled here, one way or the other.
        """
        try:
            self._link(file, path, size_bytes)
        except FileNotFoundError:
            log.debug("cache: the file that was to be %s is gone", path)
        except OSError as error:
            self.refusals.note(error)
            self.pending.forget(file)
        else:
            return True
        return False

    def _link(self, file: PendingFile, path: str, size_bytes: int) -> None:
        self.quota.count(size_bytes)
        is_new = False
        try:
            if self.quota.stores_volatile:
                from cvmfsexec.cache.contents import mark_volatile

                mark_volatile(file.descriptor)
            is_new = self.trying_for_room(
                size_bytes, partial(self.pending.keep, file, path)
            )
        finally:
            self.quota.count_linked(size_bytes, is_new=is_new)

    def _reopen(self, descriptor: int, path: str) -> int:
        try:
            reopened = os.open(path, _OPEN_FLAGS, dir_fd=self._directory)
        except OSError:
            return descriptor  # removed already; the bytes are there
        scratch.close_unwanted(descriptor)
        return reopened


class _DirectoryTransaction(Transaction):
    """An object being written to the best place that has room for it."""

    __slots__ = (
        "_file",
        "_is_over",
        "_places",
        "_reserved_bytes",
        "_store",
        "_written_bytes",
    )

    def __init__(self, store: DirectoryStore) -> None:
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
        self._store.quota.reserve(len(data))
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
            path = content_hash.cache_path()
            is_kept = self._store.place(self._file, path, size_bytes)
        self._is_over = True
        scratch.close_unwanted(self._file.descriptor)
        return is_kept

    def _flush(self) -> None:
        if self._file.name is None:
            return  # only network file systems keep it to themselves, and have none
        try:
            scratch.flush(self._file.descriptor)
        except OSError as error:
            self._store.refusals.note(error)
            raise CacheError(
                f"the cache directory {self._store.path} lost an object: "
                f"{error.strerror}"
            ) from error

    def _move(self, reason: OSError) -> None:
        """Go on in the next place that takes what was written so far."""
        file = self._file
        if file.is_in_cache and not isinstance(reason, BeyondLimitError):
            self._store.refusals.note(reason)
        self._file = self._copy_to_next(file.descriptor, reason)
        self._store.pending.discard(file)
        self._give_back()

    def _copy_to_next(self, source: int, reason: OSError) -> PendingFile:
        while True:
            file = self._open_next(reason)
            try:
                scratch.copy_start(source, file.descriptor, self._written_bytes)
            except OSError:
                os.close(file.descriptor)  # no room here either
            else:
                return file

    def _open_next(self, reason: OSError | None) -> PendingFile:
        for file in self._places:
            if file.has_room(self._written_bytes):
                return file
            os.close(file.descriptor)
        raise CacheError("no room for an object, not even in memory") from reason

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
