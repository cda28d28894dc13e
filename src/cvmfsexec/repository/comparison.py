"""Two states of a part of the tree, entry by entry.

The entries of both are read in the order of their path hashes and laid side by side, so
that no more than a page of each catalog is in memory. Bound catalogs have no place
here: they write other paths than those where they appear.
"""

from collections.abc import Iterable, Iterator
from heapq import merge
from operator import itemgetter
from typing import NamedTuple

from cvmfsexec.format.dirent import DirectoryEntry, Flag
from cvmfsexec.repository.catalog_tree import CatalogTree
from cvmfsexec.repository.slot import Slot


class PlacedEntry(NamedTuple):
    """An entry and the catalog that it stands in."""

    slot: Slot
    entry: DirectoryEntry


class Pair(NamedTuple):
    """One path before and after; ``None`` where it is not there."""

    before: PlacedEntry | None
    after: PlacedEntry | None


def compare(
    tree: CatalogTree, before: Iterable[Slot], after: Iterable[Slot]
) -> Iterator[Pair]:
    """Yield every path that is in one of two sets of catalogs, in no useful order.

    The top of a nested catalog counts as the entry of its transition point only.

    Raises:
        FormatError: A catalog is damaged.
        CvmfsError: A catalog cannot be fetched.
    """
    left, right = _entries(tree, before), _entries(tree, after)
    old_hash, old = next(left, _END)
    new_hash, new = next(right, _END)
    while old is not None or new is not None:
        was_there, is_there = old_hash <= new_hash, new_hash <= old_hash
        yield Pair(old if was_there else None, new if is_there else None)
        if was_there:
            old_hash, old = next(left, _END)
        if is_there:
            new_hash, new = next(right, _END)


_PathAndEntry = tuple[tuple[int, int], PlacedEntry | None]

_END: _PathAndEntry = ((2**63, 0), None)  # after all path hashes


def _entries(tree: CatalogTree, slots: Iterable[Slot]) -> Iterator[_PathAndEntry]:
    streams = [_entries_of(tree, slot) for slot in slots]
    return streams[0] if len(streams) == 1 else merge(*streams, key=itemgetter(0))


def _entries_of(tree: CatalogTree, slot: Slot) -> Iterator[_PathAndEntry]:
    for entry in tree.catalog(slot).by_path():
        if not entry.flags & Flag.NESTED_ROOT:
            yield (entry.md5_1, entry.md5_2), PlacedEntry(slot, entry)
