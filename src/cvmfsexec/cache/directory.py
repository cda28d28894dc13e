"""Objects in a directory, in the original client's layout, shared by many processes.

``<first 2 hex digits>/<the other 38>[-algorithm]`` holds the decompressed bytes: files
of mode 0600 in directories of mode 0700, made when first needed. An object is written
to ``txn/`` and renamed; a rename is what makes it visible and makes any number of
processes safe with each other. Everything is reached through one descriptor of the
directory, so that the store outlives changes of the mount tree.

**After a power failure** a renamed object may be empty or cut off: nothing is
synchronised to disk, as that costs milliseconds for each of thousands of objects. File
systems grow a file only as its bytes reach the disk (ext4 data=ordered, xfs, btrfs),
so what is torn is also too short. The fetcher compares the size that the catalog
announces with that of the file and fetches a short one again. Objects of which nobody
announces a size are refused by their readers (SQLite, PEM, JSON know their own end)
and are then given up with ``Fetcher.discard``.

**Without room** a transaction moves to an unnamed file elsewhere, or to memory, with
all it has so far. The store then asks the directory again only after a minute.
"""

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

from cvmfsexec import log
from cvmfsexec.cache import scratch
from cvmfsexec.cache.pending import PendingFiles
from cvmfsexec.cache.private_directory import open_private_directory
from cvmfsexec.cache.usage import estimate_used_bytes
from cvmfsexec.errors import CacheError
from cvmfsexec.format.digest import ContentHash

_OPEN_FLAGS = os.O_RDONLY | os.O_CLOEXEC
_OUT_OF_MEANS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
_CLOSED = -1
_UNNAMED = ""
_REST_S = 60.0
_ESTIMATE_VALID_S = 60.0


class DirectoryStore:
    """An ``ObjectStore`` on disk.

    Args:
        path: Where the directory is, for messages.
        directory: Descriptor of it; becomes the store's.
        scratch_directory: Where objects go that the directory has no room for.
        clock: Seconds that do not jump.
    """

    def __init__(
        self,
        path: str,
        directory: int,
        *,
        scratch_directory: str = "/tmp",  # noqa: S108 -- unnamed files only
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = path
        self._directory = directory
        self._scratch_directory = scratch_directory
        self._clock = clock
        self.pending = PendingFiles(directory)
        self._rests_until_s = 0.0
        self._has_warned = False
        self._estimate = (float("-inf"), 0)

    @classmethod
    def open(cls, path: str) -> Self:
        """Open a cache directory, making it if needed, and clear what the dead left.

        Raises:
            CacheError: The directory cannot be used, or others could have changed it.
        """
        store = cls(path, open_private_directory(path))
        store.pending.remove_dead()
        return store

    def close(self) -> None:
        """Give back the directory; descriptors of objects stay good."""
        os.close(self._directory)

    def open_object(self, content_hash: ContentHash) -> int | None:
        """See ``ObjectStore``; one system call."""
        path = content_hash.cache_path()
        try:
            return os.open(path, _OPEN_FLAGS, dir_fd=self._directory)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno in _OUT_OF_MEANS:
                raise CacheError(f"cannot open {path}: {error.strerror}") from error
            log.warning("cache: cannot read %s: %s", path, error.strerror)
            return None  # a disk that fails: the network has it too

    def has(self, content_hash: ContentHash) -> bool:
        """See ``ObjectStore``."""
        return os.access(content_hash.cache_path(), os.F_OK, dir_fd=self._directory)

    def transaction(self) -> "_DirectoryTransaction":
        """See ``ObjectStore``."""
        return _DirectoryTransaction(self)

    def remove(self, content_hash: ContentHash) -> None:
        """See ``ObjectStore``."""
        try:
            os.unlink(content_hash.cache_path(), dir_fd=self._directory)
        except FileNotFoundError:
            pass
        except OSError as error:
            self.give_up(error)

    def used_bytes(self) -> int | None:
        """See ``ObjectStore``; an estimate that is up to a minute old."""
        now_s = self._clock()
        made_at_s, used_bytes = self._estimate
        if now_s - made_at_s > _ESTIMATE_VALID_S:
            used_bytes = estimate_used_bytes(self._directory)
            self._estimate = (now_s, used_bytes)
        return used_bytes

    def open_places(self) -> Iterator[tuple[int, str]]:
        """Yield new files to write an object to, the best first, as they are needed.

        Each is a descriptor and a name below the directory, which is empty where
        there is none. Places that cannot make a file are passed over.

        Raises:
            CacheError: No descriptor or memory is left.
        """
        if self._clock() >= self._rests_until_s:
            try:
                place = self.pending.create()
            except OSError as error:
                self.give_up(error)
            else:
                yield place
        with contextlib.suppress(OSError):
            yield scratch.open_unnamed(self._scratch_directory), _UNNAMED
        with contextlib.suppress(OSError):
            yield scratch.open_in_memory(), _UNNAMED

    def publish(self, name: str, content_hash: ContentHash) -> None:
        """Rename a pending file to its object; if that fails, keep nothing."""
        path = content_hash.cache_path()
        try:
            self._rename(name, path)
        except FileNotFoundError:
            log.debug("cache: %s was taken for a dead process's", name)
        except OSError as error:
            self.give_up(error)
            self.pending.forget(name)

    def _rename(self, name: str, path: str) -> None:
        directory = self._directory
        try:
            os.rename(name, path, src_dir_fd=directory, dst_dir_fd=directory)
        except FileNotFoundError:
            with contextlib.suppress(FileExistsError):  # another process was faster
                os.mkdir(path[:2], 0o700, dir_fd=directory)
            os.rename(name, path, src_dir_fd=directory, dst_dir_fd=directory)

    def give_up(self, error: OSError) -> None:
        """Do without the directory for a while; tell the user the first time.

        Raises:
            CacheError: The fault is not the directory's: no descriptor is left.
        """
        if error.errno in _OUT_OF_MEANS:
            raise CacheError(f"cannot write to the cache: {error.strerror}") from error
        self._rests_until_s = self._clock() + _REST_S
        if not self._has_warned:
            self._has_warned = True
            log.warning(
                "cache directory %s: %s; what does not fit is read without being kept",
                self.path,
                error.strerror,
            )


class _DirectoryTransaction:
    """An object being written to the best place that has room for it."""

    __slots__ = ("_descriptor", "_name", "_places", "_store", "_written_bytes")

    def __init__(self, store: DirectoryStore) -> None:
        self._store = store
        self._places = store.open_places()
        self._written_bytes = 0
        self._descriptor, self._name = self._open_next(None)

    def write(self, data: bytes | bytearray) -> None:
        """See ``Transaction``."""
        while True:
            try:
                scratch.write_all(self._descriptor, data)
            except OSError as error:
                self._move(error)
            else:
                self._written_bytes += len(data)
                return

    def commit(self, content_hash: ContentHash) -> int:
        """See ``Transaction``."""
        if self._name:
            self._flush()
            self._store.publish(self._name, content_hash)
        descriptor, self._descriptor = self._descriptor, _CLOSED
        return descriptor

    def _flush(self) -> None:
        """Learn of a full disk or quota from a network file system.

        Those take bytes without asking the server, and report on ``close``. Closing
        a duplicate makes them ask while the descriptor stays ours; elsewhere it costs
        a microsecond.
        """
        try:
            os.close(os.dup(self._descriptor))
        except OSError as error:
            self._store.give_up(error)
            raise CacheError(
                f"the cache directory {self._store.path} lost an object: "
                f"{error.strerror}"
            ) from error

    def _move(self, reason: OSError) -> None:
        """Go on in the next place that takes what was written so far."""
        descriptor, name = self._descriptor, self._name
        if name:
            self._store.give_up(reason)
        self._descriptor, self._name = self._copy_to_next(descriptor, reason)
        os.close(descriptor)
        if name:
            self._store.pending.forget(name)

    def _copy_to_next(self, source: int, reason: OSError) -> tuple[int, str]:
        while True:
            descriptor, name = self._open_next(reason)
            try:
                scratch.copy_start(source, descriptor, self._written_bytes)
            except OSError:
                os.close(descriptor)  # no room here either
            else:
                return descriptor, name

    def _open_next(self, reason: OSError | None) -> tuple[int, str]:
        place = next(self._places, None)
        if place is None:
            raise CacheError("no room for an object, not even in memory") from reason
        return place

    def abort(self) -> None:
        """See ``Transaction``."""
        if self._descriptor != _CLOSED:
            os.close(self._descriptor)
            self._descriptor = _CLOSED
            if self._name:
                self._store.pending.forget(self._name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.abort()
