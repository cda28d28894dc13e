"""Where caches and logs are kept.

They belong to the dist: ``DIST/var/lib/cvmfs``, and ``log`` beside the dist. An install
directory may be read-only, owned by somebody else, or both; then a directory of the
user takes over. One in ``/tmp`` is believed only if it is the user's own and nobody
else can write to it: whoever writes to a cache decides what programs run.
"""

import os
import stat
from typing import TYPE_CHECKING

from cvmfsexec.errors import ConfigurationError

if TYPE_CHECKING:
    from cvmfsexec.configuration.locate import ConfigurationRoot

PRIVATE = 0o700


def cache_base(root: "ConfigurationRoot") -> str:
    """Return the directory for caches of a dist; it may not exist yet.

    If neither the dist's nor one of the user's own can be written, it is the dist's:
    whoever writes there will be told why not.
    """
    if root.given_cache or can_write_below(root.cache_base):
        return root.cache_base
    return _users_own(root) or root.cache_base


def log_directory(root: "ConfigurationRoot") -> str:
    """Return the directory for logs of a dist; it may not exist yet."""
    if root.given_logs or can_write_below(root.log_directory):
        return root.log_directory
    own = _users_own(root)
    return os.path.join(own, "log") if own else root.log_directory


def prepare_stand_in(root: "ConfigurationRoot", directory: str) -> None:
    """Create the user's own directory if ``directory`` is in it.

    Raises:
        ConfigurationError: It cannot be created, or is not the user's own any more.
    """
    for own in root.user_directories:
        if directory == own or directory.startswith(own + "/"):
            prepare_private(own)


def prepare_private(directory: str) -> None:
    """Create a directory that only this user can enter, with those above it.

    Raises:
        ConfigurationError: It cannot be created, or it exists and is not the user's
            own, so that somebody else may change what is in it.
    """
    try:
        os.makedirs(directory, PRIVATE, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"cannot create {directory}: {error.strerror}",
            hint="set CVMFS_CACHE_BASE to a directory that you can write to",
        ) from error
    if not is_private(directory):
        raise ConfigurationError(
            f"{directory} can be changed by other users",
            hint="remove it, or set CVMFS_CACHE_BASE to a directory of your own",
        )


def can_write_below(directory: str) -> bool:
    """Whether a directory is writable or could be created; links are followed."""
    path = os.path.realpath(directory)
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    return os.path.isdir(path) and os.access(path, os.W_OK | os.X_OK)


def _users_own(root: "ConfigurationRoot") -> str:
    for directory in root.user_directories:
        if can_write_below(directory) and is_private(directory):
            return directory
    return ""


def is_private(directory: str) -> bool:
    """Whether nobody else can have put something there; true if it does not exist."""
    try:
        status = os.lstat(directory)
    except OSError:
        return True
    return (
        stat.S_ISDIR(status.st_mode)
        and status.st_uid == os.geteuid()
        and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    )
