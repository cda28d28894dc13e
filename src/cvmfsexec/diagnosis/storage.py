"""The cache directory: its file system, its room, and who can write to it."""

import errno
import fcntl
import os
import stat
from collections.abc import Iterable, Iterator

from cvmfsexec.cache import scratch
from cvmfsexec.cache.file_system_type import NETWORK_TYPES
from cvmfsexec.configuration.storage import can_write_below
from cvmfsexec.diagnosis.finding import Finding, State
from cvmfsexec.namespaces.mount_table import Mount, read_mount_table

SUBJECT = "cache directory"

ROOM_BYTES_MIN = 1 << 30
INODES_MIN = 50_000


def examine_cache_directory(
    directory: str, *, has_many_files: bool = True
) -> Iterator[Finding]:
    """Look at a cache directory, or at where it would be made.

    Args:
        directory: Absolute path; it may not exist yet.
        has_many_files: Whether each object is a file in it.
    """
    if not can_write_below(directory):
        yield Finding(
            SUBJECT,
            State.FAILURE,
            f"{directory} cannot be written",
            "set CVMFS_CACHE_BASE to a directory of your own",
        )
        return
    existing = _existing(directory)
    mount = mount_of(existing, read_mount_table())
    yield _about_file_system(directory, mount, has_many_files=has_many_files)
    yield from _about_room(existing)
    if existing == directory:
        yield from _about_owner(directory)
    yield from _about_features(existing)


def mount_of(path: str, table: Iterable[Mount]) -> Mount | None:
    """Return the mount that a path lies in; of several at one place, the last."""
    found = None
    for mount in table:
        is_in = path == mount.mountpoint or path.startswith(
            mount.mountpoint.rstrip("/") + "/"
        )
        if is_in and (found is None or len(mount.mountpoint) >= len(found.mountpoint)):
            found = mount
    return found


def _existing(directory: str) -> str:
    path = os.path.realpath(directory)
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    return path


def _about_file_system(
    directory: str, mount: Mount | None, *, has_many_files: bool
) -> Finding:
    fstype = "an unknown file system" if mount is None else mount.fstype
    if has_many_files and fstype in NETWORK_TYPES:
        return Finding(
            SUBJECT,
            State.WARNING,
            f"{directory} lies on {fstype}, a network file system: slow for many "
            "small files, and shared with other nodes",
            "set CVMFS_CACHE_TYPE=packed or ram, or CVMFS_CACHE_BASE to a local disk "
            "of the node",
        )
    return Finding(SUBJECT, State.GOOD, f"{directory} on {fstype}")


def _about_room(directory: str) -> Iterator[Finding]:
    try:
        room = os.statvfs(directory)
    except OSError as error:
        yield Finding("cache room", State.WARNING, f"cannot tell: {error.strerror}")
        return
    free_bytes = room.f_bavail * room.f_frsize
    text = f"{free_bytes >> 20} MiB free"
    is_small = free_bytes < ROOM_BYTES_MIN
    if room.f_files:  # some file systems do not count
        text += f", {room.f_favail} files"
        is_small = is_small or room.f_favail < INODES_MIN
    if is_small:
        yield Finding(
            "cache room",
            State.WARNING,
            f"{text}; what does not fit is downloaded again when it is read again",
            "make room, or set CVMFS_CACHE_BASE to another place",
        )
    else:
        yield Finding("cache room", State.GOOD, text)


def _about_owner(directory: str) -> Iterator[Finding]:
    status = os.stat(directory)
    if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        yield Finding(
            "cache owner",
            State.FAILURE,
            f"others can write to {directory}, and so decide what programs run",
            f"chown and chmod 700 {directory}, or set CVMFS_CACHE_BASE",
        )


def _about_features(directory: str) -> Iterator[Finding]:
    """Try unnamed files and locks where the cache is, or will be."""
    try:
        descriptor = scratch.open_unnamed(directory)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            yield Finding("cache files", State.WARNING, f"{error.strerror}")
            return
        yield Finding(
            "cache files",
            State.NOTE,
            f"no unnamed files here ({error.strerror}): files under way have names",
        )
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        yield Finding(
            "cache locks",
            State.NOTE,
            f"no file locks here ({error.strerror}): several jobs may download the "
            "same object",
        )
    else:
        yield Finding("cache locks", State.GOOD, "file locks work")
    finally:
        os.close(descriptor)
