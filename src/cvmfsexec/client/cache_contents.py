"""What is in one cache directory, seen and changed from outside of any session.

Objects have names as far as the catalogs that lie beside them tell.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from functools import partial
from typing import NamedTuple, Self

from cvmfsexec import log
from cvmfsexec.cache.contents import StoredObject, stored_objects
from cvmfsexec.cache.eviction import recount, remove
from cvmfsexec.cache.faults import Fault, Problem
from cvmfsexec.cache.lasting_pins import (
    has_file,
    pin_for_good,
    pinned_for_good,
    size_of,
    unpin,
    wished,
)
from cvmfsexec.cache.ledger import FILE_NAME as LEDGER
from cvmfsexec.cache.ledger import Ledger
from cvmfsexec.cache.private_directory import open_private_directory
from cvmfsexec.cache.quota import Quota
from cvmfsexec.cache.usage import estimate_usage
from cvmfsexec.client.cache_places import CachePlace
from cvmfsexec.client.cached_names import CachedName, CachedRepository, Kind
from cvmfsexec.configuration.cache_instances import StoreKind
from cvmfsexec.errors import CacheError, CvmfsError
from cvmfsexec.format.digest import ContentHash

_MANAGED = frozenset({StoreKind.POSIX, StoreKind.RAM})
"""Kinds with a ledger, and objects that stay when they are pinned."""

_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Count(NamedTuple):
    """What the ledger says that there is.

    Attributes:
        used_bytes: The sum.
        is_exact: Whether the objects were counted, and nobody has been storing since.
    """

    used_bytes: int
    is_exact: bool


class Scan(NamedTuple):
    """What there is.

    Attributes:
        object_count: Objects.
        total_bytes: Their sizes.
        pinned_count: Those that may not be removed to make room.
        pinned_bytes: Their sizes.
        oldest_use_s: When the one was used that is removed next; 0 if there is none.
    """

    object_count: int
    total_bytes: int
    pinned_count: int
    pinned_bytes: int
    oldest_use_s: int


class CacheContents:
    """One cache directory. Close it.

    Args:
        place: Where it is.
        directory: Descriptor of it; becomes ours.
    """

    def __init__(self, place: CachePlace, directory: int) -> None:
        self.place = place
        self.directory = directory
        self._ledger: Ledger | None = None
        self._quota_or_none: Quota | None = None
        if self._is_managed and os.access(LEDGER, os.R_OK, dir_fd=directory):
            estimate = partial(estimate_usage, directory)
            self._ledger = Ledger(directory, 0, estimate)

    @classmethod
    def open(cls, place: CachePlace, *, is_trusted: bool = True) -> Self:
        """Open it.

        Args:
            place: Where it is.
            is_trusted: Whether it has to be private, if it ought to be.

        Raises:
            CacheError: It cannot be opened, or others can write to it.
        """
        try:
            if is_trusted and place.kind in _MANAGED:
                return cls(place, open_private_directory(place.directory))
            return cls(place, os.open(place.directory, _DIRECTORY_FLAGS))
        except OSError as error:
            raise CacheError(
                f"cannot open {place.directory}: {error.strerror}"
            ) from error

    def close(self) -> None:
        """Give back the directory."""
        if self._quota_or_none is not None:
            self._quota_or_none.close()
        if self._ledger is not None:
            self._ledger.close()
        os.close(self.directory)

    def objects(self) -> Iterator[StoredObject]:
        """Yield what is stored."""
        return stored_objects(self.directory, self.in_use())

    def scan(self) -> Scan:
        """Look at all objects."""
        count = total_bytes = pinned_count = pinned_bytes = 0
        oldest_ns = 0
        for one in self.objects():
            count += 1
            total_bytes += one.size_bytes
            if one.is_pinned:
                pinned_count += 1
                pinned_bytes += one.size_bytes
            elif not oldest_ns or one.last_used_ns < oldest_ns:
                oldest_ns = one.last_used_ns
        oldest_s = oldest_ns // 1_000_000_000
        return Scan(count, total_bytes, pinned_count, pinned_bytes, oldest_s)

    @property
    def _is_managed(self) -> bool:
        return self.place.kind in _MANAGED

    @property
    def is_writable(self) -> bool:
        """Whether anything can be put into it, or removed."""
        return os.access(".", os.W_OK, dir_fd=self.directory)

    @property
    def is_trusted(self) -> bool:
        """Whether nobody else can write to it."""
        return self.place.kind is not StoreKind.ALIEN

    def in_use(self) -> frozenset[ContentHash]:
        """Return the objects that sessions have pinned."""
        if self._ledger is None:
            return frozenset()
        try:
            with self._ledger.locked() as book:
                return book.in_use()
        except OSError:
            return frozenset()

    # -- the count -------------------------------------------------------------------

    def counted(self) -> Count | None:
        """Return what the ledger says; ``None`` if there is none."""
        if self._ledger is None:
            return None
        try:
            with self._ledger.locked() as book:
                book.settle_dead()
                is_idle = len(book.accounts) <= 1  # our own
                is_exact = bool(book.summary.counted_at_s) and is_idle
                return Count(book.used_bytes, is_exact)
        except OSError:
            return None

    def check_count(
        self, before: Count | None, total_bytes: int, *, repairs: bool
    ) -> Fault | None:
        """Compare the ledger's sum, taken before an inspection, with what was found.

        While sessions store objects there is nothing to be said. Too much is no fault:
        what somebody deleted, or the killed were about to store, stays counted until
        the next count.
        """
        after = self.counted()
        if before is None or after is None or before != after or not after.is_exact:
            return None
        if after.used_bytes >= total_bytes:
            return None
        detail = f"{after.used_bytes} instead of {total_bytes} bytes"
        return Fault(LEDGER, Problem.WRONG_SUM, detail, is_fixed=repairs)

    def recount(self) -> None:
        """Write the true sum into the ledger, unless somebody else is about to.

        Raises:
            CacheError: The ledger cannot be used.
        """
        if self._ledger is None:
            return
        try:
            with self._ledger.broom() as is_ours:
                if is_ours:
                    recount(self.directory, self._ledger)
        except OSError as error:
            raise CacheError(
                f"cannot count the bytes of {self.place.directory}: {error.strerror}"
            ) from error

    # -- limits ----------------------------------------------------------------------

    def limit_in_force_bytes(self) -> int:
        """Return the lowest limit of the sessions that run; 0 if there is none."""
        if self._ledger is None:
            return 0
        try:
            with self._ledger.locked() as book:
                book.settle_dead()
                return book.limit_bytes
        except OSError:
            return 0

    def cleanings_within(self, period_s: float) -> int:
        """Return how often anybody made room in the last so many seconds."""
        return self._quota().cleanings_within(period_s)

    def clean(self, target_bytes: int) -> bool:
        """Remove what was used least recently until no more than this is used.

        Returns:
            Whether that was reached; what is pinned may prevent it.

        Raises:
            CacheError: It is a cache that is not kept to a limit like that.
        """
        path = self.place.directory
        if not self.place.is_files:
            raise CacheError(
                f"{path} is {self.place.kind.value}, and cleaned by its sessions only",
                hint="lower CVMFS_QUOTA_LIMIT, or remove the directory when nobody "
                "uses it",
            )
        if not self.is_writable:
            raise CacheError(
                f"nothing can be removed from {path}: it cannot be written",
                hint="ask its owner",
            )
        if self._is_managed:
            return self._quota().clean(target_bytes)
        return self._clean_shared(target_bytes)

    def _clean_shared(self, target_bytes: int) -> bool:
        """Do what sessions do, whose limit comes to this."""
        from cvmfsexec.cache.tidying import tidy_directory

        try:
            tidy_directory(self.directory, target_bytes)
        except OSError as error:
            raise CacheError(
                f"cannot clean {self.place.directory}: {error.strerror}"
            ) from error
        return self.scan().total_bytes <= target_bytes

    def _quota(self) -> Quota:
        if self._quota_or_none is None:
            self._quota_or_none = Quota(self.directory, self.place.directory)
        return self._quota_or_none

    # -- by name ---------------------------------------------------------------------

    def repository(self, fqrn: str) -> CachedRepository:
        """Return what is known here of a repository; the caller closes it.

        Raises:
            CacheError: Nothing.
        """
        return CachedRepository(
            self.directory, self.place.workspace, fqrn, is_trusted=self.is_trusted
        )

    def names(self) -> dict[ContentHash, tuple[str, CachedName]]:
        """Return a name of each object that has one, with its repository."""
        found: dict[ContentHash, tuple[str, CachedName]] = {}
        for fqrn in self.place.repositories:
            try:
                with closing(self.repository(fqrn)) as repository:
                    for name in repository.names():
                        found.setdefault(name.content_hash, (fqrn, name))
            except CvmfsError as error:
                log.warning("%s", error)
        return found

    def evict(self, names: Iterable[CachedName]) -> tuple[int, int]:
        """Remove files; return how many of their objects were there, and their bytes.

        Catalogs stay: what is used next needs them.

        Raises:
            CacheError: One cannot be removed.
        """
        wanted = {one.content_hash for one in names if one.kind is not Kind.CATALOG}
        for content_hash in wanted:
            with suppress(OSError):
                unpin(self.directory, content_hash)
        paths = [content_hash.cache_path() for content_hash in wanted]
        try:
            return remove(self.directory, self._ledger, paths)
        except OSError as error:
            raise CacheError(
                f"cannot remove from {self.place.directory}: {error.strerror}"
            ) from error

    def pin(self, hashes: Iterable[ContentHash]) -> tuple[int, int]:
        """Keep objects until they are unpinned; return how many, and their bytes.

        Those that are not here are passed over.

        Raises:
            CacheError: They would fill more than half of the cache, or its file system
                cannot do it.
        """
        wanted = frozenset(hashes)
        self._check_room_for_pins(wanted)
        try:
            pinned = [one for one in wanted if pin_for_good(self.directory, one)]
        except OSError as error:
            raise CacheError(
                f"cannot pin in {self.place.directory}: {error.strerror}"
            ) from error
        return len(pinned), sum(size_of(self.directory, one) for one in pinned)

    def unpin(self, hashes: Iterable[ContentHash]) -> int:
        """Take that back; return how many were pinned.

        Raises:
            CacheError: It is not possible.
        """
        try:
            return sum(unpin(self.directory, one) for one in frozenset(hashes))
        except OSError as error:
            raise CacheError(
                f"cannot unpin in {self.place.directory}: {error.strerror}"
            ) from error

    def pinned_for_good(self) -> frozenset[ContentHash]:
        """Return what is pinned until it is unpinned."""
        return pinned_for_good(self.directory)

    def count_missing_pins(self) -> int:
        """Return how many objects are pinned and have to be fetched again."""
        found = (one for one, _ in wished(self.directory))
        return sum(not has_file(self.directory, one) for one in found)

    def _check_room_for_pins(self, wanted: frozenset[ContentHash]) -> None:
        if not self._is_managed:
            raise CacheError(
                f"nothing can be pinned in {self.place.directory}: it is "
                f"{self.place.kind.value}",
                hint="cvmfs prefetch fills it, and what is used stays longest",
            )
        limit_bytes = self.limit_in_force_bytes() or self.place.limit_bytes
        pinned = self.pinned_for_good() | wanted
        pinned_bytes = sum(size_of(self.directory, one) for one in pinned)
        if limit_bytes and pinned_bytes > limit_bytes // 2:
            raise CacheError(
                f"{pinned_bytes} bytes would be pinned, of a cache of {limit_bytes}",
                hint="half of it may be; raise CVMFS_QUOTA_LIMIT, or unpin others",
            )


def packed_bytes(place: CachePlace) -> int:
    """Return how much a packed cache holds, in packs and in files of their own.

    Raises:
        CacheError: It cannot be looked at.
    """
    from cvmfsexec.cache.pack_writer import DIRECTORY

    with closing(CacheContents.open(place)) as contents:
        used_bytes = contents.scan().total_bytes
    try:
        with os.scandir(os.path.join(place.directory, DIRECTORY)) as packs:
            for pack in packs:
                with suppress(FileNotFoundError):  # removed meanwhile
                    used_bytes += pack.stat(follow_symlinks=False).st_size
    except FileNotFoundError:
        pass  # none yet
    except OSError as error:
        raise CacheError(
            f"cannot look into {place.directory}: {error.strerror}"
        ) from error
    return used_bytes
