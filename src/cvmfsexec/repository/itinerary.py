"""In which order a walk enters nested catalogs, and which to fetch ahead of it. Pure.

A walk (``find``, ``tar``) enters the catalogs that are nested in another in the order
of their directories, one after the other; a job that opens a few paths enters some, in
any order. So nothing is fetched ahead but after the first of them, or after two that
follow each other. Then two, four, eight are under way, as long as the walk takes what
was fetched. When it goes elsewhere, what was fetched in vain is counted, and who has
fetched too much in vain does so no more: that is the mount's ``Credit``.

Used by one thread at a time.
"""

from collections.abc import Sequence

AHEAD_FIRST = 2
AHEAD_MAX = 8
AHEAD_BYTES_MAX = 96 << 20
"""Of catalogs under way, uncompressed; a large one, of 500,000 entries, has 150 MB."""

IN_VAIN_MAX = 8
"""Catalogs that may be fetched in vain, beside as many as were fetched in time."""


class Credit:
    """Whether it has paid to fetch ahead.

    Attributes:
        used: Catalogs that were entered after they had been fetched ahead.
        wasted: Catalogs that the walk passed by.
    """

    def __init__(self) -> None:
        self.used = 0
        self.wasted = 0

    @property
    def is_good(self) -> bool:
        """Whether to go on."""
        return self.wasted <= IN_VAIN_MAX + self.used


class Itinerary:
    """The catalogs nested in one other; *stops* are their numbers in walking order."""

    def __init__(self, sizes_bytes: Sequence[int], credit: Credit) -> None:
        """Expect a walk.

        Args:
            sizes_bytes: Of each stop; 0 for unknown.
            credit: Shared by all of a mount.
        """
        self._sizes_bytes = sizes_bytes
        self._credit = credit
        self._entered: set[int] = set()
        self._ahead: set[int] = set()
        self._last = -1
        self._window = 0

    @property
    def is_walked(self) -> bool:
        """Whether there is a walk that takes one stop after the other."""
        return self._window > 0

    def begin(self) -> list[int]:
        """Return what to fetch when a walk enters the catalog they are nested in."""
        self._window = self._window or AHEAD_FIRST
        return self._next()

    def enter(self, stop: int) -> list[int]:
        """Return what to fetch when a stop is entered."""
        if stop in self._entered:
            return []
        is_expected = stop == self._following(self._last)
        self._entered.add(stop)
        if stop in self._ahead:
            self._ahead.discard(stop)
            self._credit.used += 1
            self._window = min(2 * self._window, AHEAD_MAX)
            self._pass_by({passed for passed in self._ahead if passed < stop})
        elif is_expected:
            self._window = max(self._window, AHEAD_FIRST)
        else:
            self.leave()
        self._last = stop
        return self._next()

    def leave(self) -> None:
        """Take notice that the walk went elsewhere."""
        self._pass_by(set(self._ahead))
        self._window = 0

    def _pass_by(self, passed: set[int]) -> None:
        self._ahead -= passed
        self._credit.wasted += len(passed)

    def _following(self, stop: int) -> int:
        """Return the next stop that was not entered; the number of stops if none."""
        stop += 1
        while stop in self._entered:
            stop += 1
        return stop

    def _next(self) -> list[int]:
        """Return the stops that are to be under way and are not yet."""
        wanted: list[int] = []
        if not self._credit.is_good:
            return wanted
        room_bytes = AHEAD_BYTES_MAX - sum(
            map(self._sizes_bytes.__getitem__, self._ahead)
        )
        stop = self._last
        for _ in range(self._window):
            stop = self._following(stop)
            if stop >= len(self._sizes_bytes):
                break
            if stop in self._ahead:
                continue
            room_bytes -= self._sizes_bytes[stop]
            if room_bytes < 0:
                break
            wanted.append(stop)
        self._ahead.update(wanted)
        return wanted
