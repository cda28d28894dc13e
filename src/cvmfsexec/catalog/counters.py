"""The statistics of a catalog: what it holds, and what all catalogs below it hold.

The original's check computes them again and wants them exact; clients use them for
``df -i`` only.

Source: docs/reference/repository-format.md, "Statistics counters".
"""

from collections.abc import Iterable, Mapping

from cvmfsexec.catalog.schema import COUNTERS, SELF, SUBTREE
from cvmfsexec.format.dirent import DirectoryEntry

Counters = dict[str, int]
"""Counters by name: the 24 of a catalog, if nothing else is said."""


def count(
    entries: Iterable[DirectoryEntry],
    *,
    chunk_count: int,
    nested: Iterable[Mapping[str, int]],
) -> Counters:
    """Return the counters of a catalog.

    Args:
        entries: Its rows.
        chunk_count: Its rows in the table ``chunks``.
        nested: The counters of each catalog directly below.
    """
    own = dict.fromkeys(COUNTERS, 0)
    for entry in entries:
        _count_entry(own, entry)
    below = list(nested)
    own["chunks"] = chunk_count
    own["nested"] = len(below)
    counters = {SELF + name: value for name, value in own.items()}
    for name in COUNTERS:
        counters[SUBTREE + name] = sum(
            child[SELF + name] + child[SUBTREE + name] for child in below
        )
    return counters


def _count_entry(own: Counters, entry: DirectoryEntry) -> None:
    if entry.xattr is not None:
        own["xattr"] += 1
    if entry.is_directory:
        own["dir"] += 1
    elif entry.is_symlink:
        own["symlink"] += 1
    elif entry.is_special:
        own["special"] += 1
    else:
        own["regular"] += 1
        own["file_size"] += entry.size
        if entry.is_chunked:
            own["chunked"] += 1
            own["chunked_size"] += entry.size
        if entry.is_external:
            own["external"] += 1
            own["external_file_size"] += entry.size


def totals(counters: Mapping[str, int]) -> Counters:
    """Return a catalog and all below it together, by the 12 names without scope."""
    return {name: counters[SELF + name] + counters[SUBTREE + name] for name in COUNTERS}
