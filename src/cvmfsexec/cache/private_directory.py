"""The directory of a cache: made if missing, and refused where others can write.

Cached objects are not verified again when they are opened, because their names are
hashes of other (compressed) bytes. Whoever can write the directory can therefore
change what jobs execute, so it must be this user's alone.

The original client makes its caches with mode 0770. Such a directory is refused, too,
even if it is the user's own: who else is in the group cannot be known (groups come
from directories on the network), and what the others may have put there already stays
when the mode changes. The message says how to take it over.

In a user namespace all this holds as well: the kernel shows the owner of the directory
and the user of the process by the same mapping.
"""

import contextlib
import os
import stat
from functools import partial

from cvmfsexec.cache.open_files import close_quietly
from cvmfsexec.cache.young_directories import again_while_young
from cvmfsexec.errors import CacheError

_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_OTHERS_CAN_WRITE = stat.S_IWGRP | stat.S_IWOTH
_MODE = 0o700
_CHOOSE = "set CVMFS_CACHE_BASE to a directory on a local disk that only you can write"


def open_private_directory(path: str) -> int:
    """Return a descriptor of a directory, which is made if it is missing.

    A directory that cannot be written (any more) is accepted: what it holds is good
    to read.

    Raises:
        CacheError: It cannot be made or opened, belongs to another user, or others
            can write it.
    """
    return again_while_young(path, partial(_open, path), CacheError)


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
