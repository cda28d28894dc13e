"""Making room: what was used least recently goes first, of short-lived content before.

The one who holds the broom looks at every object once and writes the true sum into the
ledger; that may be all that is needed, as others delete objects, too. Else it finds the
time of last use up to which everything has to go, and looks at the directories again,
one after the other, to remove that. So it needs to remember two numbers of an object
and no name, sees what was used or pinned meanwhile, and gives way to others now and
then.

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
    use_for_order_ns,
)
from cvmfsexec.cache.ledger import Ledger
from cvmfsexec.cache.ledger_book import Book, Tally

_BATCH = 64
"""Objects removed with the ledger locked: a millisecond, in which nobody pins one."""

_BATCH_PER_ACCOUNT = 4  # to read the pins of one takes as long as to remove so many
_PAUSE_S = 0.001  # others look for the lock twice in that time

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
    before = _tally(ledger)
    total_bytes = 0
    for prefix in PREFIXES:
        if not pace():
            return
        files = object_files(directory, prefix)
        total_bytes += sum(status.st_size for _, status in files)
    with ledger.locked(is_lenient=True) as book:
        book.correct(before, total_bytes)


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
    before = _tally(ledger)
    now_ns = time.time_ns()
    survey = _Survey(directory, _pinned_paths(ledger), now_ns)
    with ledger.locked(is_lenient=True) as book:
        book.correct(before, survey.total_bytes)
        used_bytes = book.used_bytes
    if used_bytes <= target_bytes or not survey.keys:
        return 0
    latest = survey.latest_to_remove(used_bytes - target_bytes)

    def goes(path: str, status: os.stat_result) -> bool:
        is_old = _key(status, now_ns) <= latest
        return is_old and not is_pinned_for_good(directory, path, status)

    freed_bytes = _sweep(directory, ledger, goes, target_bytes)
    with ledger.locked(is_lenient=True) as book:  # now a full disk takes it, too
        cleaned_at_s = (*book.summary.cleaned_at_s, int(time.time()))
        book.write_summary(book.summary._replace(cleaned_at_s=cleaned_at_s))
    return freed_bytes


def _sweep(
    directory: int,
    ledger: Ledger,
    goes: Callable[[str, os.stat_result], bool],
    target_bytes: int,
) -> int:
    """Remove what is to go until few enough bytes are left; return how many went."""
    with ledger.locked(is_lenient=True) as book:
        step = max(_BATCH, _BATCH_PER_ACCOUNT * len(book.accounts))
    freed_bytes = 0
    for prefix in PREFIXES:
        files = [
            (f"{prefix}/{name}", status)
            for name, status in object_files(directory, prefix)
        ]
        paths = [path for path, status in files if goes(path, status)]
        for start in range(0, len(paths), step):
            batch = paths[start : start + step]
            with ledger.locked(is_lenient=True) as book:
                freed_bytes += _remove(directory, book, batch, goes, target_bytes)
                used_bytes = book.used_bytes
            if used_bytes <= target_bytes:
                return freed_bytes
            if len(batch) >= _BATCH:
                time.sleep(_PAUSE_S)
        if len(paths) == len(files):
            with contextlib.suppress(OSError):  # not empty, or never there
                os.rmdir(prefix, dir_fd=directory)  # it takes an inode, too
    return freed_bytes


def remove(directory: int, ledger: Ledger | None, paths: list[str]) -> tuple[int, int]:
    """Remove objects that are not wanted, for whatever reason.

    Args:
        directory: Descriptor of the cache directory.
        ledger: Its ledger, if it has one.
        paths: Those of the objects; what is not there is passed over.

    Returns:
        How many were there, and their sizes.

    Raises:
        OSError: One cannot be removed.
    """
    count = freed_bytes = 0
    for start in range(0, len(paths), _BATCH):
        with contextlib.ExitStack() as stack:
            book: Book | None = None
            if ledger is not None:
                with contextlib.suppress(OSError):  # or too much is counted
                    book = stack.enter_context(ledger.locked(is_lenient=True))
            for path in paths[start : start + _BATCH]:
                with contextlib.suppress(FileNotFoundError):
                    status = os.stat(path, dir_fd=directory, follow_symlinks=False)
                    os.unlink(path, dir_fd=directory)
                    count += 1
                    freed_bytes += status.st_size
                    if book is not None:
                        book.count_removed(status.st_size)
    return count, freed_bytes


class _Survey:
    """What all objects that may be removed tell of their last use."""

    def __init__(self, directory: int, pinned: frozenset[str], now_ns: int) -> None:
        self.total_bytes = 0
        self.keys = array("q")
        self._sizes = array("q")
        for prefix in PREFIXES:
            for name, status in object_files(directory, prefix):
                self.total_bytes += status.st_size
                path = f"{prefix}/{name}"
                if path in pinned or is_pinned_for_good(directory, path, status):
                    continue
                self.keys.append(_key(status, now_ns))
                self._sizes.append(status.st_size)

    def latest_to_remove(self, wanted_bytes: int) -> int:
        """Return up to which key all have to go to free so many bytes."""
        order = sorted(range(len(self.keys)), key=self.keys.__getitem__)
        sums = accumulate(self._sizes[index] for index in order)
        for index, freed_bytes in zip(order, sums, strict=True):
            if freed_bytes >= wanted_bytes:
                return self.keys[index]
        return self.keys[order[-1]]


def _key(status: os.stat_result, now_ns: int) -> int:
    used_ns = min(use_for_order_ns(status, now_ns), _VOLATILE_FIRST_NS - 1)
    return used_ns - _VOLATILE_FIRST_NS * is_volatile(status)


def _tally(ledger: Ledger) -> Tally:
    with ledger.locked(is_lenient=True) as book:
        book.settle_dead()
        return book.tally()


def _pinned_paths(ledger: Ledger) -> frozenset[str]:
    with ledger.locked(is_lenient=True) as book:
        return frozenset(name.cache_path() for name in book.in_use())


def _remove(
    directory: int,
    book: Book,
    batch: list[str],
    goes: Callable[[str, os.stat_result], bool],
    target_bytes: int,
) -> int:
    """Remove objects until few enough bytes are left; return how many were removed."""
    pinned = {name.cache_path() for name in book.in_use()}
    excess_bytes = book.used_bytes - target_bytes
    freed_bytes = 0
    for path in batch:
        if freed_bytes >= excess_bytes:
            break
        if path not in pinned:
            with contextlib.suppress(OSError):  # removed by somebody else
                status = os.stat(path, dir_fd=directory, follow_symlinks=False)
                if goes(path, status):
                    os.unlink(path, dir_fd=directory)
                    freed_bytes += status.st_size
    book.count_removed(freed_bytes)
    return freed_bytes
