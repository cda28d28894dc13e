"""How many descriptors this process has, for tests that claim that none is lost."""

import contextlib
import gc
import os
from pathlib import Path


def descriptor_count() -> int:
    """Return how many there are, without those of garbage.

    What earlier tests have left could be collected at any time, in between two counts.
    """
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def open_descriptors() -> set[tuple[str, str]]:
    """Return numbers of descriptors, and what they lead to.

    For who wants to know what is new: what was there before may go at any time.
    """
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the one of the list itself
            found.add((name, os.readlink(f"/proc/self/fd/{name}")))
    return found


def descriptors_below(top: Path) -> list[str]:
    """Return what is open below a directory: nothing that other tests have left."""
    return [path for _, path in open_descriptors() if path.startswith(f"{top}/")]
