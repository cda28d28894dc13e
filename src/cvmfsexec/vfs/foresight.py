"""What will be read next, judged by what was read: decisions only, no input or output.

Objects lie in *rows* (small files in the rows of a directory, chunks in their order in
a file), rows in a *series* (a directory, a file). Only what is read and missing in the
cache starts anything, so that a full cache costs nothing:

* Two rows missed one after the other start a walk *in order* from there. A walk through
  files goes on into the directories below and beside, as ``tar`` and ``cp -r`` do.
* Several rows of a series missed in any order start a walk through its *neighbourhood*,
  from its beginning to its end: a program imports the modules of a package.

**A window** bounds what a walk has asked for and nobody has read. It doubles when half
of it was read. Little of it lies beyond the series that is being read, until the reader
has gone on to another one. What the reader has passed over was a waste; a walk with
much more waste than use ends, and its series needs a multiple of the misses to start
another one. A walk in order that did well lets the next series begin at its first miss.

Nothing grows without bound: neither walks, nor windows, nor what is remembered about
series. Not thread-safe: ``lookahead`` holds a lock around each call.
"""

from collections import OrderedDict
from collections.abc import Hashable
from enum import Enum
from typing import NamedTuple

WALKS_MAX = 8
SERIES_MAX = 64
BEYOND_MIN = 16
"""Objects beyond the series that is being read; more as soon as a reader goes there."""

NEIGHBOURS_MIN = 32
"""Objects of a neighbourhood at first: a package of a program has about so many."""

TRUSTED_WINDOW = 32
"""A walk in order that got so far lets the next series begin at once."""

_MISSES_NEEDED = 3
_RUN_NEEDED = 1
_DOUBT = 4  # what does not help needs so many times the misses to begin again
_NEEDED_MAX = 1024
_JUDGED_FROM = 16
_JUDGED_UP_TO = 128
_WASTE_FACTOR = 3
_LUCK = 8  # one of so many reads is foreseen by chance, in a directory of hundreds
_REACH = 4  # who overtakes a walk by no more than so many steps is still its reader


class Place(NamedTuple):
    """Where an object lies.

    Attributes:
        series: What it is a part of.
        row: Its place there.
        next_row: The last place that one who reads in order can be expected at next.
    """

    series: Hashable
    row: int
    next_row: int


class Manner(NamedTuple):
    """How far to look ahead.

    Attributes:
        window_min: Objects to ask for at first.
        window_max: Objects asked for and not read, at most.
        bytes_max: Bytes of them; one object more may be asked for.
        lag: Whoever reads an object has passed over those that lie so far behind it.
        has_neighbourhood: Whether a series may be read in any order.
    """

    window_min: int
    window_max: int
    bytes_max: int
    lag: int
    has_neighbourhood: bool


FILES = Manner(8, 256, 16 << 20, 64, has_neighbourhood=True)
CHUNKS = Manner(2, 8, 32 << 20, 2, has_neighbourhood=False)


class Order(Enum):
    """How a walk goes."""

    IN_ORDER = "from a row onwards"
    NEIGHBOURHOOD = "through one series"


class Walk:
    """One reader that we run ahead of.

    Attributes:
        number: Identity.
        start: Where it was noticed.
        order: How it goes.
        manner: How far.
        window: Objects that may be asked for and not read.
    """

    __slots__ = (
        "asked",
        "asked_bytes",
        "asked_count",
        "beyond",
        "beyond_max",
        "growth",
        "is_exhausted",
        "last",
        "manner",
        "missed",
        "number",
        "order",
        "reader_series",
        "start",
        "used",
        "wasted",
        "window",
    )

    def __init__(self, number: int, start: Place, order: Order, manner: Manner) -> None:
        self.number = number
        self.start = start
        self.order = order
        self.manner = manner
        self.window = manner.window_min
        if order is Order.NEIGHBOURHOOD:
            self.window = NEIGHBOURS_MIN
        self.asked: OrderedDict[tuple[Hashable, int], tuple[int, int]] = OrderedDict()
        self.asked_bytes = 0
        self.asked_count = 0
        self.last = (start.series, start.row)
        self.reader_series = start.series
        self.beyond = 0
        self.beyond_max = BEYOND_MIN
        self.growth = 0
        self.used = 0
        self.wasted = 0
        self.missed = 0
        self.is_exhausted = False

    @property
    def may_ask(self) -> bool:
        """Whether there is room in the window."""
        return (
            not self.is_exhausted
            and len(self.asked) < self.window
            and self.asked_bytes < self.manner.bytes_max
            and self.beyond < self.beyond_max
        )

    def follow(self, series: Hashable) -> None:
        """Take note that the reader has come to another series."""
        self.reader_series = series
        self.beyond = sum(other != series for other, _ in self.asked)
        self.beyond_max = min(4 * self.beyond_max, self.manner.window_max)


class _Seen:
    """What is remembered about a series that was missed from."""

    __slots__ = ("expected", "misses", "misses_needed", "run", "run_needed")

    def __init__(self) -> None:
        self.expected = (0, 0)
        self.misses = 0
        self.run = 0
        self.misses_needed = _MISSES_NEEDED
        self.run_needed = _RUN_NEEDED

    def note(self, place: Place) -> None:
        first, last = self.expected
        self.run = self.run + 1 if first < place.row <= last else 0
        self.misses += 1
        self.expected = (place.row, place.next_row)

    def doubt(self, order: Order) -> None:
        if order is Order.IN_ORDER:
            self.run = 0
            self.run_needed = min(_DOUBT * self.run_needed, _NEEDED_MAX)
        else:
            self.misses = 0
            self.misses_needed = min(_DOUBT * self.misses_needed, _NEEDED_MAX)


class Foresight:
    """Walks, and what they were good for.

    Attributes:
        used_count: Objects that were asked for and then read.
        wasted_count: Objects that were asked for in vain, as far as that is known.
    """

    def __init__(self) -> None:
        self._walks: OrderedDict[int, Walk] = OrderedDict()
        self._walk_of: dict[tuple[Hashable, int], Walk] = {}
        self._seen: OrderedDict[Hashable, _Seen] = OrderedDict()
        self._is_trusted = False
        self._next_number = 0
        self.used_count = 0
        self.wasted_count = 0

    @property
    def is_active(self) -> bool:
        """Whether it matters what is read; if not, only misses do."""
        return bool(self._walk_of)

    @property
    def has_walks(self) -> bool:
        """Whether there may be something to ask for."""
        return bool(self._walks)

    def walks(self) -> tuple[Walk, ...]:
        """Return the walks there are, the one last used at the end."""
        return tuple(self._walks.values())

    def read(self, place: Place) -> bool:
        """Take note that an object is read for the first time.

        Returns:
            Whether it was asked for.
        """
        walk = self._walk_of.get(place[:2])
        if walk is None:
            return False
        sequence = walk.asked[place[:2]][0]
        self._retire(walk, place[:2])
        if place.series != walk.reader_series:
            walk.follow(place.series)
        walk.used += 1
        self.used_count += 1
        self._walks.move_to_end(walk.number)
        self._grow(walk)
        if walk.order is Order.IN_ORDER:
            self._pass_over(walk, sequence - walk.manner.lag)
        return True

    def missed(self, place: Place, manner: Manner) -> Walk | None:
        """Take note that an object is read and is not there (or not yet).

        Returns:
            A new walk, if that starts one.
        """
        if self.read(place):
            return None
        walk = self._walk_caught_up(place)
        if walk is not None:
            self._walks.move_to_end(walk.number)
            if walk.used >= walk.wasted:
                self._grow(walk)
            return None
        self._leave_behind(place)
        around = self._walk_around(place)
        seen = self._seen.pop(place.series, None)
        is_first = seen is None
        seen = seen or _Seen()
        self._seen[place.series] = seen
        if len(self._seen) > SERIES_MAX:
            self._seen.popitem(last=False)
        seen.note(place)
        order = self._order_of(seen, manner, is_first=is_first)
        if around is not None:
            self._miss(around)
        if order is None or (around is not None and order is Order.NEIGHBOURHOOD):
            return None
        return self._start(place, order, manner)

    def next_walk(self) -> Walk | None:
        """Return a walk that may ask for one more object, the last used one first."""
        for walk in reversed(self._walks.values()):
            if walk.may_ask:
                return walk
        return None

    def ask(self, walk: Walk, series: Hashable, row: int, size_bytes: int) -> bool:
        """Take note that an object is going to be asked for.

        Returns:
            Whether it is to be; not if it was asked for before, or the walk has ended.
        """
        key = (series, row)
        if key in self._walk_of or walk.number not in self._walks:
            return False
        walk.asked[key] = (walk.asked_count, size_bytes)
        walk.asked_count += 1
        walk.asked_bytes += size_bytes
        walk.beyond += series != walk.reader_series
        walk.last = key
        self._walk_of[key] = walk
        return True

    def exhaust(self, walk: Walk) -> None:
        """Take note that there is nothing more on the way of a walk."""
        walk.is_exhausted = True
        if not walk.asked:
            self._end(walk)

    def _order_of(self, seen: _Seen, manner: Manner, *, is_first: bool) -> Order | None:
        if seen.run >= seen.run_needed:
            return Order.IN_ORDER
        if not manner.has_neighbourhood:
            return None
        if is_first and self._is_trusted:
            return Order.IN_ORDER
        if seen.misses >= seen.misses_needed:
            return Order.NEIGHBOURHOOD
        return None

    def _start(self, place: Place, order: Order, manner: Manner) -> Walk:
        walk = Walk(self._next_number, place, order, manner)
        self._next_number += 1
        self._walks[walk.number] = walk
        if len(self._walks) > WALKS_MAX:
            self._end(next(iter(self._walks.values())))
        return walk

    def _walk_caught_up(self, place: Place) -> Walk | None:
        """Return a walk that was here, or would have been with a slower reader."""
        for walk in self._walks.values():
            if walk.order is Order.NEIGHBOURHOOD or walk.is_exhausted:
                continue
            if walk.last[0] == place.series:
                reach = _REACH * (place.next_row - place.row)
                first = walk.start.row if walk.start.series == place.series else 0
                if first <= place.row <= walk.last[1] + reach:
                    return walk
        return None

    def _leave_behind(self, place: Place) -> None:
        """End walks whose reader has gone on further ahead in the same series."""
        for walk in self.walks():
            is_here = walk.order is Order.IN_ORDER and walk.last[0] == place.series
            if is_here and walk.last[1] < place.row:
                if walk.used < len(walk.asked):
                    self._distrust(walk)
                else:
                    self._end(walk)

    def _walk_around(self, place: Place) -> Walk | None:
        """Return the walk through a place's neighbourhood, which left it out."""
        for walk in self._walks.values():
            if walk.order is Order.NEIGHBOURHOOD and walk.start.series == place.series:
                return walk
        return None

    def _miss(self, walk: Walk) -> None:
        walk.missed += 1
        if walk.missed >= NEIGHBOURS_MIN and walk.missed > _LUCK * walk.used:
            self._distrust(walk)
        else:
            self._grow(walk)

    def _grow(self, walk: Walk) -> None:
        walk.growth += 1
        if 2 * walk.growth >= walk.window:
            walk.growth = 0
            walk.window = min(2 * walk.window, walk.manner.window_max)
            if walk.order is Order.IN_ORDER and walk.window >= TRUSTED_WINDOW:
                self._is_trusted = True
        if walk.is_exhausted and not walk.asked:
            self._end(walk)

    def _pass_over(self, walk: Walk, sequence: int) -> None:
        while walk.asked:
            key, (asked_at, _) = next(iter(walk.asked.items()))
            if asked_at >= sequence:
                break
            self._retire(walk, key)
            walk.wasted += 1
            self.wasted_count += 1
        judged = walk.used + walk.wasted
        if judged >= _JUDGED_FROM and walk.wasted > _WASTE_FACTOR * walk.used:
            self._distrust(walk)
        elif judged > _JUDGED_UP_TO:
            walk.used //= 2
            walk.wasted //= 2

    def _distrust(self, walk: Walk) -> None:
        self._is_trusted = False
        self._end(walk)
        seen = self._seen.get(walk.last[0]) or self._seen.get(walk.start.series)
        if seen is not None:
            seen.doubt(walk.order)

    def _end(self, walk: Walk) -> None:
        if self._walks.pop(walk.number, None) is None:
            return
        self.wasted_count += len(walk.asked)
        if len(walk.asked) > walk.used + walk.window // 2:
            self._is_trusted = False
        for key in walk.asked:
            del self._walk_of[key]
        walk.asked.clear()
        walk.asked_bytes = 0
        walk.is_exhausted = True

    def _retire(self, walk: Walk, key: tuple[Hashable, int]) -> None:
        walk.asked_bytes -= walk.asked.pop(key)[1]
        walk.beyond -= key[0] != walk.reader_series
        del self._walk_of[key]
