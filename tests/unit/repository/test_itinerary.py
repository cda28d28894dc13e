"""Which nested catalogs are fetched ahead of which walk."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.repository.itinerary import (
    AHEAD_BYTES_MAX,
    AHEAD_FIRST,
    AHEAD_MAX,
    IN_VAIN_MAX,
    Credit,
    Itinerary,
)

COUNT = 40


def plan(sizes: Sequence[int] | None = None) -> Itinerary:
    return Itinerary([1000] * COUNT if sizes is None else sizes, Credit())


@pytest.mark.parametrize(
    ("entered", "fetched"),
    [
        ([0], [[1, 2]]),
        ([0, 1], [[1, 2], [3, 4, 5]]),
        ([0, 1, 2], [[1, 2], [3, 4, 5], [6, 7, 8, 9, 10]]),
        ([0, 2], [[1, 2], [3, 4, 5, 6]]),
        ([7], [[]]),
        ([7, 8], [[], [9, 10]]),
        ([7, 9, 8], [[], [], []]),
        ([0, 20, 10, 30], [[1, 2], [], [], []]),
        ([0, 20, 21], [[1, 2], [], [22, 23]]),
        ([0, 1, 1, 0], [[1, 2], [3, 4, 5], [], []]),
        ([38, 39], [[], []]),
    ],
)
def test_fetched_is_what_a_walk_takes_next(
    entered: list[int], fetched: list[list[int]]
) -> None:
    itinerary = plan()
    assert [itinerary.enter(stop) for stop in entered] == fetched


def test_a_walk_waits_for_the_first_catalog_only() -> None:
    itinerary = plan()
    ahead: set[int] = set()
    waited = 0
    for stop in range(COUNT):
        waited += stop not in ahead
        ahead.update(itinerary.enter(stop))
    assert waited == 1


def test_a_job_that_opens_three_does_not_fetch_forty() -> None:
    itinerary = plan()
    fetched = [stop for entered in (0, 17, 33) for stop in itinerary.enter(entered)]
    assert len(fetched) <= AHEAD_FIRST


def test_who_was_wrong_too_often_fetches_no_more() -> None:
    credit = Credit()
    fetched = 0
    for _ in range(100):
        itinerary = Itinerary([0] * COUNT, credit)
        fetched += len(itinerary.enter(0))
        itinerary.enter(20)
    assert fetched <= IN_VAIN_MAX + AHEAD_FIRST


def test_catalogs_of_a_catalog_that_is_left_are_fetched_in_vain() -> None:
    credit = Credit()
    itinerary = Itinerary([0] * COUNT, credit)
    assert itinerary.begin() == [0, 1]
    itinerary.leave()
    assert credit.wasted == AHEAD_FIRST
    assert not itinerary.is_walked


def test_the_first_catalogs_are_there_when_a_walk_begins() -> None:
    itinerary = plan()
    assert itinerary.begin() == [0, 1]
    assert itinerary.enter(0) == [2, 3, 4]


def test_large_catalogs_are_fetched_few_at_a_time() -> None:
    itinerary = plan([AHEAD_BYTES_MAX // 2 + 1] * COUNT)
    assert itinerary.enter(0) == [1]
    assert itinerary.enter(1) == [2]
    assert plan([AHEAD_BYTES_MAX + 1] * COUNT).enter(0) == []


@given(
    st.lists(st.integers(0, AHEAD_BYTES_MAX), min_size=1, max_size=30),
    st.lists(st.integers(0, 40), max_size=60),
)
def test_no_journey_fetches_twice_too_much_or_without_end(
    sizes: list[int], journey: list[int]
) -> None:
    credit = Credit()
    itinerary = Itinerary(sizes, credit)
    fetched: set[int] = set()
    entered: set[int] = set()
    for stop in (step % len(sizes) for step in journey):
        wanted = itinerary.enter(stop)
        assert not wanted or stop not in entered
        entered.add(stop)
        assert len(wanted) == len(set(wanted))
        assert not entered & set(wanted)
        # What was passed by may come again: it is cached by then.
        fetched.update(wanted)
        assert all(0 <= one < len(sizes) for one in wanted)
        assert len(itinerary._ahead) <= AHEAD_MAX
        assert sum(sizes[one] for one in itinerary._ahead) <= AHEAD_BYTES_MAX
    assert credit.used <= len(entered)
    assert len(fetched - entered) <= IN_VAIN_MAX + credit.used + 2 * AHEAD_MAX
