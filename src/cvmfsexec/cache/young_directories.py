"""Directories that another node has just made.

On a network file system such a directory may be missing for a second more; or be
root's, as GlusterFS makes directories like that and then hands them over. So where that
may be the reason for a refusal, it is asked again.
"""

import os
import stat
import time
from collections.abc import Callable
from typing import TypeVar

from cvmfsexec.cache.open_files import close_quietly

_YOUNG_S = 3.0
_TRIES = 30
_PAUSE_S = 0.1
_PRIVATE = 0o700

_T = TypeVar("_T")


def again_while_young(
    path: str, act: Callable[[], _T], *refusals: type[Exception]
) -> _T:
    """Do something; again, for some seconds, while a young directory may be in its way.

    Args:
        path: The directory that is used, or one that would lie in it.
        act: Does it; may be called again after it has raised one of the refusals.
        refusals: What it raises if the directory is not there or not this user's.

    Raises:
        Exception: What ``act`` raised last.
    """
    for _ in range(_TRIES):
        try:
            return act()
        except refusals:
            if not _may_be_young(path):
                raise
            time.sleep(_PAUSE_S)
    return act()


def is_being_made(status: os.stat_result) -> bool:
    """Whether a private directory may be handed over to this user yet."""
    is_of_root = status.st_uid == 0 != os.geteuid()
    return is_of_root and stat.S_IMODE(status.st_mode) == _PRIVATE and _is_young(status)


def _may_be_young(path: str) -> bool:
    """Whether another node may just have made a directory, or the one above it."""
    from cvmfsexec.cache.file_system_type import network_type_of

    while path:
        try:
            directory = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            path = os.path.dirname(path.rstrip("/"))
            continue
        try:
            return _is_young(os.fstat(directory)) and bool(network_type_of(directory))
        finally:
            close_quietly(directory)
    return False


def _is_young(status: os.stat_result) -> bool:
    return abs(time.time() - status.st_ctime) < _YOUNG_S
