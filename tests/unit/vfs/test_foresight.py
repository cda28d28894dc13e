"""Looking ahead: what is foreseen, what it costs, and that it stays within bounds."""

import random
from collections.abc import Hashable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.vfs.foresight import (
    BEYOND_MIN,
    CHUNKS,
    FILES,
    SERIES_MAX,
    WALKS_MAX,
    Foresight,
    Manner,
    Order,
    Place,
    Walk,
)

SIZE = 4096
Key = tuple[Hashable, int]


class Library:
    """Series of rows, a cache, and somebody who fetches all that is foreseen.

    Attributes:
        asked: What was fetched before it was read.
        missed: What a reader had to wait for.
    """

    def __init__(
        self,
        series: dict[str, int],
        manner: Manner = FILES,
        *,
        near: int = 16,
        size_bytes: int = SIZE,
    ) -> None:
        self.foresight = Foresight()
        self.cache: set[Key] = set()
        self.asked: list[Key] = []
        self.missed: list[Key] = []
        self._series = series
        self._manner = manner
        self._near = near
        self._size_bytes = size_bytes
        self._ways: dict[int, Iterator[Key]] = {}

    def read(self, series: str, row: int) -> None:
        key = (series, row)
        place = Place(series, row, row + self._near)
        if not self.foresight.read(place) and key not in self.cache:
            self.missed.append(key)
            walk = self.foresight.missed(place, self._manner)
            if walk is not None:
                self._ways[walk.number] = self._way(walk)
        self.cache.add(key)
        self._fetch()

    def read_all(self, *series: str) -> None:
        for one in series:
            for row in range(1, self._series[one] + 1):
                self.read(one, row)

    def _way(self, walk: Walk) -> Iterator[Key]:
        names = list(self._series)
        here = str(walk.start.series)
        first = walk.start.row + 1
        if walk.order is Order.NEIGHBOURHOOD:
            names, first = [here], 1
        for name in names[names.index(here) :]:
            for row in range(first, self._series[name] + 1):
                yield name, row
            first = 1

    def _fetch(self) -> None:
        while (walk := self.foresight.next_walk()) is not None:
            key = next(self._ways[walk.number], None)
            if key is None:
                self.foresight.exhaust(walk)
            elif key not in self.cache and self.foresight.ask(
                walk, *key, self._size_bytes
            ):
                self.cache.add(key)
                self.asked.append(key)


def test_files_that_are_read_in_order_are_foreseen() -> None:
    library = Library({"a": 1000})
    library.read_all("a")
    assert len(library.missed) == 2
    assert len(library.asked) == 998
    assert library.foresight.used_count == 998
    assert library.foresight.wasted_count == 0


def test_directories_one_after_the_other_are_foreseen() -> None:
    library = Library({f"d{number}": 100 for number in range(50)})
    library.read_all(*(f"d{number}" for number in range(50)))
    assert len(library.missed) == 2
    assert library.foresight.wasted_count == 0


def test_a_single_file_of_many_directories_foresees_nothing() -> None:
    library = Library({f"d{number}": 100 for number in range(50)})
    for number in range(50):
        library.read(f"d{number}", 7)
    assert library.asked == []


def test_what_is_in_the_cache_is_not_asked_for() -> None:
    library = Library({"a": 1000})
    library.cache = {("a", row) for row in range(1, 1001)}
    library.read_all("a")
    assert library.asked == []
    assert not library.foresight.is_active


def test_files_of_one_directory_in_any_order_are_foreseen() -> None:
    library = Library({"a": 400, "b": 400})
    rows = list(range(1, 401))
    random.Random(3).shuffle(rows)  # noqa: S311 -- reproducible, not secret
    for row in rows:
        library.read("a", row)
    assert len(library.missed) < 200
    assert all(series == "a" for series, _ in library.asked[BEYOND_MIN * 4 :])


def test_little_is_asked_for_beyond_a_directory_until_the_reader_goes_there() -> None:
    library = Library({"a": 200, "b": 1000})
    library.read_all("a")
    assert sum(series == "b" for series, _ in library.asked) == BEYOND_MIN


@pytest.mark.parametrize("step", [5, 10, 15])
def test_what_does_not_help_is_given_up(step: int) -> None:
    library = Library({"a": 20_000})
    reads = range(1, 20_000, step)
    for row in reads:
        library.read("a", row)
    assert library.foresight.wasted_count < 2 * len(reads)
    assert len(library.asked) < 3 * len(reads)


def test_what_did_not_help_is_tried_again_later() -> None:
    library = Library({"a": 20_000})
    for row in range(1, 1000, 15):
        library.read("a", row)
    missed_before = len(library.missed)
    for row in range(1001, 3001):
        library.read("a", row)
    assert len(library.missed) - missed_before < 400


def test_random_readers_of_a_large_directory_waste_little() -> None:
    library = Library({"a": 100_000})
    where = random.Random(5)  # noqa: S311 -- reproducible, not secret
    reads = 2000
    for _ in range(reads):
        library.read("a", where.randrange(1, 100_001))
    assert len(library.asked) <= reads // 4


def test_a_reader_who_did_well_is_trusted_in_the_next_directory() -> None:
    library = Library({"a": 200})
    library.read_all("a")
    walk = library.foresight.missed(Place("elsewhere", 1, 17), FILES)
    assert walk is not None
    assert walk.order is Order.IN_ORDER


def test_chunks_that_are_read_in_order_are_foreseen() -> None:
    library = Library({"file": 100}, CHUNKS, near=1, size_bytes=4 << 20)
    library.read_all("file")
    assert len(library.missed) == 2
    assert library.foresight.wasted_count == 0


def test_chunks_that_are_read_at_random_are_not() -> None:
    library = Library({"file": 1000}, CHUNKS, near=1, size_bytes=4 << 20)
    where = random.Random(7)  # noqa: S311 -- reproducible, not secret
    for _ in range(100):
        library.read("file", 2 * where.randrange(1, 500))
    assert library.asked == []


def test_the_window_is_bounded_in_bytes() -> None:
    library = Library({"file": 1000}, CHUNKS, near=1, size_bytes=16 << 20)
    for row in range(1, 100):
        library.read("file", row)
        for walk in library.foresight.walks():
            assert walk.asked_bytes <= CHUNKS.bytes_max + (16 << 20)


def test_what_was_asked_for_and_missed_starts_nothing_new() -> None:
    foresight = Foresight()
    foresight.missed(Place("a", 1, 17), FILES)
    walk = foresight.missed(Place("a", 2, 18), FILES)
    assert walk is not None
    assert foresight.ask(walk, "a", 3, SIZE)
    assert foresight.missed(Place("a", 3, 19), FILES) is None
    assert foresight.used_count == 1


def test_a_reader_faster_than_the_walk_starts_no_second_one() -> None:
    foresight = Foresight()
    foresight.missed(Place("a", 1, 17), FILES)
    assert foresight.missed(Place("a", 2, 18), FILES) is not None
    for row in range(3, 40):
        walk = foresight.walks()[0]
        foresight.ask(walk, "a", row - 1, SIZE)
        assert foresight.missed(Place("a", row, row + 16), FILES) is None
    assert len(foresight.walks()) == 1


_READS = st.lists(
    st.tuples(st.sampled_from("abcdefghijklmnop"), st.integers(1, 300)), max_size=300
)


@given(reads=_READS, size_bytes=st.sampled_from([1, 1 << 20]), runs=st.integers(1, 6))
def test_however_files_are_read_all_bounds_hold(
    reads: list[tuple[str, int]], size_bytes: int, runs: int
) -> None:
    library = Library(dict.fromkeys("abcdefghijklmnop", 300), size_bytes=size_bytes)
    foresight = library.foresight
    for series, row in reads:
        for following in range(row, min(row + runs, 301)):
            library.read(series, following)
            walks = foresight.walks()
            assert len(walks) <= WALKS_MAX
            asked = [key for walk in walks for key in walk.asked]
            assert len(asked) == len(set(asked)) == len(foresight._walk_of)
            for walk in walks:
                assert len(walk.asked) <= walk.window <= FILES.window_max
                assert walk.asked_bytes == size_bytes * len(walk.asked)
                assert walk.asked_bytes <= FILES.bytes_max + size_bytes
                assert walk.beyond == sum(
                    one != walk.reader_series for one, _ in walk.asked
                )
    assert len(library.asked) == len(set(library.asked)), "nothing is asked for twice"
    outstanding = sum(len(walk.asked) for walk in foresight.walks())
    assert foresight.used_count + foresight.wasted_count + outstanding == len(
        library.asked
    )
    assert len(foresight._seen) <= SERIES_MAX
