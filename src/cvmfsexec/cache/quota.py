"""The limit of a cache directory, over all processes that use it, at every moment.

Before bytes are written to the directory they are reserved here, of what the process
has been granted by the ledger (:mod:`cvmfsexec.cache.ledger`). Grants and what is
stored together never exceed the limit, so neither does what is stored, whoever is
killed.

**At the limit** one process makes room, down to half of it (:mod:`.eviction`). Others
wait for a moment, as the first directories bring room; then they go on without: what
they fetch is read and not kept, and for a while nobody waits for it. The same if all
that is left is in use.

**The limit that holds** is the lowest of those of the processes that use the cache now.
No limit (0) never removes anything, but counts, for others that have one.

**A full disk** is no reason to keep what nobody uses: some of that is removed
(:meth:`Quota.make_room_on_disk`); only if it does not help the store does without.

Threads: any. ``_mutex`` guards the numbers; ``_drawing`` is held by the thread that
asks the ledger, or makes room.
"""

import contextlib
import errno
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from cvmfsexec import log
from cvmfsexec.cache.ledger import Ledger
from cvmfsexec.cache.ledger_book import Book
from cvmfsexec.cache.pins import LedgerPin, Pin
from cvmfsexec.format.digest import ContentHash

if TYPE_CHECKING:
    from cvmfsexec.cache.usage import Usage

GRANT_BYTES_MAX = 1 << 20
"""Some dozens of small files; with a hundred processes, 2 % of the default limit."""

_GRANT_SHARE = 64  # of what is free, so that the last of many still finds something
_DISK_SHARE = 8  # of what is used, to be removed when the disk is full

WAIT_S = 2.0
REST_S = 10.0
"""How long to wait for who makes room; how long not to wait (or try) after that."""

_SWEEPS_MAX = 3
_PAUSE_MIN_S = 0.001
_PAUSE_MAX_S = 0.05
_BROOM_WAIT_S = 60.0

_COUNT_AFTER_S = 5.0  # the start of a job is not the time to count
_COUNT_PAUSE_S = 0.002  # in all less than WAIT_S, as it takes the broom
_COUNT_VALID_S = 86_400


class BeyondLimitError(OSError):
    """The limit leaves no room for bytes that were to be written."""

    def __init__(self) -> None:
        super().__init__(errno.EDQUOT, "the limit of the cache is reached")


class Quota:
    """A process's share of what a cache directory may hold. A ``StoreQuota``.

    Args:
        directory: Descriptor of the cache directory, which stays the caller's.
        path: Where that is, for messages.
        limit_bytes: The limit; 0 for none.
        tidy: Called by who makes room: removes what the dead have left.

    Attributes:
        stores_volatile: See ``StoreQuota``.
    """

    stores_volatile = False

    def __init__(
        self,
        directory: int,
        path: str,
        limit_bytes: int = 0,
        tidy: Callable[[], object] = lambda: None,
    ) -> None:
        self._directory = directory
        self._path = path
        self._tidy = tidy
        self._ledger = Ledger(
            directory, limit_bytes, self._estimate, self._warn_of_lack
        )
        self._mutex = threading.Lock()
        self._drawing = threading.Lock()
        self._room_bytes = 0
        self._binding_bytes = 0  # as it was when room was drawn last
        self._rests_until_s = float("-inf")
        self._has_warned = False
        self._closing = threading.Event()
        self._is_in_order = True  # until somebody has looked
        self._is_too_much = False
        self._counting: threading.Thread | None = None

    def begin(self) -> None:
        """Open the account; whoever has a limit is bound by ours from now on.

        Raises:
            OSError: There is no ledger here, and cannot be.
        """
        with self._ledger.locked() as book:
            book.settle_dead()
            self._binding_bytes = book.limit_bytes
            is_old = _is_old(book.summary.counted_at_s)
            self._is_too_much = _is_too_much(book)
            self._is_in_order = not (is_old or self._is_too_much)

    def _warn_of_lack(self) -> None:
        from cvmfsexec.cache.file_system_type import file_system_type_of

        log.warning(
            "cache directory %s: its file system (%s) has no locks; how much other "
            "sessions keep there is only estimated",
            self._path,
            file_system_type_of(self._directory) or "of an unknown kind",
        )

    def put_in_order(self) -> None:
        """See ``StoreQuota``."""
        if self._is_in_order or self._counting is not None:
            return
        thread = threading.Thread(
            target=self._count_and_clean, name="cache count", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:
            log.debug("cache: %s; counting it another time", error)
        else:
            self._counting = thread

    def close(self) -> None:
        """Give back what was granted."""
        self._closing.set()
        if self._counting is not None:
            self._counting.join()
        self._ledger.close()

    @property
    def limit_bytes(self) -> int:
        """See ``StoreQuota``."""
        return self._ledger.limit_bytes

    @limit_bytes.setter
    def limit_bytes(self, limit_bytes: int) -> None:
        self._ledger.limit_bytes = limit_bytes

    def would_keep(self, size_bytes: int | None) -> bool:
        """Whether there would be room for an object, if need be by removing others.

        Source: docs/reference/client-behaviour.md, "Quota".

        Args:
            size_bytes: Its size, if that is known.
        """
        if not (self._binding_bytes or self.limit_bytes):
            return True
        if size_bytes is not None and self._is_too_large(size_bytes):
            return False
        return time.monotonic() >= self._rests_until_s

    def _is_too_large(self, size_bytes: int) -> bool:
        if not _is_beyond(self._binding_bytes or self.limit_bytes, size_bytes):
            return False
        # Who had the lowest limit may have ended.
        self._binding_bytes = self.binding_limit_bytes()
        return _is_beyond(self._binding_bytes, size_bytes)

    def binding_limit_bytes(self) -> int:
        """See ``StoreQuota``."""
        try:
            with self._ledger.locked() as book:
                book.settle_dead()
                return book.limit_bytes
        except OSError:
            return self.limit_bytes

    def used_bytes(self) -> int:
        """See ``StoreQuota``."""
        try:
            with self._ledger.locked() as book:
                return book.used_bytes
        except OSError:
            return self._estimate().used_bytes

    def pinned_bytes(self) -> int:
        """See ``StoreQuota``."""
        from cvmfsexec.cache.lasting_pins import pinned_for_good, size_of

        pinned = self.in_use() | pinned_for_good(self._directory)
        return sum(size_of(self._directory, content_hash) for content_hash in pinned)

    def in_use(self) -> frozenset[ContentHash]:
        """See ``StoreQuota``."""
        try:
            with self._ledger.locked() as book:
                return book.in_use()
        except OSError:
            return frozenset()

    def clean(self, target_bytes: int) -> bool:
        """See ``StoreQuota``."""
        deadline_s = time.monotonic() + _BROOM_WAIT_S
        with contextlib.suppress(OSError):
            while time.monotonic() < deadline_s:
                with self._ledger.broom() as is_ours:
                    if is_ours:
                        self._evict(target_bytes)
                        return self.used_bytes() <= target_bytes
                if self.used_bytes() <= target_bytes:
                    return True
                time.sleep(_PAUSE_MAX_S)
        return False

    def cleanings_within(self, period_s: float) -> int:
        """See ``StoreQuota``."""
        since_s = time.time() - period_s
        try:
            with self._ledger.locked() as book:
                return sum(at_s >= since_s for at_s in book.summary.cleaned_at_s)
        except OSError:
            return 0

    def reserve(self, size_bytes: int) -> None:
        """Take room for bytes that are about to be written.

        Raises:
            BeyondLimitError: There is none within the limit.
            OSError: The ledger cannot be written, so neither can the cache.
        """
        if not self._take(size_bytes):
            with self._drawing:
                if not (self._take(size_bytes) or self._draw(size_bytes)):
                    raise BeyondLimitError

    def give_back(self, size_bytes: int) -> None:
        """Take notice that reserved bytes were not written, or are gone."""
        with self._mutex:
            self._room_bytes += size_bytes
            surplus_bytes = self._room_bytes - 2 * GRANT_BYTES_MAX
            if surplus_bytes <= 0:
                return
            self._room_bytes -= surplus_bytes
        with contextlib.suppress(OSError), self._ledger.locked() as book:
            self._ledger.charge(book, -surplus_bytes)

    def count(self, size_bytes: int) -> None:
        """Count an object whose bytes were reserved, before it becomes visible.

        Raises:
            OSError: It cannot be counted, and is given back.
        """
        try:
            self._ledger.count(size_bytes)
        except OSError:
            self.give_back(size_bytes)
            raise

    def count_linked(self, size_bytes: int, *, is_new: bool) -> None:
        """Take notice of whether it became visible, and was not there before."""
        if is_new:
            self._ledger.count_linked(size_bytes)
        else:
            self._ledger.count_refused(size_bytes)
            self.give_back(size_bytes)

    def remove(self, path: str) -> None:
        """Remove an object that is not wanted, if it is there.

        Args:
            path: Where it is below the directory.

        Raises:
            OSError: It cannot be removed.
        """
        from cvmfsexec.cache.eviction import remove

        remove(self._directory, self._ledger, [path])

    def make_room_on_disk(self, size_bytes: int) -> bool:
        """Remove what was used least, as the disk does not take an object.

        Returns:
            Whether anything was removed, by us or by others meanwhile.
        """
        if not self.would_keep(size_bytes) or not self.limit_bytes:
            return False

        with contextlib.suppress(OSError), self._drawing:
            before_bytes = self.used_bytes()
            wanted_bytes = max(before_bytes // _DISK_SHARE, 4 * size_bytes)
            with self._ledger.broom() as is_ours:
                if is_ours:
                    return self._evict(max(0, before_bytes - wanted_bytes)) > 0
            return self._wait(lambda: self.used_bytes() < before_bytes)
        return False

    def pin(self, content_hash: ContentHash) -> Pin:
        """See ``ObjectStore``."""
        return LedgerPin(self._ledger, content_hash)

    def _estimate(self) -> "Usage":
        from cvmfsexec.cache.usage import estimate_usage

        return estimate_usage(self._directory)

    def _take(self, size_bytes: int) -> bool:
        with self._mutex:
            if self._room_bytes < size_bytes:
                return False
            self._room_bytes -= size_bytes
            return True

    def _draw(self, size_bytes: int) -> bool:
        with self._ledger.locked() as book:
            if self._grant(book, size_bytes):
                return True
            is_hopeless = _is_hopeless(book)
        if is_hopeless or not self.would_keep(size_bytes):
            return False
        return self._make_room(size_bytes)

    def _grant(self, book: Book, size_bytes: int) -> bool:
        """Let a grant be charged to the account, and take what is needed of it."""
        with self._mutex:
            missing_bytes = size_bytes - self._room_bytes
            if missing_bytes > book.free_bytes:
                book.settle_dead()
            self._binding_bytes = book.limit_bytes
            free_bytes = book.free_bytes
            if missing_bytes > free_bytes:
                return False
            share_bytes = min(GRANT_BYTES_MAX, free_bytes // _GRANT_SHARE)
            granted_bytes = max(missing_bytes, share_bytes)
            self._ledger.charge(book, granted_bytes)
            self._room_bytes += granted_bytes - size_bytes
            return True

    def _make_room(self, size_bytes: int) -> bool:
        for _ in range(_SWEEPS_MAX):
            with self._ledger.broom() as is_ours:
                if not is_ours:
                    return self._wait(partial(self._try_draw, size_bytes))
                if self._try_draw(size_bytes):
                    return True  # another cleaning has just ended
                freed_bytes = self._evict(self.binding_limit_bytes() // 2)
                if self._try_draw(size_bytes):
                    return True
                if not freed_bytes:
                    self._despair()
                    return False
        self._rest()  # others are faster, or have large objects under way
        return False

    def _try_draw(self, size_bytes: int) -> bool:
        with self._ledger.locked() as book:
            return self._grant(book, size_bytes)

    def _despair(self) -> None:
        """Let nobody try to make room for a while, as what is left is in use."""
        with self._ledger.locked() as book:
            until_s = int(time.time() + REST_S)
            book.write_summary(book.summary._replace(hopeless_until_s=until_s))
        self._rest()
        if not self._has_warned:
            self._has_warned = True
            log.warning(
                "cache directory %s: all that the limit allows is in use; "
                "what does not fit is read without being kept",
                self._path,
            )

    def _evict(self, target_bytes: int) -> int:
        from cvmfsexec.cache.eviction import evict

        self._tidy()
        return evict(self._directory, self._ledger, target_bytes)

    def _wait(self, is_done: Callable[[], bool]) -> bool:
        """Wait for another who makes room, but not for long."""
        deadline_s = time.monotonic() + WAIT_S
        pause_s = _PAUSE_MIN_S
        while time.monotonic() < deadline_s:
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _PAUSE_MAX_S)
            if is_done():
                return True
        self._rest()
        return False

    def _rest(self) -> None:
        self._rests_until_s = time.monotonic() + REST_S

    def _count_and_clean(self) -> None:
        from cvmfsexec.cache.eviction import evict, recount

        if not self._is_too_much and self._closing.wait(_COUNT_AFTER_S):
            return
        with contextlib.suppress(OSError), self._ledger.broom() as is_ours:
            if not is_ours:
                return
            if not self._is_too_much:
                recount(self._directory, self._ledger, self._pace)
            with self._ledger.locked() as book:
                limit_bytes = book.limit_bytes
                is_too_much = _is_too_much(book)
            if is_too_much and not self._closing.is_set():
                evict(self._directory, self._ledger, limit_bytes // 2)

    def _pace(self) -> bool:
        return not self._closing.wait(_COUNT_PAUSE_S)


def _is_old(counted_at_s: int) -> bool:
    """Whether a count says nothing any more.

    After a power failure the ledger may be older than the objects.
    """
    now_s = time.time()
    booted_at_s = now_s - time.clock_gettime(time.CLOCK_BOOTTIME)
    return not max(now_s - _COUNT_VALID_S, booted_at_s) < counted_at_s <= now_s


def _is_too_much(book: Book) -> bool:
    return 0 < book.limit_bytes < book.used_bytes


def _is_beyond(limit_bytes: int, size_bytes: int) -> bool:
    return 0 < limit_bytes - limit_bytes // 2 < size_bytes


def _is_hopeless(book: Book) -> bool:
    now_s = time.time()
    return now_s < book.summary.hopeless_until_s < now_s + 2 * REST_S
