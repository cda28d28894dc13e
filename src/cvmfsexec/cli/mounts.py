"""The mounts of this user that can be talked to: in this session, and in others."""

import os
from typing import NamedTuple

from cvmfsexec.cli.environment import load_parameters
from cvmfsexec.client.talk_socket import remove_if_dead, sockets_of
from cvmfsexec.configuration.settings import ClientSettings
from cvmfsexec.namespaces.mount_table import read_mount_table

_TALK_SOCKET = "user.talk_socket"  # an attribute that no other client has


class Sockets(NamedTuple):
    """Where the mounts of a repository are talked to.

    Attributes:
        fqrn: The repository; empty if a socket was named.
        first: The place of the first of them, whether it is there or not.
        alive: Those that exist.
    """

    fqrn: str
    first: str
    alive: list[str]


def sockets_of_repository(fqrn: str, dist: str | None) -> Sockets:
    """Return where to talk to a repository's mounts.

    Inside of a session, that is the session's own mount; outside, it is all mounts in
    the workspace.

    Raises:
        CvmfsError: It is not configured.
    """
    here = socket_of_mount(f"/cvmfs/{fqrn}")
    if here:
        return Sockets(fqrn, here, [here])
    configuration = load_parameters(fqrn, dist)
    exact = configuration.path("CVMFS_TALK_SOCKET")
    workspace = ClientSettings.from_configuration(configuration).cache.workspace
    first = exact or f"{workspace}/cvmfs_io.{fqrn}"
    paths = [exact] if exact else sockets_of(workspace, fqrn)
    for path in paths:
        remove_if_dead(path)
    return Sockets(fqrn, first, [path for path in paths if os.path.lexists(path)])


def socket_of_mount(mountpoint: str) -> str:
    """Return where a mount of ours is talked to; empty if it is none."""
    if not any(one.mountpoint == mountpoint for one in read_mount_table()):
        return ""  # a look could make an automounter mount it
    try:
        return os.fsdecode(os.getxattr(mountpoint, _TALK_SOCKET))
    except OSError:
        return ""
