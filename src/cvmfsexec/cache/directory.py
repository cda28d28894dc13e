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

**Without room** an object is written elsewhere (:mod:`.directory_writing`). If the disk
is full, some objects are removed first; if that does not help, the store asks the
directory again only after a minute.

**A directory that was removed** is made anew, or the one that has taken its place is
used, under the number of the old descriptor: all that use it have the new one then.
"""

import contextlib
import errno
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import Self, TypeVar

from cvmfsexec import log
from cvmfsexec.cache import scratch
from cvmfsexec.cache.claims import Claims
from cvmfsexec.cache.open_files import close_quietly
from cvmfsexec.cache.pending import PendingFile, PendingFiles
from cvmfsexec.cache.pins import Pin
from cvmfsexec.cache.private_directory import open_private_directory
from cvmfsexec.cache.quota import BeyondLimitError, Quota
from cvmfsexec.cache.refusals import Refusals
from cvmfsexec.cache.store import Transaction
from cvmfsexec.errors import CacheError
from cvmfsexec.format.digest import ContentHash

_OPEN_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK  # a FIFO would wait
_DISK_IS_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_CLEANINGS_MAX = 2

_LAST_OF_THE_OLD_S = 5.0
"""So long others may still have a file of the directory that was removed, which the
kernel links nowhere."""

_T = TypeVar("_T")

USE_IS_RECENT_NS = 60 * 10**9
"""A use that is noted is true for so long; to note it costs a write of the inode."""


def open_file(path: str, directory: int) -> tuple[int, os.stat_result]:
    """Return a descriptor of an object that is a file, and what is known of it.

    Args:
        path: Where it is below the directory.
        directory: Descriptor of that.

    Raises:
        OSError: As the kernel says, or something else is called like an object.
    """
    descriptor = os.open(path, _OPEN_FLAGS, dir_fd=directory)
    try:
        status = os.fstat(descriptor)
    except OSError:
        close_quietly(descriptor)
        raise
    if not stat.S_ISREG(status.st_mode):
        close_quietly(descriptor)
        raise OSError(errno.EINVAL, "not a file")
    return descriptor, status


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
        self.refusals = Refusals(f"cache directory {path}", directory, clock)
        self._notes_use = True
        self._begun_anew_s = float("-inf")
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
        close_quietly(self._directory)

    def open_object(self, content_hash: ContentHash) -> int | None:
        """See ``ObjectStore``; two system calls, a third if a use is to be noted."""
        path = content_hash.cache_path()
        try:
            descriptor, status = open_file(path, self._directory)
        except FileNotFoundError:
            return None
        except OSError as error:
            self.refusals.note_unreadable(path, error)
            return None  # the network has it too
        if self._notes_use:
            self._note_use(descriptor, status)
        return descriptor

    def _note_use(self, descriptor: int, status: os.stat_result) -> None:
        """Let the object be removed after those that were used before."""
        now_ns = time.time_ns()
        if abs(now_ns - status.st_mtime_ns) > USE_IS_RECENT_NS:
            try:
                os.utime(descriptor, ns=(now_ns, now_ns))
            except OSError as error:
                if error.errno == errno.EROFS:  # nothing is removed there, either
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

    def transaction(self) -> Transaction:
        """See ``ObjectStore``."""
        from cvmfsexec.cache.directory_writing import DirectoryWriting

        return DirectoryWriting(self)

    def remove(self, content_hash: ContentHash) -> None:
        """See ``ObjectStore``."""
        from cvmfsexec.cache.lasting_pins import keep_wish

        with contextlib.suppress(OSError):  # or the pin keeps bytes that are no good
            keep_wish(self._directory, content_hash)
        try:
            self.quota.remove(content_hash.cache_path())
        except OSError as error:
            self.note_refusal(error)

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
                self.note_refusal(error)
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

    def note_refusal(self, error: OSError) -> None:
        """Take notice that the directory does not take an object, and see why.

        Raises:
            CacheError: The fault is not the directory's: no descriptor is left.
        """
        if not self._is_removed():
            is_new = time.monotonic() - self._begun_anew_s < _LAST_OF_THE_OLD_S
            if isinstance(error, FileNotFoundError) or (
                is_new and isinstance(error, PermissionError)
            ):
                log.debug("cache: a file under way is gone")
            else:
                self.refusals.note(error)
            return
        try:
            directory = open_private_directory(self.path)
        except CacheError:
            gone = OSError(errno.ENOENT, "the directory was removed")
            self.refusals.note(gone)
            return
        os.dup2(directory, self._directory, inheritable=False)
        close_quietly(directory)
        self._claims.begin_anew()
        self._begun_anew_s = time.monotonic()
        log.warning("cache directory %s was removed, and begins anew", self.path)

    def _is_removed(self) -> bool:
        try:
            return os.fstat(self._directory).st_nlink == 0
        except OSError:  # a file system that has lost its server
            return False

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
        is_full = error.errno in _DISK_IS_FULL and not isinstance(
            error, BeyondLimitError
        )
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
        if self.place(file, content_hash, size_bytes):
            return self._reopen(file.descriptor, path)
        return file.descriptor

    def place(
        self, file: PendingFile, content_hash: ContentHash, size_bytes: int
    ) -> bool:
        """Give a file its place; return whether it could be done.

        Its bytes were reserved; that is settled here, one way or the other.
        """
        try:
            self._link(file, content_hash.cache_path(), size_bytes)
        except OSError as error:
            self.note_refusal(error)
            self.pending.forget(file)
        else:
            from cvmfsexec.cache.lasting_pins import pin_if_wished

            with contextlib.suppress(OSError):  # it is stored all the same
                pin_if_wished(self._directory, content_hash)
            return True
        return False

    def _link(self, file: PendingFile, path: str, size_bytes: int) -> None:
        self._count(size_bytes)
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

    def _count(self, size_bytes: int) -> None:
        """Count an object, even if the ledger cannot be written on a full disk."""
        try:
            self.quota.count(size_bytes)
        except OSError as error:
            self.make_room_after(error, size_bytes)
            self.quota.reserve(size_bytes)
            self.quota.count(size_bytes)

    def _reopen(self, descriptor: int, path: str) -> int:
        try:
            reopened, _ = open_file(path, self._directory)
        except OSError:
            return descriptor  # removed already, or no file; the bytes are there
        close_quietly(descriptor)
        return reopened
