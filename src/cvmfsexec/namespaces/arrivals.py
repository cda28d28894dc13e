"""Mounts that the host makes while a session runs, as they come into the session.

Where a session cannot mount (mode 2), init asks the supervisor's side of it, by the
same requests that a payload makes (``requests``). That mounts in the session's place on
the host. If the host shares the mounts of that directory, the new one arrives in all
namespaces that were copied from the host's, at the same path, and is shown from there
at its own place. What does not arrive cannot be shown, and is refused beforehand.
"""

import errno
import os
from contextlib import suppress
from functools import partial

from cvmfsexec.errors import NamespaceError
from cvmfsexec.namespaces import messages, requests, syscalls
from cvmfsexec.namespaces.messages import Topic
from cvmfsexec.namespaces.mount_points import MountPoints
from cvmfsexec.namespaces.plan import Service, SessionChannel
from cvmfsexec.namespaces.requests import Request, Verb
from cvmfsexec.namespaces.syscalls import MS_BIND


class Arrivals(MountPoints):
    """The mount points below ``/cvmfs``, on which mounts of the host are shown."""

    def __init__(self, place: str, channel: int, *, is_shared: bool) -> None:
        """Remember what there is; called on the host.

        Args:
            place: Directory in which the host mounts.
            channel: Where requests are made to the host's side.
            is_shared: The host shares what is mounted there later.
        """
        super().__init__()
        self._place = place
        self._place_descriptor = -1
        self._channel = channel
        self._is_shared = is_shared

    def open(self) -> None:
        """Get hold of the directories, before the payload's binds can cover one.

        Raises:
            NamespaceError: The kernel refused it.
        """
        super().open()
        with suppress(OSError):  # nothing can arrive in what is not shown
            self._place_descriptor = os.open(self._place, os.O_PATH | os.O_DIRECTORY)

    def make(self, mountpoint: str) -> None:
        """Make one, if something can arrive for it.

        Raises:
            NamespaceError: Nothing can.
            OSError: It cannot be made.
        """
        if not self._is_shared or self._place_descriptor < 0:
            raise _refusal(mountpoint)
        super().make(mountpoint)

    def unmount(self, mountpoint: str) -> None:
        """Take away what is shown there, and have the host unmount it.

        Raises:
            NamespaceError: It is in use (EBUSY), or nothing is mounted there (EINVAL).
        """
        super().unmount(mountpoint)
        self._send_away(mountpoint)

    def clear(self, mountpoint: str) -> None:
        """Take away whatever a mount that failed has left."""
        super().clear(mountpoint)
        self._send_away(mountpoint)

    def service(self, fqrn: str, mountpoint: str) -> Service:
        """Return what has a repository mounted by the host, and shows it."""
        return Service(
            fqrn, partial(self._show, mountpoint), (), mountpoint, is_brief=True
        )

    def _show(self, mountpoint: str, channel: SessionChannel) -> int:
        channel.wait_for_root()
        name = os.path.basename(mountpoint)
        answer = requests.ask(self._channel, Request(Verb.MOUNT, name))
        if answer.topic is Topic.REFUSED:
            raise messages.refusal_in(answer)
        if answer.topic is not Topic.READY:
            channel.pass_on(answer)
            return 1
        os.fchdir(self._place_descriptor)
        if os.stat(name).st_dev == os.stat(".").st_dev:
            raise _refusal(mountpoint)
        syscalls.mount(name, mountpoint, flags=MS_BIND)
        channel.ready()
        return 0

    def _send_away(self, mountpoint: str) -> None:
        # If that cannot be sent now, it stays mounted on the host until the end.
        request = Request(Verb.UNMOUNT, os.path.basename(mountpoint))
        requests.ask_for_no_answer(self._channel, request)


def _refusal(mountpoint: str) -> NamespaceError:
    return NamespaceError(
        f"{os.path.basename(mountpoint)}: in this session the host mounts (mode 2), "
        "and does not share what it mounts later; name all repositories at the "
        "session's start",
        errno=errno.EOPNOTSUPP,
    )
