"""The mounts of this user that can be talked to: in this session, and in others."""

import os
from collections.abc import Iterable
from functools import partial
from typing import NamedTuple

from cvmfsexec import log
from cvmfsexec.cli.configuration import configuration_root
from cvmfsexec.cli.environment import load_parameters
from cvmfsexec.client.talk_socket import remove_if_dead, sockets_of, talk
from cvmfsexec.configuration.evaluate import complete_name, site_repositories
from cvmfsexec.configuration.settings import ClientSettings
from cvmfsexec.errors import CvmfsError, SessionError
from cvmfsexec.namespaces.inquiry import ask
from cvmfsexec.namespaces.join import list_sessions
from cvmfsexec.namespaces.mount_table import read_mount_table

PATIENCE_S = 5.0

_TALK_SOCKET = "user.talk_socket"  # an attribute that no other client has
_NO_ATTRIBUTE = "No such attribute"


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


class LiveMount(NamedTuple):
    """A mount that has answered.

    Attributes:
        fqrn: The repository.
        mountpoint: Where it is, as its session sees it.
        pid: Its file server's, as it is seen from here.
        socket: Where it is talked to.
    """

    fqrn: str
    mountpoint: str
    pid: int
    socket: str

    def attribute(self, name: str) -> str:
        """Return a magic attribute by its name without ``user.``.

        Raises:
            SessionError: The mount does not answer any more.
        """
        return _say(self.socket, f"attribute {name}")[0]


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
    question = partial(os.getxattr, mountpoint, _TALK_SOCKET)
    return os.fsdecode(ask({mountpoint: question})[mountpoint])


def live_mounts(fqrn: str, dist: str | None) -> tuple[list[LiveMount], list[str]]:
    """Return the mounts of a repository, and why others do not answer.

    Raises:
        CvmfsError: It is not configured.
    """
    alive, troubles = [], []
    for path in sockets_of_repository(fqrn, dist).alive:
        try:
            mountpoint, pid = _say(path, "mountpoint")
            alive.append(LiveMount(fqrn, mountpoint, pid, path))
        except CvmfsError as error:
            troubles.append(str(error))
    return alive, troubles


def wanted_names(typed: Iterable[str], dist: str | None) -> list[str]:
    """Return complete names: those typed, or all that may be mounted.

    Raises:
        ConfigurationError: What was typed is not a name.
    """
    root = configuration_root(dist)
    given = [complete_name(name, root, os.environ) for name in typed]
    if given:
        return list(dict.fromkeys(given))
    names = [complete_name(n, root, os.environ) for n in _site(dist)]
    names += [
        os.path.basename(one.mountpoint) for one in read_mount_table() if one.is_fuse
    ]
    for session in list_sessions():
        names += session.card.repositories.split() if session.card else []
    return [name for name in dict.fromkeys(names) if "." in name]


def _site(dist: str | None) -> tuple[str, ...]:
    try:
        return site_repositories(configuration_root(dist), os.environ)
    except CvmfsError as error:
        log.detail("no CVMFS_REPOSITORIES: %s", error)
        return ()


def _say(path: str, command: str) -> tuple[str, int]:
    answer, pid = talk(path, command.encode(), PATIENCE_S)
    text = answer.decode("utf-8", "surrogateescape").removesuffix("\n")
    if not answer or text == _NO_ATTRIBUTE:
        raise SessionError(f"{path}: the mount does not answer {command!r}")
    return text, pid
