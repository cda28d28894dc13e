"""What is in one cache directory, seen and changed from outside of any session.

The commands about caches and the talk socket of a mount are two mouths of what is here
and in :mod:`.cached_files`.
"""

import os
from collections.abc import Iterator
from functools import partial
from types import TracebackType
from typing import NamedTuple, Self

from cvmfsexec.cache.contents import StoredObject, stored_objects
from cvmfsexec.cache.eviction import recount
from cvmfsexec.cache.inspection import Fault, Problem
from cvmfsexec.cache.ledger import FILE_NAME as LEDGER
from cvmfsexec.cache.ledger import Ledger
from cvmfsexec.cache.private_directory import open_private_directory
from cvmfsexec.cache.usage import estimate_usage
from cvmfsexec.client.cache_places import CachePlace
from cvmfsexec.configuration.cache_instances import StoreKind
from cvmfsexec.errors import CacheError
from cvmfsexec.format.digest import ContentHash

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
    """One cache directory. Close it, or use it in a ``with``.

    Args:
        place: Where it is.
        directory: Descriptor of it; becomes ours.
    """

    def __init__(self, place: CachePlace, directory: int) -> None:
        self.place = place
        self.directory = directory
        self._ledger: Ledger | None = None
        if place.kind is StoreKind.POSIX and os.access(
            LEDGER, os.R_OK, dir_fd=directory
        ):
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
        if is_trusted and place.kind is StoreKind.POSIX:
            return cls(place, open_private_directory(place.directory))
        try:
            return cls(place, os.open(place.directory, _DIRECTORY_FLAGS))
        except OSError as error:
            raise CacheError(
                f"cannot open {place.directory}: {error.strerror}"
            ) from error

    def close(self) -> None:
        """Give back the directory."""
        if self._ledger is not None:
            self._ledger.close()
        os.close(self.directory)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

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

        While sessions store objects there is nothing to be said.
        """
        after = self.counted()
        if before is None or after is None or before != after or not after.is_exact:
            return None
        if after.used_bytes == total_bytes:
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
