"""Catalog counters as text: what a repository or a catalog holds.

Source: docs/reference/client-behaviour.md, "Magic extended attributes".
"""

from collections.abc import Mapping

NAMES = (
    "chunked",
    "chunked_size",
    "chunks",
    "dir",
    "external",
    "external_file_size",
    "file_size",
    "nested",
    "regular",
    "special",
    "symlink",
    "xattr",
)
"""Names without their prefix, in the order in which they are shown."""

_ENTRIES = ("regular", "symlink", "special", "dir")


def counter_lines(counters: Mapping[str, int]) -> str:
    """Return ``name,value`` lines for a catalog and all below it."""
    return "".join(f"{name},{total(counters, name)}\n" for name in NAMES)


def entry_count(counters: Mapping[str, int]) -> int:
    """Return how many entries a catalog and all below it hold."""
    return sum(total(counters, name) for name in _ENTRIES)


def own_entry_count(counters: Mapping[str, int]) -> int:
    """Return how many entries a catalog itself holds."""
    return sum(counters[f"self_{name}"] for name in _ENTRIES)


def total(counters: Mapping[str, int], name: str) -> int:
    """Return one counter of a catalog and all below it."""
    return counters[f"self_{name}"] + counters[f"subtree_{name}"]
