"""The directory of a cache: made if missing, and refused where others can write.

Cached objects are not verified again when they are opened, because their names are
hashes of other (compressed) bytes. Whoever can write the directory can therefore
change what jobs execute, so it must be this user's alone.

The original client makes its caches with mode 0770. Such a directory is refused, too,
even if it is the user's own: who else is in the group cannot be known (groups come
from directories on the network), and what the others may have put there already stays
when the mode changes. The message says how to take it over.

On a network file system, what another node has just made may be missing for a second
more; or be root's, as GlusterFS makes directories like that and then hands them over.
So where that may be the reason, it is looked at again.

In a user namespace all this holds as well: the kernel shows the owner of the directory
and the user of the process by the same mapping.
"""

import contextlib
import os
import stat
import time

from cvmfsexec.cache.open_files import close_quietly
from cvmfsexec.errors import CacheError

_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_OTHERS_CAN_WRITE = stat.S_IWGRP | stat.S_IWOTH
_MODE = 0o700
_YOUNG_S = 3.0
_TRIES = 30
_PAUSE_S = 0.1
_CHOOSE = "set CVMFS_CACHE_BASE to a directory on a local disk that only you can write"


def open_private_directory(path: str) -> int:
    """Return a descriptor of a directory, which is made if it is missing.

    A directory that cannot be written (any more) is accepted: what it holds is good
    to read.

    Raises:
        CacheError: It cannot be made or opened, belongs to another user, or others
            can write it.
    """
    for _ in range(_TRIES):
        try:
            return _open(path)
        except CacheError:
            if not _may_be_over_soon(path):
                raise
            time.sleep(_PAUSE_S)
    return _open(path)


def is_being_made(status: os.stat_result) -> bool:
    """Whether a private directory may be handed over to this user yet."""
    is_of_root = status.st_uid == 0 != os.geteuid()
    return is_of_root and stat.S_IMODE(status.st_mode) == _MODE and _is_young(status)


def _may_be_over_soon(path: str) -> bool:
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


def _open(path: str) -> int:
    try:
        descriptor = _open_or_make(path)
    except OSError as error:
        raise CacheError(
            f"cannot use the cache directory {path}: {error.strerror}", hint=_CHOOSE
        ) from error
    try:
        check_privacy(path, os.fstat(descriptor))
    except CacheError:
        close_quietly(descriptor)
        raise
    return descriptor


def _open_or_make(path: str) -> int:
    try:
        return os.open(path, _FLAGS)
    except FileNotFoundError:
        with contextlib.suppress(FileExistsError):  # a link that leads nowhere
            os.makedirs(path, _MODE)
        return os.open(path, _FLAGS)


def check_privacy(path: str, status: os.stat_result) -> None:
    """Refuse a directory that somebody else can write.

    Args:
        path: Where it is, for messages.
        status: Of the directory.

    Raises:
        CacheError: It belongs to another user, or others can write it.
    """
    if status.st_uid != os.geteuid():
        raise CacheError(
            f"the cache directory {path} belongs to another user "
            f"(uid {status.st_uid}), who could change what is in it",
            hint=_CHOOSE,
        )
    if status.st_mode & _OTHERS_CAN_WRITE:
        raise CacheError(
            f"other users can write the cache directory {path} "
            f"(mode {stat.S_IMODE(status.st_mode):04o})",
            hint=f"if nobody did, run: chmod go-w {path}",
        )
