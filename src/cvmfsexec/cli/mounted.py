"""What a repository's mount tells about its network, where there is one of ours."""

import os
from typing import NamedTuple

_OURS = "user.fuse_requests"  # an attribute that no other client has


class Mounted(NamedTuple):
    """The live state of a mount.

    Attributes:
        mountpoint: Where it is.
        host: Server that is asked first.
        proxy: Proxy that is asked first, or ``DIRECT``.
        failures: Lines of what failed lately.
    """

    mountpoint: str
    host: str
    proxy: str
    failures: tuple[str, ...]


def mounted(fqrn: str) -> Mounted | None:
    """Return what the mount of a repository tells, if it is mounted by us."""
    mountpoint = f"/cvmfs/{fqrn}"
    if not _is_mountpoint(mountpoint):
        return None  # a look could make an automounter mount it
    try:
        _attribute(mountpoint, _OURS)
        return Mounted(
            mountpoint,
            _attribute(mountpoint, "user.host"),
            _attribute(mountpoint, "user.proxy"),
            tuple(_attribute(mountpoint, "user.network_failures").splitlines()),
        )
    except OSError:
        return None


def _attribute(path: str, name: str) -> str:
    return os.getxattr(path, name).decode(errors="replace")


def _is_mountpoint(path: str) -> bool:
    try:
        with open("/proc/self/mounts", encoding="utf-8", errors="replace") as table:
            return any(line.split(" ")[1:2] == [path] for line in table)
    except OSError:
        return False
