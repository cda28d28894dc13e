"""Mounting a FUSE file system in the session's namespaces, without a helper program.

Called by a service itself, after its repository was verified: where that fails, nothing
was ever mounted.
"""

import os
from typing import NamedTuple

from cvmfsexec.errors import NamespaceError
from cvmfsexec.namespaces import syscalls
from cvmfsexec.namespaces.syscalls import MS_NODEV, MS_NOSUID, MS_RDONLY

DEVICE = "/dev/fuse"

SOURCE = "cvmfs2"
"""What the mount table shows first. Pilots count the lines that have this word."""


def mount_fuse(
    mountpoint: str,
    *,
    source: str = SOURCE,
    max_read_bytes: int = 0,
    default_permissions: bool = False,
    allow_other: bool = True,
) -> int:
    """Mount read-only, and return the device to serve it from; the caller closes it.

    The owner is uid 0 of the session's user namespace, that is the user.
    ``allow_other`` is needed all the same: in user namespaces below, a container for
    example, there may be other ids, and all of these shall read. The kernel lets nobody
    in from outside the session's user namespace.

    Args:
        mountpoint: An existing directory.
        source: What the mount table shows first.
        max_read_bytes: Largest read request; 0 leaves it to the kernel.
        default_permissions: The kernel checks the mode of files for each access.
        allow_other: See above.

    Raises:
        NamespaceError: No device, or the mount was refused; with a hint.
    """
    options = ["rootmode=40000", "user_id=0", "group_id=0"]
    if allow_other:
        options.append("allow_other")
    if default_permissions:
        options.append("default_permissions")
    if max_read_bytes:
        options.append(f"max_read={max_read_bytes}")
    try:
        return _mount_new_device(mountpoint, source, options)
    except NamespaceError as error:
        from cvmfsexec.namespaces import hints

        error.hint = hints.find_hint(error)
        raise


def _mount_new_device(mountpoint: str, source: str, options: list[str]) -> int:
    try:
        device = os.open(DEVICE, os.O_RDWR)
    except OSError as error:
        purpose = f"open {DEVICE}"
        raise syscalls.refusal("open", error.errno or 0, purpose) from error
    data = ",".join((f"fd={device}", *options))
    flags = MS_RDONLY | MS_NOSUID | MS_NODEV
    try:
        syscalls.mount(source, mountpoint, fstype="fuse", flags=flags, data=data)
    except NamespaceError:
        os.close(device)
        raise
    return device


class TryFuse(NamedTuple):
    """Find out whether file servers can mount, before they have done anything.

    The mount is dead at once. It lies below the new root on the old one, where nobody
    sees it, until ``SwapRoot`` takes both away: to unmount it now would take
    milliseconds that are to spare then, while file servers start.
    """

    def describe(self) -> str:
        """Return what will be done, in one line."""
        return "try a FUSE mount, to be covered by the new root"

    def perform(self) -> None:
        """Mount, and let go of the device."""
        try:
            os.close(mount_fuse("/"))
        except NamespaceError as error:
            if error.syscall != "mount":
                raise
            purpose = "mount fuse in a user namespace"
            raise syscalls.refusal("mount", error.errno, purpose) from error
