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


def descriptors_below(top: Path) -> list[str]:
    """Return what is open below a directory: nothing that other tests have left."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the one of the list itself
            found.append(os.readlink(f"/proc/self/fd/{name}"))
    return [path for path in found if path.startswith(f"{top}/")]
