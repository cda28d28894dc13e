"""Numbers of entries from one revision to the next."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.format.digest import ContentHash
from cvmfsexec.repository.slot import Slot
from cvmfsexec.vfs import inode_numbers
from cvmfsexec.vfs.inode_numbers import ROW_BITS, Inheritance, InodeNumbers

rows = st.integers(1, 40)


def slot(number: int) -> Slot:
    content_hash = ContentHash.parse(f"{number:040x}")
    return Slot(number, b"", b"", content_hash, 0, 0, is_bind=False)


def inherited(
    numbers: InodeNumbers, before: int, after: int, same: Mapping[int, int]
) -> InodeNumbers:
    """Return the numbers after one catalog has taken the place of another."""
    entries = [Inheritance(numbers.of(before, a), after, b) for a, b in same.items()]
    return numbers.inherit(slot(after), [slot(after)], entries)


def test_an_entry_has_the_number_of_its_row() -> None:
    numbers = InodeNumbers(slot(1))
    assert numbers.of(3, 7) == 3 << ROW_BITS | 7
    assert numbers.place(3 << ROW_BITS | 7) == (3, 7)
    assert numbers.of_all(2, [5, 1]) == [2 << ROW_BITS | 5, 2 << ROW_BITS | 1]


def test_what_is_the_same_keeps_its_number() -> None:
    first = InodeNumbers(slot(1))
    second = inherited(first, 1, 2, {1: 1, 2: 3, 3: 4})
    assert second.of(2, 3) == first.of(1, 2)
    assert second.of(2, 2) == 2 << ROW_BITS | 2
    assert second.of_all(2, [1, 2, 3]) == [second.of(2, row) for row in (1, 2, 3)]
    assert second.place(first.of(1, 2)) == (2, 3)
    assert second.place(first.of(1, 9)) == (1, 9)


@given(st.lists(st.dictionaries(rows, rows), max_size=8))
def test_numbers_lead_to_where_an_entry_was_last(
    history: list[dict[int, int]],
) -> None:
    numbers = InodeNumbers(slot(1))
    places: dict[int, tuple[int, int]] = {}
    shown: dict[tuple[int, int], int] = {}
    for number, changes in enumerate(history, 2):
        same = {b: a for a, b in changes.items()}  # each row of both once
        same = {a: b for b, a in same.items()}
        inodes = {b: numbers.of(number - 1, a) for a, b in same.items()}
        numbers = inherited(numbers, number - 1, number, same)
        shown = {(number, b): inode for b, inode in inodes.items()}
        places.update({inode: place for place, inode in shown.items()})
        for row in range(1, 41):
            inode = number << ROW_BITS | row
            assert numbers.of(number, row) == shown.get((number, row), inode)
        assert {inode: numbers.place(inode) for inode in places} == places
        assert len({numbers.of(number, row) for row in range(1, 41)}) == 40


def test_catalogs_that_stay_keep_what_they_inherited() -> None:
    numbers = inherited(InodeNumbers(slot(1)), 1, 2, {1: 5})
    numbers = numbers.inherit(
        slot(4), [slot(4), slot(2)], [Inheritance(3 << ROW_BITS | 1, 4, 1)]
    )
    assert numbers.of(2, 5) == 1 << ROW_BITS | 1
    assert numbers.place(1 << ROW_BITS | 1) == (2, 5)
    assert numbers.of(4, 1) == 3 << ROW_BITS | 1


def test_with_too_many_runs_what_is_gone_is_at_its_first_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    numbers = inherited(InodeNumbers(slot(1)), 1, 2, {1: 11, 5: 15})
    monkeypatch.setattr(inode_numbers, "RUNS_MAX", 2)
    numbers = inherited(numbers, 2, 3, {11: 21, 12: 25})
    assert numbers.place(1 << ROW_BITS | 1) == (3, 21)
    assert numbers.place(1 << ROW_BITS | 5) == (1, 5), "not (2, 15)"
    assert numbers.place(2 << ROW_BITS | 12) == (3, 25)


def test_rows_that_move_together_take_no_room() -> None:
    same = {row: row + 1 for row in range(5, 50_000)}
    numbers = inherited(InodeNumbers(slot(1)), 1, 2, {1: 1, **same})
    assert sum(map(len, numbers._inherited.values())) == 2
    assert sum(map(len, numbers._places.values())) == 2
