"""Directories for repositories that are mounted while the payload runs.

To the payload the session's root is read-only. init makes directories below ``/cvmfs``
by a second mount of the same file system, which is writable and lies nowhere: it was
detached as soon as it was opened, before there was a payload.
"""

import os
from contextlib import suppress

from cvmfsexec.errors import NamespaceError
from cvmfsexec.namespaces import syscalls
from cvmfsexec.namespaces.syscalls import (
    MNT_DETACH,
    MS_BIND,
    MS_NODEV,
    MS_NOSUID,
    MS_REMOUNT,
)

DIRECTORY = "/cvmfs"

_UMOUNT_NOFOLLOW = 8


class MountPoints:
    """The mount points below ``/cvmfs``, as init makes and removes them."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._descriptor = -1  # of the writable directory

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What no other process may have."""
        return (self._descriptor,) if self._descriptor >= 0 else ()

    def open(self) -> None:
        """Get hold of the directory; the private root stands, the payload is not there.

        Raises:
            NamespaceError: The kernel refused it.
        """
        syscalls.mount(DIRECTORY, DIRECTORY, flags=MS_BIND)
        try:
            flags = MS_REMOUNT | MS_BIND | MS_NOSUID | MS_NODEV
            syscalls.mount("none", DIRECTORY, flags=flags)
            self._descriptor = os.open(DIRECTORY, os.O_RDONLY | os.O_DIRECTORY)
        finally:
            syscalls.umount2(DIRECTORY, MNT_DETACH)

    def make(self, mountpoint: str) -> None:
        """Make one; it may be there already.

        Raises:
            OSError: It cannot be made.
        """
        umask = os.umask(0o022)
        try:
            with suppress(FileExistsError):
                os.mkdir(os.path.basename(mountpoint), dir_fd=self._descriptor)
        finally:
            os.umask(umask)

    def unmount(self, mountpoint: str) -> None:
        """Take away what is mounted there, and the directory.

        Raises:
            NamespaceError: It is in use (EBUSY), or nothing is mounted there (EINVAL).
        """
        syscalls.umount2(mountpoint, _UMOUNT_NOFOLLOW)
        self.remove(mountpoint)

    def clear(self, mountpoint: str) -> None:
        """Take away whatever a file server that failed has left."""
        with suppress(NamespaceError):
            syscalls.umount2(mountpoint, _UMOUNT_NOFOLLOW | MNT_DETACH)
        self.remove(mountpoint)

    def remove(self, mountpoint: str) -> None:
        """Remove the directory; one that is not there, or not ours, is no error."""
        with suppress(OSError):
            os.rmdir(os.path.basename(mountpoint), dir_fd=self._descriptor)
