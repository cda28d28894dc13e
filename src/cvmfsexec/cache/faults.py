"""What can be wrong with a cache, and what was found and done about it.

Caches of files (:mod:`.inspection`) and of packs (:mod:`.pack_inspection`) are told of
in the same words. Names of problems are an ABI: ``cvmfs fsck --json`` has them.
"""

from enum import Enum
from typing import NamedTuple


class Problem(Enum):
    """What can be wrong."""

    CORRUPT = "not what its name says"
    UNREADABLE = "cannot be read"
    WRONG_TYPE = "not a file"
    WRITABLE = "others can write it"
    FOREIGN_OWNER = "belongs to somebody else"
    LEFTOVER = "left by a process that died"
    DAMAGED_RECORD = "damaged"
    LOST_PIN = "pinned, but not kept"
    WRONG_SUM = "the sum of sizes is wrong"


class Fault(NamedTuple):
    """One thing that is wrong.

    Attributes:
        path: Below the cache directory.
        problem: What it is.
        detail: In words, or empty.
        is_fixed: Whether it is not wrong any more.
        is_in_use: Whether a session may go on with what it has open.
    """

    path: str
    problem: Problem
    detail: str = ""
    is_fixed: bool = False
    is_in_use: bool = False


class Tally(NamedTuple):
    """What was found in one part.

    Attributes:
        object_count: How many objects there were.
        total_bytes: Their sizes.
        faults: What is wrong.
        foreign: Paths of what no client of ours or the original's has made. It is in
            nobody's way.
    """

    object_count: int
    total_bytes: int
    faults: tuple[Fault, ...]
    foreign: tuple[str, ...]


class Remedy(NamedTuple):
    """What to do about faults.

    Attributes:
        repairs: Mend them; else they are only told.
        keeps_corrupt: Corrupt objects are moved to ``quarantaine``, not removed.
        is_shared: Other users may own and write objects: it is an alien cache.
    """

    repairs: bool = False
    keeps_corrupt: bool = False
    is_shared: bool = False
