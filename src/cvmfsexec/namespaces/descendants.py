"""Ending whole process trees where no pid namespace does it.

A subreaper's orphaned descendants become its children. So killing all children, and
then those that have become children by that, ends the whole tree, daemons included.
"""

import contextlib
import os
import signal
from collections.abc import Collection


def list_children() -> list[int]:
    """Return the pids of this process's children, zombies among them."""
    pid = os.getpid()
    try:
        with open(f"/proc/self/task/{pid}/children", encoding="ascii") as listing:
            return [int(word) for word in listing.read().split()]
    except FileNotFoundError:
        # A kernel without CONFIG_PROC_CHILDREN.
        return [
            int(name)
            for name in os.listdir("/proc")
            if name.isdecimal() and _parent_of(name) == pid
        ]


def end_all(spared: Collection[int] = ()) -> None:
    """Kill and reap all descendants; returns when none is left.

    Args:
        spared: Children to leave alone, with all that is below them.
    """
    while victims := [pid for pid in list_children() if pid not in spared]:
        for pid in victims:
            _kill(pid)
        for pid in victims:
            _reap(pid)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # reaped meanwhile
        os.kill(pid, signal.SIGKILL)


def _reap(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):  # reaped meanwhile
        os.waitpid(pid, 0)


def _parent_of(pid: str) -> int:
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            # The command's name, in parentheses, may hold anything, even ")".
            return int(stat.read().rpartition(b")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return 0
