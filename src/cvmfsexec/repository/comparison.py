"""Two states of a part of the tree, entry by entry.

The entries of both are read in the order of their path hashes and laid side by side, so
that no more than a page of each catalog is in memory. Bound catalogs have no place
here: they write other paths than those where they appear.
"""

from collections.abc import Iterable, Iterator
from heapq import merge
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
    old, new = next(left, None), next(right, None)
    while old is not None or new is not None:
        order = _order(old, new)
        yield Pair(old if order <= 0 else None, new if order >= 0 else None)
        if order <= 0:
            old = next(left, None)
        if order >= 0:
            new = next(right, None)


def _order(old: PlacedEntry | None, new: PlacedEntry | None) -> int:
    """Return which of two comes first: the old one if negative, both if 0."""
    if old is None or new is None:
        return 1 if old is None else -1
    old_hash, new_hash = _path_hash(old), _path_hash(new)
    return (old_hash > new_hash) - (old_hash < new_hash)


def _entries(tree: CatalogTree, slots: Iterable[Slot]) -> Iterator[PlacedEntry]:
    streams = [_entries_of(tree, slot) for slot in slots]
    return streams[0] if len(streams) == 1 else merge(*streams, key=_path_hash)


def _entries_of(tree: CatalogTree, slot: Slot) -> Iterator[PlacedEntry]:
    catalog = tree.catalog(slot)
    for entry in catalog.by_path():
        if not entry.flags & Flag.NESTED_ROOT:
            yield PlacedEntry(slot, entry)


def _path_hash(placed: PlacedEntry) -> tuple[int, int]:
    return placed.entry.md5_1, placed.entry.md5_2
