"""A cache directory with a limit, filled with objects that are known by number."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from cvmfsexec.cache.directory import DirectoryStore
from cvmfsexec.format.digest import ContentHash
from tests.support.store_contract import content_of, put

LIMIT = 100_000
SIZE = 10_000


def name(number: int) -> ContentHash:
    """Return what an object is called."""
    return ContentHash.of(b"%d" % number)


def fill(store: DirectoryStore, numbers: range, size: int = SIZE) -> None:
    """Store objects, whether they are kept or not."""
    for number in numbers:
        assert content_of(put(store, name(number), bytes(size))) == bytes(size)


def true_bytes(root: Path) -> int:
    """Return the sum of the sizes of all objects, with nobody at work."""
    return sum(sizes(root).values())


def bytes_at_one_moment(root: Path, tell: Callable[[], int]) -> tuple[int, int]:
    """Return the size of what was there between two looks, and what is told then.

    A look alone takes time.
    """
    before = sizes(root)
    told = tell()
    after = sizes(root)
    return sum(after[path] for path in before.keys() & after.keys()), told


def sizes(root: Path) -> dict[str, int]:
    """Return the sizes of all objects by path; what goes meanwhile is left out."""
    found: dict[str, int] = {}
    for prefix in range(256):
        with suppress(OSError), os.scandir(root / f"{prefix:02x}") as entries:
            for entry in entries:
                with suppress(OSError):
                    found[entry.path] = entry.stat().st_size
    return found
