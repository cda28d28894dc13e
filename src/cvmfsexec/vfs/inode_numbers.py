"""Which number stands for which entry, from one revision to the next.

A number is ``slot << 32 | row``: where its entry was first met. While nothing changes
there is nothing to remember. When a catalog is replaced by a changed one, what is the
same in both keeps its number, so that the kernel keeps what it knows of it: the new
catalog *inherits* numbers. Numbers of what is no longer there lead to where it was last
seen.

Rows that follow each other mostly go on doing so, so what is remembered are runs, and
their number is that of the changes and not that of the entries.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from cvmfsexec.repository.slot import Slot

ROW_BITS = 32
ROW_MASK = (1 << ROW_BITS) - 1

RUNS_MAX = 500_000  # at 24 bytes; more, and what is gone is not remembered


class Inheritance(NamedTuple):
    """An entry that is the same in a new catalog.

    Attributes:
        inode: Its number.
        slot: Of the new catalog.
        row: In that.
    """

    inode: int
    slot: int
    row: int


class _Runs:
    """A map of numbers to numbers that mostly grow together. Immutable."""

    __slots__ = ("_ends", "_starts", "_targets")

    def __init__(self, pairs: Iterable[tuple[int, int]]) -> None:
        """Take the pairs, of which each key comes once."""
        from array import array

        self._starts = array("Q")
        self._ends = array("Q")
        self._targets = array("Q")
        end, next_target = 0, -1
        for key, target in sorted(pairs):
            if key == end and target == next_target and self._ends:
                self._ends[-1] = end = key + 1
            else:
                self._starts.append(key)
                self._ends.append(key + 1)
                self._targets.append(target)
                end = key + 1
            next_target = target + 1

    def __len__(self) -> int:
        return len(self._starts)

    def get(self, key: int) -> int | None:
        index = bisect_right(self._starts, key) - 1
        if index < 0 or key >= self._ends[index]:
            return None
        return self._targets[index] + key - self._starts[index]

    def pairs(self) -> Iterator[tuple[int, int]]:
        for start, end, target in zip(
            self._starts, self._ends, self._targets, strict=True
        ):
            yield from zip(
                range(start, end), range(target, target + end - start), strict=True
            )


class InodeNumbers:
    """The numbers of one revision. Immutable.

    Attributes:
        root: The slot of the root catalog.
    """

    def __init__(self, root: Slot) -> None:
        """Begin with a revision of which nothing is known yet."""
        self.root = root
        self._inherited: Mapping[int, _Runs] = {}  # by slot: row to inode
        self._places: Mapping[int, _Runs] = {}  # by first slot: row to slot and row

    def of(self, slot: int, row: int) -> int:
        """Return the number of the entry in a row."""
        inherited = self._inherited.get(slot)
        if inherited is not None:
            inode = inherited.get(row)
            if inode is not None:
                return inode
        return slot << ROW_BITS | row

    def of_all(self, slot: int, rows: Sequence[int]) -> list[int]:
        """Return the numbers of the entries in some rows. Hot."""
        base = slot << ROW_BITS
        if slot not in self._inherited:
            return [base | row for row in rows]
        inherited = self._inherited[slot].get
        return [inherited(row) or base | row for row in rows]

    def place(self, inode: int) -> tuple[int, int]:
        """Return the slot and the row in which an inode's entry is, or was last."""
        slot, row = inode >> ROW_BITS, inode & ROW_MASK
        places = self._places.get(slot)
        if places is not None:
            place = places.get(row)
            if place is not None:
                return place >> ROW_BITS, place & ROW_MASK
        return slot, row

    def inherit(
        self, root: Slot, shown: Iterable[Slot], entries: Iterable[Inheritance]
    ) -> "InodeNumbers":
        """Return the numbers of the next revision.

        Args:
            root: The slot of its root catalog.
            shown: All its known slots.
            entries: What is as it was, in catalogs that are not.
        """
        of_rows: dict[int, list[tuple[int, int]]] = {}
        of_numbers: dict[int, dict[int, int]] = {}
        for inode, slot, row in entries:
            of_rows.setdefault(slot, []).append((row, inode))
            home, first_row = inode >> ROW_BITS, inode & ROW_MASK
            of_numbers.setdefault(home, {})[first_row] = slot << ROW_BITS | row
        numbers = InodeNumbers(root)
        kept = {slot.number for slot in shown}
        numbers._inherited = {
            **{slot: runs for slot, runs in self._inherited.items() if slot in kept},
            **{slot: _Runs(pairs) for slot, pairs in of_rows.items()},
        }
        numbers._places = self._succeeded_places(of_numbers, numbers._inherited)
        return numbers

    def _succeeded_places(
        self,
        of_numbers: Mapping[int, Mapping[int, int]],
        inherited: Mapping[int, _Runs],
    ) -> Mapping[int, _Runs]:
        places = dict(self._places)
        for home, fresh in of_numbers.items():
            known = self._places.get(home)
            before = dict(known.pairs()) if known is not None else {}
            places[home] = _Runs({**before, **fresh}.items())
        if sum(map(len, places.values())) > RUNS_MAX:
            return _places_of(inherited)
        return places


def _places_of(inherited: Mapping[int, _Runs]) -> Mapping[int, _Runs]:
    """Return where everything is that is still there."""
    places: dict[int, list[tuple[int, int]]] = {}
    for slot, runs in inherited.items():
        for row, inode in runs.pairs():
            of_home = places.setdefault(inode >> ROW_BITS, [])
            of_home.append((inode & ROW_MASK, slot << ROW_BITS | row))
    return {home: _Runs(pairs) for home, pairs in places.items()}
