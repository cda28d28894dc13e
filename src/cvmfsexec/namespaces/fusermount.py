"""Mounting and unmounting by ``fusermount3`` or ``fusermount``, for all of the host.

The helper is set-uid root. It mounts on a directory of the user and sends the opened
FUSE device back through a socket, whose number it finds in ``_FUSE_COMMFD``. Its words
on standard error are the only reason that it gives.

Its own option ``auto_unmount`` is not used: it looks into a mount before it takes it
away, and into one that is for its owner only it may not look, not even as root. So it
would leave behind just those mounts that are usual here. A ``keeper`` of ours does not
(docs/adr/0010).
"""

import errno
import os
import stat

from cvmfsexec.errors import FusermountError, MountBusyError
from cvmfsexec.namespaces import hints, syscalls
from cvmfsexec.namespaces.syscalls import MNT_DETACH

NAMES = ("fusermount3", "fusermount")
DIRECTORIES = ("/usr/bin", "/bin", "/usr/sbin", "/sbin")
"""Searched after those of PATH, which batch systems often set to little."""

_SOCKET_VARIABLE = "_FUSE_COMMFD"


def find_helper(search_path: str) -> str:
    """Return the path of the helper, the newer one if both are there; or nothing.

    Args:
        search_path: Value of ``$PATH``.
    """
    absolute = [one for one in search_path.split(os.pathsep) if one.startswith("/")]
    for name in NAMES:
        for directory in (*absolute, *DIRECTORIES):
            path = os.path.join(directory, name)
            if os.path.isfile(path) and os.access(path, os.X_OK):
                return path
    return ""


class Fusermount:
    """The helper, or for root without one the system calls that it would make.

    Attributes:
        path: Where it is; empty without one.
    """

    def __init__(self, search_path: str) -> None:
        """Look for it; see ``find_helper``."""
        self.path = find_helper(search_path)

    def require(self) -> None:
        """Make sure that there is a way to mount.

        Raises:
            FusermountError: Neither a helper nor root's rights.
        """
        if not self.path and os.geteuid() != 0:
            raise FusermountError(
                "there is neither fusermount3 nor fusermount",
                hint="an administrator can install it: package fuse3",
            )

    def mount(
        self,
        mountpoint: str,
        *,
        source: str,
        max_read_bytes: int = 0,
        default_permissions: bool = False,
        allow_other: bool = False,
    ) -> int:
        """Mount read-only, and return the device to serve it from.

        Args:
            mountpoint: An existing directory that the user may write to.
            source: What the mount table shows first.
            max_read_bytes: Largest read request; 0 leaves it to the kernel.
            default_permissions: The kernel checks the mode of files for each access.
            allow_other: Other users may read. The helper asks ``/etc/fuse.conf``.

        Raises:
            FusermountError: It was refused; the message is the helper's.
            NamespaceError: Likewise, by the kernel.
        """
        self.require()
        if not self.path:
            from cvmfsexec.namespaces.fuse_mount import mount_fuse

            return mount_fuse(
                mountpoint,
                source=source,
                max_read_bytes=max_read_bytes,
                default_permissions=default_permissions,
                allow_other=allow_other,
            )
        options = ["ro", "nosuid", "nodev", f"fsname={source}"]
        if default_permissions:
            options.append("default_permissions")
        if allow_other:
            options.append("allow_other")
        if max_read_bytes:
            options.append(f"max_read={max_read_bytes}")
        return self._receive_device(mountpoint, ",".join(options))

    def unmount(self, mountpoint: str, *, is_lazy: bool = False) -> None:
        """Take a mount away.

        Args:
            mountpoint: Where it is.
            is_lazy: Now from its place, and for good when nobody uses it any more.

        Raises:
            MountBusyError: Somebody uses it; it stays.
            FusermountError: It was refused for another reason.
            NamespaceError: Likewise, by the kernel.
        """
        self.require()
        if not self.path:
            syscalls.umount2(mountpoint, MNT_DETACH if is_lazy else 0)
            return
        import subprocess

        done = subprocess.run(
            (self.path, "-u", *(("-z",) if is_lazy else ()), "--", mountpoint),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=_ENVIRONMENT,
            cwd="/",
            check=False,
        )
        if done.returncode != 0:
            reason = self._reason(done.stderr)
            if reason.endswith("busy"):
                raise MountBusyError(
                    f"{mountpoint} is in use", hint="end what uses it, or try -z"
                )
            raise FusermountError(f"cannot unmount {mountpoint}: {reason}")

    def _receive_device(self, mountpoint: str, options: str) -> int:
        import socket
        import subprocess

        ours, its = socket.socketpair()
        with ours:
            with its:
                process = subprocess.Popen(
                    (self.path, "-o", options, "--", mountpoint),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    env={**_ENVIRONMENT, _SOCKET_VARIABLE: str(its.fileno())},
                    pass_fds=(its.fileno(),),
                    cwd="/",
                )
            with process:
                _, devices, _, _ = socket.recv_fds(ours, 1, 1)
                said = process.communicate()[1]
        if not devices:
            raise FusermountError(
                f"cannot mount on {mountpoint}: {self._reason(said)}",
                hint=self._hint(self._reason(said)),
            )
        os.set_inheritable(devices[0], False)  # noqa: FBT003 -- positional only
        return devices[0]

    def _reason(self, said: bytes) -> str:
        """Return the last line that the helper has said, without its name."""
        lines = said.decode("utf-8", "surrogateescape").strip().splitlines()
        name = os.path.basename(self.path)
        if not lines:
            return f"{name} gives no reason"
        return lines[-1].removeprefix(f"{self.path}: ").removeprefix(f"{name}: ")

    def _hint(self, reason: str) -> str:
        """Return why the helper may have failed, if that or a look at it tells."""
        if "open /dev/fuse" in reason:
            return hints.find_hint(syscalls.refusal("open", errno.EACCES, reason))
        return "" if os.geteuid() == 0 else self._hint_about_rights()

    def _hint_about_rights(self) -> str:
        """Return why the helper does not have those of root."""
        if "\nNoNewPrivs:\t1" in hints.read_or_nothing("/proc/self/status"):
            return (
                "set-uid programs have no effect here (no_new_privs), so that "
                f"{self.path} may not mount"
            )
        try:
            status = os.stat(self.path)
        except OSError:
            return ""
        if status.st_uid != 0 or not status.st_mode & stat.S_ISUID:
            return (
                f"{self.path} is not set-uid root; an administrator can change it: "
                f"chown root {self.path} && chmod u+s {self.path}"
            )
        if os.statvfs(self.path).f_flag & os.ST_NOSUID:
            return f"{self.path} is on a file system without set-uid programs (nosuid)"
        return ""


_ENVIRONMENT = {"LC_ALL": "C", "PATH": os.pathsep.join(DIRECTORIES)}
