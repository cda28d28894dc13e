"""The packed cache: many objects in few files, for file systems that nodes share.

There, each creation and each look-up of a file is a message to a server that all jobs
of the site ask. Small objects go into packs (``packs``). What is larger than half a
megabyte, or a database, which SQLite wants to open by its name, gets a file of its own;
that there is one, the packs tell, so that nobody looks in vain.

An object from a pack is handed out as a copy in memory.

**The limit** is kept by whoever finds it exceeded and gets the lease
(``pack_tidying``). Without a limit, too, many small packs are put together.

Whoever can write the directory decides what programs run, so it has to be this user's
alone, as any other: it is for one user's jobs on many nodes.
"""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Self

from cvmfsexec.cache.node_claims import NodeClaims
from cvmfsexec.cache.open_files import close_quietly
from cvmfsexec.cache.own_files import OwnFile, OwnFiles
from cvmfsexec.cache.pack_places import Place
from cvmfsexec.cache.pack_reader import PACKED_BYTES_MAX
from cvmfsexec.cache.pack_tidying import PACKS_MAX, PackTidying
from cvmfsexec.cache.packs import Packs
from cvmfsexec.cache.pins import NO_PIN, Pin
from cvmfsexec.cache.private_directory import open_private_directory
from cvmfsexec.cache.private_files import DATABASE_START, SCRATCH, PrivateFiles
from cvmfsexec.cache.store import Transaction
from cvmfsexec.cache.tidying import LOOKS_PER_LIMIT
from cvmfsexec.cache.unmanaged import UnmanagedStore, Upkeep
from cvmfsexec.errors import CacheError
from cvmfsexec.format.digest import ContentHash
from cvmfsexec.format.pack_index import RECORD_BYTES, RecordKind

MANY_PACKS = 4 * PACKS_MAX
"""With more than that, who stores nothing tidies up, too."""

_PACKS_PER_LIMIT = 16
_PACK_BYTES_MIN = 4 << 20
_PACK_BYTES_MAX = 256 << 20


class PackedStore(UnmanagedStore):
    """An ``ObjectStore`` of packs; see ``UnmanagedStore`` for the arguments."""

    def __init__(self, path: str, directory: int, limit_bytes: int = 0) -> None:
        pack_bytes = _pack_bytes(limit_bytes)
        self._packs = Packs(directory, pack_bytes)
        tidying = PackTidying(directory, self._packs, limit_bytes, pack_bytes)
        upkeep = Upkeep(
            limit_bytes // LOOKS_PER_LIMIT or _PACK_BYTES_MAX,
            tidying.tidy,
            tidying.used_bytes,
        )
        super().__init__(
            "packed cache", path, open_private_directory, directory, upkeep
        )
        self._private_files = PrivateFiles(SCRATCH)
        self._own_files = OwnFiles(
            directory,
            self._private_files,
            self._refusals,
            self.attempt,
            self.note_refusal,
        )
        self._claims = NodeClaims(directory)
        self._has_seen_many = False

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
        self.end_upkeep()
        self._claims.close()
        self._packs.close()
        close_quietly(self._directory)

    def begin_anew(self) -> None:
        """See ``UnmanagedStore``."""
        self._packs.begin_anew()
        self._claims.begin_anew()

    def open_object(self, content_hash: ContentHash) -> int | None:
        """See ``ObjectStore``."""
        place = self._packs.find(content_hash)
        if not self._has_seen_many and self._packs.lookout.pack_count > MANY_PACKS:
            self._has_seen_many = True
            self.note_stored(0)
        while place is not None:
            descriptor = self._open(place)
            if descriptor is not None:
                return descriptor
            self._packs.forget(place)
            place = self._packs.find(content_hash)
        return None

    def _open(self, place: Place) -> int | None:
        if place.record.kind is RecordKind.OWN_FILE:
            return self._own_files.open(place.record.content_hash)
        content = self._packs.read(place)
        return None if content is None else self._private_files.holding(content)

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
        self.look_for_another()
        has_waited = False

        def is_there() -> bool:
            nonlocal has_waited
            has_waited = True
            return self._has_now(content_hash)

        claim = self._claims.claim(
            content_hash, patience_s=patience_s, is_there=is_there
        )
        with claim as is_ours:
            if not is_ours:
                self._packs.lookout.expect_neighbours()
            # Whoever had the claim has stored the object, most likely: in the pack of
            # a neighbour who has begun just now, if it is in none of those known.
            if not self._has_now(content_hash) and has_waited and is_ours:
                self._packs.lookout.look_at_neighbours(has_met_one=True)
            yield is_ours

    def _has_now(self, content_hash: ContentHash) -> bool:
        self._packs.lookout.look_at_neighbours()
        return self._packs.find(content_hash, looks=False) is not None

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
        self._has_written(partial(self._packs.remove, content_hash))

    def put(self, content: bytes | bytearray, content_hash: ContentHash) -> bool:
        """Add a small object; return whether it is there."""
        if self._packs.find(content_hash, looks=False) is not None:
            return True
        if self._refusals.are_recent:
            return False
        if not self._has_written(partial(self._packs.append, content_hash, content)):
            return False
        self.note_stored(len(content) + RECORD_BYTES)
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

    def tell(self, content_hash: ContentHash, size_bytes: int) -> bool:
        """Let others know of an object in its own file; return whether they do.

        Args:
            content_hash: Its name.
            size_bytes: Its size.
        """
        tell = partial(self._packs.note_own_file, content_hash, size_bytes)
        if not self._has_written(tell):
            return False
        self.note_stored(size_bytes + RECORD_BYTES)
        return True

    def _has_written(self, write: Callable[[], object]) -> bool:
        """Write to our pack; return whether that was possible."""
        return self.attempt(lambda: (write(),)) is not None


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
            close_quietly(descriptor)
        self._is_over = True
        return is_kept

    def _place(self, file: OwnFile, content_hash: ContentHash) -> tuple[int, bool]:
        self._is_over = True
        descriptor, is_kept = file.commit(content_hash)
        try:
            is_told = is_kept and self._store.tell(content_hash, self._size_bytes)
        except CacheError:
            close_quietly(descriptor)
            raise
        return descriptor, is_told

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
