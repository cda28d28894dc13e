"""Making room: what was used least recently goes first, of short-lived content before.

The one who holds the broom looks at every object once and writes the true sum into the
ledger; that may be all that is needed, as others delete objects, too. Else it finds the
time of last use up to which everything has to go, and looks at the directories again,
one after the other, to remove that. So it needs to remember two numbers of an object
and no name, sees what was used meanwhile, and gives way to others after each directory.

Nobody waits for the broom but for a bounded time: see :mod:`cvmfsexec.cache.quota`.
"""

import contextlib
import os
import time
from array import array
from collections.abc import Callable
from itertools import accumulate

from cvmfsexec.cache.contents import (
    PREFIXES,
    is_pinned_for_good,
    is_volatile,
    object_files,
)
from cvmfsexec.cache.ledger import Ledger

_BATCH = 64
"""Objects removed with the ledger locked: a millisecond, in which nobody pins one."""

_LINKING_S = 0.02
"""After that, an object that was counted has become visible, or never will."""

_VOLATILE_FIRST_NS = 1 << 62


def recount(
    directory: int, ledger: Ledger, pace: Callable[[], bool] = lambda: True
) -> None:
    """Write the true sum into the ledger; the caller has the broom.

    Args:
        directory: Descriptor of the cache directory.
        ledger: Its ledger.
        pace: Called for each of the 256 directories; ``False`` to give up.

    Raises:
        OSError: As ``Ledger.locked``.
    """
    visible_bytes = _visible_bytes(ledger)
    total_bytes = 0
    for prefix in PREFIXES:
        if not pace():
            return
        files = object_files(directory, prefix)
        total_bytes += sum(status.st_size for _, status in files)
    _correct(ledger, total_bytes - visible_bytes)


def evict(directory: int, ledger: Ledger, target_bytes: int) -> int:
    """Remove objects, least recently used first; the caller has the broom.

    Args:
        directory: Descriptor of the cache directory.
        ledger: Its ledger.
        target_bytes: How many bytes may stay.

    Returns:
        How many bytes were removed.

    Raises:
        OSError: As ``Ledger.locked``.
    """
    survey = _Survey(directory, _visible_bytes(ledger), _pinned_paths(ledger))
    used_bytes = _correct(ledger, survey.total_bytes - survey.visible_before_bytes)
    if used_bytes <= target_bytes or not survey.keys:
        return 0
    with ledger.locked() as book:
        cleaned_at_s = (*book.summary.cleaned_at_s, int(time.time()))
        book.write_summary(book.summary._replace(cleaned_at_s=cleaned_at_s))
    freed_bytes = 0
    latest = survey.latest_to_remove(used_bytes - target_bytes)
    for prefix in PREFIXES:
        files = object_files(directory, prefix)
        names = [
            (f"{prefix}/{name}", status.st_size)
            for name, status in files
            if _key(status) <= latest and not is_pinned_for_good(status)
        ]
        for start in range(0, len(names), _BATCH):
            batch = names[start : start + _BATCH]
            removed_bytes, used_bytes = _remove(directory, ledger, batch, target_bytes)
            freed_bytes += removed_bytes
            if used_bytes <= target_bytes:
                return freed_bytes
        if len(names) == len(files):
            with contextlib.suppress(OSError):  # not empty, or never there
                os.rmdir(prefix, dir_fd=directory)  # it takes an inode, too
    return freed_bytes


class _Survey:
    """What all objects that may be removed tell of their last use."""

    def __init__(
        self, directory: int, visible_before_bytes: int, pinned: frozenset[str]
    ) -> None:
        self.visible_before_bytes = visible_before_bytes
        self.total_bytes = 0
        self.keys = array("q")
        self._sizes = array("q")
        for prefix in PREFIXES:
            for name, status in object_files(directory, prefix):
                self.total_bytes += status.st_size
                if is_pinned_for_good(status) or f"{prefix}/{name}" in pinned:
                    continue
                self.keys.append(_key(status))
                self._sizes.append(status.st_size)

    def latest_to_remove(self, wanted_bytes: int) -> int:
        """Return up to which key all have to go to free so many bytes."""
        order = sorted(range(len(self.keys)), key=self.keys.__getitem__)
        sums = accumulate(self._sizes[index] for index in order)
        for index, freed_bytes in zip(order, sums, strict=True):
            if freed_bytes >= wanted_bytes:
                return self.keys[index]
        return self.keys[order[-1]]


def _key(status: os.stat_result) -> int:
    last_used_ns = min(max(status.st_mtime_ns, 0), _VOLATILE_FIRST_NS - 1)
    return last_used_ns - _VOLATILE_FIRST_NS * is_volatile(status)


def _visible_bytes(ledger: Ledger) -> int:
    with ledger.locked() as book:
        book.settle_dead()
        before = book.accounts
    if any(account.linking_bytes for account in before.values()):
        time.sleep(_LINKING_S)
    with ledger.locked() as book:
        return book.visible_bytes(before)


def _pinned_paths(ledger: Ledger) -> frozenset[str]:
    with ledger.locked() as book:
        return frozenset(name.cache_path() for name in book.in_use())


def _correct(ledger: Ledger, by_bytes: int) -> int:
    with ledger.locked() as book:
        base_bytes = book.summary.base_bytes + by_bytes
        book.write_summary(
            book.summary._replace(base_bytes=base_bytes, counted_at_s=int(time.time()))
        )
        return book.used_bytes


def _remove(
    directory: int, ledger: Ledger, batch: list[tuple[str, int]], target_bytes: int
) -> tuple[int, int]:
    """Remove objects until few enough bytes are left.

    Returns:
        How many bytes were removed, and how many are left.
    """
    with ledger.locked() as book:
        pinned = {name.cache_path() for name in book.in_use()}
        left_bytes = book.used_bytes
        freed_bytes = 0
        for path, size_bytes in batch:
            if left_bytes - freed_bytes <= target_bytes:
                break
            if path not in pinned:
                with contextlib.suppress(OSError):  # removed by somebody else
                    os.unlink(path, dir_fd=directory)
                    freed_bytes += size_bytes
        book.add_to_base(-freed_bytes)
        return freed_bytes, book.used_bytes
