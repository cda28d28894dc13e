"""The single steps by which a private root comes to be: each can be told and done.

Targets are relative: they lie in the new root, which is the working directory from the
first step on. Sources are absolute: they lie in the old root until the last step.
"""

import errno
import os
import stat
import time
from typing import NamedTuple, Protocol

from cvmfsexec import log
from cvmfsexec.errors import NamespaceError
from cvmfsexec.namespaces import syscalls
from cvmfsexec.namespaces.syscalls import (
    MNT_DETACH,
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    MS_SLAVE,
)

_KEPT_FLAGS = {"nosuid": MS_NOSUID, "nodev": MS_NODEV, "noexec": MS_NOEXEC}
"""By what the mount table calls them."""

_BUSY_TRIES = 50
_BUSY_PAUSE_S = 0.01


class Step(Protocol):
    """One change to the mount namespace."""

    def describe(self) -> str:
        """Return what will be done, in one line."""

    def perform(self) -> None:
        """Do it; NamespaceError if the kernel refuses."""


class ReceiveOnly(NamedTuple):
    """Let mounts of the host arrive here, and none of ours go there.

    "Slave" rather than "private": a home directory that an automounter mounts on the
    host while the session runs must appear here as well. The kernel has made slaves of
    all shared mounts when the user namespace came with the mount namespace; this step
    says so once more, because the next ones rely on it.
    """

    def describe(self) -> str:
        """Return what will be done, in one line."""
        return "receive mounts from the host, send none (rslave /)"

    def perform(self) -> None:
        """Change the propagation of all mounts."""
        syscalls.mount("none", "/", flags=MS_SLAVE | MS_REC)


class StackRoot(NamedTuple):
    """Mount the new root over the old one, and step into it.

    A mount on ``/`` is not seen by whoever has the old root: an absolute path begins at
    the process's root and never looks for what is mounted on it. But ``..`` does look,
    even at the root, so ``/..`` is the new one. Thus no directory of the old root has
    to be covered, and none has to be made.
    """

    def describe(self) -> str:
        """Return what will be done, in one line."""
        return "mount an empty tmpfs over /, as the new root"

    def perform(self) -> None:
        """Mount, and change the working directory."""
        flags = MS_NOSUID | MS_NODEV
        syscalls.mount("tmpfs", "/", fstype="tmpfs", flags=flags, data="mode=755")
        os.chdir("/..")


class MountProc(NamedTuple):
    """Mount a process file system that shows the new pid namespace.

    The kernel refuses (EPERM, "mount too revealing") where parts of the host's are
    covered by other mounts, as container runtimes do. Whether it will is best found by
    trying.
    """

    target: str

    def describe(self) -> str:
        """Return what will be done, in one line."""
        return f"mount a new proc on /{self.target}"

    def perform(self) -> None:
        """Make the mount point, and mount."""
        os.mkdir(self.target)
        flags = MS_NOSUID | MS_NODEV | MS_NOEXEC
        syscalls.mount("proc", self.target, fstype="proc", flags=flags)


class MakeDirectory(NamedTuple):
    """Make a directory of our own."""

    target: str

    def describe(self) -> str:
        """Return what will be done, in one line."""
        return f"make directory /{self.target}"

    def perform(self) -> None:
        """Make it."""
        os.mkdir(self.target)


class MakeLink(NamedTuple):
    """Make a symbolic link like the one in the old root."""

    target: str
    points_to: str

    def describe(self) -> str:
        """Return what will be done, in one line."""
        return f"link /{self.target} -> {self.points_to}"

    def perform(self) -> None:
        """Make it."""
        os.symlink(self.points_to, self.target)


class BindTree(NamedTuple):
    """Show a directory of the old root, with all that is mounted below it.

    Recursive because it must be: mounts that came from a more privileged namespace may
    not be separated from what they cover. A directory that cannot be bound (a dead
    network file system, another user's FUSE mount) stays empty; the rest of the host
    is of use without it.
    """

    source: str
    target: str

    def describe(self) -> str:
        """Return what will be done, in one line."""
        return f"bind {self.source} and all below it"

    def perform(self) -> None:
        """Make the mount point, and bind."""
        os.mkdir(self.target)
        _bind_if_possible(self.source, self.target)


class BindFile(NamedTuple):
    """Show a file of the old root: regular, device, socket or pipe."""

    source: str
    target: str

    def describe(self) -> str:
        """Return what will be done, in one line."""
        return f"bind file {self.source}"

    def perform(self) -> None:
        """Make an empty file to bind on, and bind."""
        os.mknod(self.target, stat.S_IFREG | 0o644)
        _bind_if_possible(self.source, self.target)


class ShowMount(NamedTuple):
    """Show a mount of the host at a place of the session's own."""

    source: str
    target: str

    def describe(self) -> str:
        """Return what will be done, in one line."""
        return f"bind {self.source} at /{self.target}"

    def perform(self) -> None:
        """Bind; the mount point is there."""
        syscalls.mount(self.source, self.target, flags=MS_BIND)


class BindElsewhere(NamedTuple):
    """Show a file or directory of the session at a second place.

    Both paths are those of the session: its root stands when this is done.

    Attributes:
        source: Absolute path.
        target: Absolute path; made if it is missing, where we can make something.
        is_read_only: Nothing can be changed by way of the second place.
    """

    source: str
    target: str
    is_read_only: bool = False

    def describe(self) -> str:
        """Return what will be done, in one line."""
        how = ", read-only" if self.is_read_only else ""
        return f"bind {self.source} at {self.target}{how}"

    def perform(self) -> None:
        """Make the mount point, if need be, and bind."""
        if not os.path.exists(self.source):
            raise NamespaceError(
                f"cannot {self.describe()}: there is no {self.source}",
                errno=errno.ENOENT,
            )
        if not os.path.lexists(self.target):
            self._make_target()
        syscalls.mount(self.source, self.target, flags=MS_BIND | MS_REC)
        if self.is_read_only:
            _make_tree_read_only(os.path.realpath(self.target))

    def _make_target(self) -> None:
        above = os.path.dirname(self.target)
        while not os.path.lexists(above):
            above = os.path.dirname(above)
        if os.stat(above).st_dev != os.stat("/").st_dev:
            raise NamespaceError(
                f"cannot {self.describe()}: there is no {self.target}, and {above} is "
                "the host's, where nothing is made",
                errno=errno.ENOENT,
            )
        os.makedirs(os.path.dirname(self.target), exist_ok=True)
        if os.path.isdir(self.source):
            os.mkdir(self.target)
        else:
            os.mknod(self.target, stat.S_IFREG | 0o644)


class SwapRoot(NamedTuple):
    """Let the new root take the place of the old one, for all our processes at once.

    ``pivot_root`` changes the root, and a working directory of ``/``, of every process
    in the mount namespace. With "." for both arguments the old root ends up mounted on
    the new one, where "." still is, and is taken from there with all its mounts.

    Attributes:
        covers_trial: ``TryFuse`` has left a mount on the old root, and the topmost one
            is always what is taken away.
    """

    covers_trial: bool = False

    def describe(self) -> str:
        """Return what will be done, in one line."""
        return "make the new root the root, and detach the old one"

    def perform(self) -> None:
        """Swap, and step to the new root."""
        try:
            syscalls.pivot_root(".", ".")
        except NamespaceError as error:
            if error.errno != errno.EINVAL:
                raise
            # Diskless nodes may run from the initial ramfs, which cannot be moved
            # away. The new root then stays where it is, over the old one.
            enter_stacked_root()
        else:
            if self.covers_trial:
                syscalls.umount2(".", MNT_DETACH)
            syscalls.umount2(".", MNT_DETACH)
            os.chdir("/")


class MakeWritable(NamedTuple):
    """Allow changes to the new root itself again."""

    def describe(self) -> str:
        """Return what will be done, in one line."""
        return "make the new root writable for a moment"

    def perform(self) -> None:
        """Remount it."""
        flags = MS_REMOUNT | MS_BIND | MS_NOSUID | MS_NODEV
        syscalls.mount("none", "/", flags=flags)


class MakeReadOnly(NamedTuple):
    """Forbid changes to the new root itself; what is bound in it is as it was."""

    def describe(self) -> str:
        """Return what will be done, in one line."""
        return "make the new root read-only"

    def perform(self) -> None:
        """Remount it."""
        _forbid_changes("/", MS_NOSUID | MS_NODEV)


def enter_stacked_root() -> None:
    """Have the topmost mount on ``/`` for a root; no change if that is so already.

    The kernel does not count this as a chroot, as it follows mounts on the root before
    it compares: so user namespaces can still be created inside.
    """
    os.chdir("/..")
    os.chroot(".")


def _bind_if_possible(source: str, target: str) -> None:
    try:
        syscalls.mount(source, target, flags=MS_BIND | MS_REC)
    except NamespaceError as error:
        log.debug("%s is not shown in the session: %s", source, error)


def _make_tree_read_only(target: str) -> None:
    """Change all mounts of a tree; what else was forbidden there stays so.

    No file system is asked anything: a server of one of them may be dead, or hang.
    """
    from cvmfsexec.namespaces.mount_table import read_mount_table

    # Of several at one place the last one is seen, and changed.
    mounts = {
        mount.mountpoint: mount
        for mount in read_mount_table()
        if mount.mountpoint == target or mount.is_below(target)
    }
    for mount in mounts.values():
        kept = 0
        for option in mount.options:
            kept |= _KEPT_FLAGS.get(option, 0)
        _forbid_changes(mount.mountpoint, kept)


def _forbid_changes(mountpoint: str, kept: int) -> None:
    """Make a mount read-only, and wait a moment for a change that is being made.

    To note when a directory was last read is one, too.
    """
    flags = MS_REMOUNT | MS_BIND | MS_RDONLY | kept
    for _ in range(_BUSY_TRIES):
        try:
            syscalls.mount("none", mountpoint, flags=flags)
        except NamespaceError as error:
            if error.errno != errno.EBUSY:
                raise
            time.sleep(_BUSY_PAUSE_S)
        else:
            return
    syscalls.mount("none", mountpoint, flags=flags)
