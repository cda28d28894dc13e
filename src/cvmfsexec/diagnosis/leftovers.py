"""What sessions and mounts that were killed have left behind, and its removal."""

import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import NamedTuple

from cvmfsexec.cache import ram
from cvmfsexec.cache.pending import PendingFiles
from cvmfsexec.client.talk_socket import dead_sockets_in, remove_if_dead
from cvmfsexec.errors import CvmfsError
from cvmfsexec.host_mounts import Condition, heal
from cvmfsexec.namespaces.fusermount import Fusermount
from cvmfsexec.namespaces.host_place import clear_away_dead, list_dead


class Leftover(NamedTuple):
    """Something that nobody uses any more.

    Attributes:
        text: What it is.
        remove: Takes it away; CvmfsError or OSError if that fails.
    """

    text: str
    remove: Callable[[], object]


def find_dead_mounts(
    mounts: Mapping[str, Condition], helper: Fusermount
) -> Iterator[Leftover]:
    """Yield mounts of ``mountrepo`` whose file servers have ended."""
    for mountpoint, condition in mounts.items():
        if condition is Condition.IS_DEAD:  # one that is only slow may answer yet
            yield Leftover(
                f"mount without a file server: {mountpoint}",
                partial(heal, helper, mountpoint),
            )


def find_dead_sessions(base: str, helper: Fusermount) -> Iterator[Leftover]:
    """Yield mounts that sessions in mode 2 have left behind.

    Args:
        base: Where such sessions have their directories.
        helper: Unmounts.
    """
    dead = list_dead(base)
    if dead:
        yield Leftover(
            f"mounts of {len(dead)} killed sessions in {base}",
            partial(clear_away_dead, base, helper),
        )


def find_dead_files(cache_directory: str) -> Iterator[Leftover]:
    """Yield files under way whose writers are dead."""
    try:
        count = _with_pending(cache_directory, PendingFiles.count_dead)
    except OSError:
        return  # never used
    if count:
        yield Leftover(
            f"{count} unfinished files in {cache_directory}",
            partial(_with_pending, cache_directory, PendingFiles.remove_dead),
        )


def find_unused_memory(uid: int) -> Iterator[Leftover]:
    """Yield the user's cache in memory, if all who used it were killed.

    Args:
        uid: The user's number.
    """
    place = ram.place_of(uid)
    if ram.is_unused(place):
        yield Leftover(
            f"cache in memory that no session uses: {place}",
            partial(ram.remove_unused, place),
        )


def find_dead_sockets(workspace: str) -> Iterator[Leftover]:
    """Yield the talk sockets of sessions that were killed."""
    dead = dead_sockets_in(workspace)
    if dead:

        def remove_all() -> None:
            for path in dead:
                remove_if_dead(path)

        yield Leftover(f"{len(dead)} talk sockets in {workspace}", remove_all)


def remove(leftover: Leftover) -> str:
    """Take something away; return why that failed, or nothing."""
    try:
        leftover.remove()
    except CvmfsError as error:
        return str(error)
    except OSError as error:
        return f"{error.strerror}"
    return ""


def _with_pending(cache_directory: str, act: Callable[[PendingFiles], int]) -> int:
    directory = os.open(cache_directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return act(PendingFiles(directory))
    finally:
        os.close(directory)
