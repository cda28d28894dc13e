"""The packed cache: many objects in few files, for file systems that nodes share.

There, each creation and each look-up of a file is a message to a server that all jobs
of the site ask. Small objects go into packs (``packs``). What is larger than half a
megabyte, or a database, which SQLite wants to open by its name, gets a file of its own;
that there is one, the packs tell, so that nobody looks in vain.

An object from a pack is handed out as a copy in memory.

**The limit** is kept by whoever finds it exceeded and gets the lease (``tidying``):
  packs that were not used for the longest time are removed as a whole, and old files of
  objects. Where many small packs have gathered, they are put together.

Whoever can write the directory decides what programs run, so it has to be this user's
alone, as any other: it is for one user's jobs on many nodes.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import Self

from cvmfsexec.cache import contents, packs
from cvmfsexec.cache.lease import Lease, Renewal
from cvmfsexec.cache.node_claims import NodeClaims
from cvmfsexec.cache.own_files import OwnFile, OwnFiles
from cvmfsexec.cache.packs import PACKED_BYTES_MAX, Packs, Place
from cvmfsexec.cache.pins import NO_PIN, Pin
from cvmfsexec.cache.private_directory import open_private_directory
from cvmfsexec.cache.private_files import DATABASE_START, SCRATCH, PrivateFiles
from cvmfsexec.cache.refusals import Refusals
from cvmfsexec.cache.store import Transaction
from cvmfsexec.cache.tidying import ROOM_PART, RecentUsage, Tidying
from cvmfsexec.errors import CacheError
from cvmfsexec.format.digest import ContentHash
from cvmfsexec.format.pack_index import RecordKind

PACKS_MAX = 64
"""More are put together: each costs who begins to read four operations."""

_PACKS_PER_LIMIT = 16
_PACK_BYTES_MIN = 4 << 20
_PACK_BYTES_MAX = 256 << 20
_IDLE_S = 3600.0


class PackedStore:
    """An ``ObjectStore`` of packs.

    Args:
        path: Where the directory is, for messages.
        directory: Descriptor of it; becomes the store's.
        limit_bytes: How much it may hold; 0 for any.
        clock: Seconds that do not jump.
    """

    quota = None

    def __init__(
        self,
        path: str,
        directory: int,
        limit_bytes: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = path
        self._directory = directory
        self._limit_bytes = limit_bytes
        self._packs = Packs(directory, _pack_bytes(limit_bytes), clock)
        self._private_files = PrivateFiles(SCRATCH)
        self._own_files = OwnFiles(directory, self._private_files)
        self._claims = NodeClaims(directory)
        self._tidying = Tidying(limit_bytes, self._tidy)
        self._usage = RecentUsage(self._count, clock)
        self._refusals = Refusals(f"packed cache {path}", clock)

    @classmethod
    def open(cls, path: str, limit_bytes: int = 0) -> Self:
        """Open a packed cache, making its directory if needed.

        Raises:
            CacheError: It cannot be used, or others could have changed it.
        """
        store = cls(path, open_private_directory(path), limit_bytes)
        store._own_files.pending.remove_dead()
        return store

    def close(self) -> None:
        """See ``ObjectStore``."""
        self._tidying.close()
        self._claims.close()
        self._packs.close()
        os.close(self._directory)

    def open_object(self, content_hash: ContentHash) -> int | None:
        """See ``ObjectStore``."""
        place = self._packs.find(content_hash)
        if place is None:
            return None
        if place.record.kind is RecordKind.OWN_FILE:
            descriptor = self._own_files.open(content_hash)
        else:
            content = self._packs.read(place)
            descriptor = (
                None if content is None else self._private_files.holding(content)
            )
        if descriptor is None:
            self._packs.forget(place)
        return descriptor

    def has(self, content_hash: ContentHash) -> bool:
        """See ``ObjectStore``; its checksums are looked at when it is opened."""
        return self._packs.has(content_hash)

    def pin(self, content_hash: ContentHash) -> Pin:  # noqa: ARG002 -- see ObjectStore
        """See ``ObjectStore``; what was used lately is not removed."""
        return NO_PIN

    @contextlib.contextmanager
    def claim(
        self,
        content_hash: ContentHash,
        *,
        patience_s: float,
        size_bytes: int | None = None,  # noqa: ARG002 -- see ``ObjectStore``
    ) -> Iterator[bool]:
        """See ``ObjectStore``; among the processes of this node."""
        if self._refusals.are_recent:
            yield False
            return
        has_waited = False

        def is_there() -> bool:
            nonlocal has_waited
            has_waited = True
            return self._has_now(content_hash)

        claim = self._claims.claim(
            content_hash, patience_s=patience_s, is_there=is_there
        )
        with claim as is_ours:
            # Whoever had the claim has stored the object, most likely: in the pack of
            # a neighbour who has begun just now, if it is in none of those known.
            self._packs.look_at_neighbours(has_met_one=has_waited and is_ours)
            yield is_ours

    def _has_now(self, content_hash: ContentHash) -> bool:
        self._packs.look_at_neighbours()
        return self._packs.find(content_hash, refresh_s=None) is not None

    def transaction(self) -> "_PackedTransaction":
        """See ``ObjectStore``."""
        return _PackedTransaction(self)

    def remove(self, content_hash: ContentHash) -> None:
        """See ``ObjectStore``."""
        place = self._packs.find(content_hash)
        if place is None:
            return
        if place.record.kind is RecordKind.OWN_FILE:
            self._own_files.remove(content_hash)
        try:
            self._packs.remove(place)
        except OSError as error:
            self._refusals.note(error)

    def used_bytes(self) -> int | None:
        """See ``ObjectStore``; packs as they are, own files as they were stored."""
        return self._usage.used_bytes()

    def put(self, content: bytes | bytearray, content_hash: ContentHash) -> bool:
        """Add a small object; return whether it is there."""
        if self._packs.find(content_hash, refresh_s=None) is not None:
            return True
        if self._refusals.are_recent:
            return False
        try:
            self._packs.append(content_hash, content)
        except OSError as error:
            self._refusals.note(error)
            return False
        self._tidying.note(len(content))
        return True

    def hold(self, content: bytes | bytearray) -> int:
        """Return a descriptor of a small object that need not be anywhere else."""
        return self._private_files.holding(content)

    def begin_own_file(self) -> OwnFile:
        """Begin to write a large object.

        Raises:
            CacheError: There is no room anywhere.
        """
        return self._own_files.begin()

    def tell(
        self, content_hash: ContentHash, size_bytes: int, refusal: OSError | None
    ) -> bool:
        """Let others know of an object in its own file; return whether it is there.

        Args:
            content_hash: Its name.
            size_bytes: Its size.
            refusal: Why it is not there.
        """
        if refusal is not None:
            self._refusals.note(refusal)
            return False
        try:
            self._packs.note_own_file(content_hash, size_bytes)
        except OSError as error:
            self._refusals.note(error)
            return False
        self._tidying.note(size_bytes)
        return True

    # -- making room ----------------------------------------------------------------

    def _count(self) -> int:
        sizes = (size_bytes for size_bytes, _ in self._sizes().values())
        return sum(sizes) + self._packs.own_files_bytes()

    def _tidy(self) -> None:
        self._packs.refresh()
        sizes = self._sizes()
        used_bytes = self._count()
        is_too_much = used_bytes > self._limit_bytes
        if not is_too_much and len(sizes) <= PACKS_MAX:
            return
        lease = Lease(self._directory)
        if not lease.acquire():
            return
        try:
            if is_too_much:
                self._shrink(sizes, Renewal(lease))
            else:
                self._merge(sizes, lease.now_s(), Renewal(lease))
        finally:
            lease.release()

    def _shrink(self, sizes: dict[str, tuple[int, float]], renewal: Renewal) -> None:
        """Remove what was used least recently, packs as a whole."""
        found: list[tuple[float, int, tuple[str, ...]]] = [
            (used_s, size_bytes, _paths_of(name))
            for name, (size_bytes, used_s) in sizes.items()
        ]
        for prefix in contents.PREFIXES:
            for name, status in contents.object_files(self._directory, prefix):
                path = f"{prefix}/{name}"
                found.append((_used_s(status), status.st_size, (path,)))
        left_bytes = sum(size_bytes for _, size_bytes, _ in found)
        target_bytes = self._limit_bytes
        if left_bytes > target_bytes:
            target_bytes -= target_bytes // ROOM_PART
        for _, size_bytes, paths in sorted(found):
            if left_bytes <= target_bytes or not renewal.is_held():
                break
            left_bytes -= size_bytes
            self._unlink(paths)

    def _merge(
        self, sizes: dict[str, tuple[int, float]], now_s: float, renewal: Renewal
    ) -> None:
        """Append what small idle packs hold to ours, and remove them."""
        for name, (size_bytes, used_s) in sizes.items():
            is_small = size_bytes < _pack_bytes(self._limit_bytes) // ROOM_PART
            is_own = name == self._packs.own_name()
            if is_own or not is_small or now_s - used_s < _IDLE_S:
                continue
            if not renewal.is_held():
                return
            for place in self._packs.objects_told_by(name):
                self._move(place)
            self._unlink(_paths_of(name))

    def _move(self, place: Place) -> None:
        record = place.record
        if record.kind is RecordKind.OWN_FILE:
            self._packs.note_own_file(record.content_hash, record.size_bytes)
            return
        content = self._packs.read(place)
        if content is not None:
            self._packs.append(record.content_hash, content)

    def _sizes(self) -> dict[str, tuple[int, float]]:
        """Return size and last use of each pack."""
        sizes = {}
        for name in packs.names_in(self._directory):
            with contextlib.suppress(OSError):  # removed meanwhile
                status = os.stat(_paths_of(name)[-1], dir_fd=self._directory)
                sizes[name] = (status.st_size, _used_s(status))
        return sizes

    def _unlink(self, paths: tuple[str, ...]) -> None:
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path, dir_fd=self._directory)


class _PackedTransaction(Transaction):
    """A small object in memory, or a large one on its way to a file of its own."""

    __slots__ = ("_content", "_is_over", "_own_file", "_size_bytes", "_store")

    def __init__(self, store: PackedStore) -> None:
        self._store = store
        self._content = bytearray()
        self._own_file: OwnFile | None = None
        self._size_bytes = 0
        self._is_over = False

    def write(self, data: bytes | bytearray) -> None:
        """See ``Transaction``."""
        self._size_bytes += len(data)
        if self._own_file is not None:
            self._own_file.write(data)
            return
        self._content += data
        is_large = self._size_bytes > PACKED_BYTES_MAX
        if is_large or self._content.startswith(DATABASE_START):
            self._own_file = self._store.begin_own_file()
            self._own_file.write(self._content)
            self._content = bytearray()

    def commit(self, content_hash: ContentHash) -> int:
        """See ``Transaction``."""
        if self._own_file is not None:
            descriptor, _ = self._place(self._own_file, content_hash)
        else:
            descriptor = self._store.hold(self._content)
            self._store.put(self._content, content_hash)
        self._is_over = True
        return descriptor

    def keep(self, content_hash: ContentHash) -> bool:
        """See ``Transaction``."""
        if self._own_file is None:
            is_kept = self._store.put(self._content, content_hash)
        else:
            descriptor, is_kept = self._place(self._own_file, content_hash)
            os.close(descriptor)
        self._is_over = True
        return is_kept

    def _place(self, file: OwnFile, content_hash: ContentHash) -> tuple[int, bool]:
        descriptor = file.commit(content_hash)
        self._is_over = True
        try:
            is_kept = self._store.tell(content_hash, self._size_bytes, file.refusal)
        except CacheError:
            os.close(descriptor)
            raise
        return descriptor, is_kept

    def abort(self) -> None:
        """See ``Transaction``."""
        if not self._is_over:
            self._is_over = True
            self._content = bytearray()
            if self._own_file is not None:
                self._own_file.abort()


def _pack_bytes(limit_bytes: int) -> int:
    """Return how large a pack becomes: small enough to be removed as a whole."""
    if not limit_bytes:
        return _PACK_BYTES_MAX
    share = limit_bytes // _PACKS_PER_LIMIT
    return min(max(share, _PACK_BYTES_MIN), _PACK_BYTES_MAX)


def _paths_of(name: str) -> tuple[str, str]:
    """Return the files of a pack; the index goes first, so that nobody finds half."""
    path = f"{packs.DIRECTORY}/{name}"
    return path + packs.INDEX, path + packs.PACK


def _used_s(status: os.stat_result) -> float:
    return max(status.st_atime, status.st_mtime)
