"""The file server of one repository in a container, on a mount that is there already.

The kernel lets the payload wait until the first request is answered. If the repository
cannot be opened, nobody is told but the log: standard error belongs to the payload.
Whoever starts the container has tried it just before.
"""

import os
import time
from collections.abc import Callable

from cvmfsexec import log
from cvmfsexec.client.assembly import User
from cvmfsexec.client.ownership import Identity
from cvmfsexec.configuration.evaluate import Configuration
from cvmfsexec.errors import CvmfsError
from cvmfsexec.file_server import FileServer, Host, ServedRepository
from cvmfsexec.fuse.permissions import CheckingServer
from cvmfsexec.fuse.server import FuseServer
from cvmfsexec.fusemount.handover import Handover
from cvmfsexec.namespaces.plan import ServiceChannel
from cvmfsexec.vfs.attributes import FileSystem

_ALL_NUMBERS = ["0", "0", "4294967295"]


class SilentChannel:
    """The ``ServiceChannel`` of a file server that nobody listens to."""

    def wait_for_root(self) -> None:
        """Nothing is mounted by us."""

    def wait_for_dependencies(self) -> bool:
        """Whether what configures this repository is there: it was read before."""
        return True

    def ready(self, *, leaves: str = "") -> None:
        """The kernel tells, by answering the first request."""

    def wait_for_farewell(self, timeout_s: float) -> bool:
        """Nobody says when it is over; the device tells."""
        time.sleep(timeout_s)
        return False

    def failed(self, message: str, *, hint: str = "", status: int = 0) -> None:  # noqa: ARG002
        """Say in the log why nothing is served."""
        log.error("%s%s", message, f"; {hint}" if hint else "")

    def absent(self) -> None:
        """Who has started the container decided what it can do without."""


class AwaitedChannel(SilentChannel):
    """The same, of one in the background that its starter waits for."""

    def __init__(self, report: int) -> None:
        """Remember where the starter listens."""
        self._report = report

    def ready(self, *, leaves: str = "") -> None:  # noqa: ARG002 -- it ends in order
        """Let the starter go."""
        os.write(self._report, bytes(1))
        os.close(self._report)

    def failed(self, message: str, *, hint: str = "", status: int = 0) -> None:
        """Let the starter fail."""
        super().failed(message, hint=hint)
        os.write(self._report, bytes((status or 1,)))


class _ContainerHost(Host):
    """What the file server knows; ``uid`` and ``gid`` are those on the host."""

    @property
    def user(self) -> User:
        """For whom the files are shown."""
        return User(
            Identity(self.uid, os.getuid(), is_confined=_is_confined("uid")),
            Identity(self.gid, os.getgid(), is_confined=_is_confined("gid")),
            self.environment,
        )


class HandedServer(FileServer):
    """A file server that is handed its configuration and its mount."""

    def __init__(
        self,
        handover: Handover,
        device: int,
        exit_status_of: Callable[[CvmfsError], int],
    ) -> None:
        """Remember what to do.

        Args:
            handover: What it is told.
            device: Of the mount.
            exit_status_of: Status for an error.
        """
        self._handover = handover

        def mount(
            mountpoint: str,  # noqa: ARG001
            *,
            max_read_bytes: int,  # noqa: ARG001
            default_permissions: bool,
        ) -> int:
            self._checks_permissions = default_permissions
            return device

        super().__init__(
            ServedRepository(handover.fqrn, "", None, can_be_absent=False),
            _ContainerHost(
                handover.root, handover.environment, handover.uid, handover.gid
            ),
            exit_status_of,
            mount,
        )

    def _configuration(self, channel: ServiceChannel) -> Configuration:  # noqa: ARG002
        return self._handover.configuration

    def _server(self, device: int, file_system: FileSystem) -> FuseServer:
        # Whoever has mounted did not ask the kernel to check modes.
        kind = CheckingServer if self._checks_permissions else FuseServer
        return kind(device, file_system)


def _is_confined(kind: str) -> bool:
    """Whether this user namespace knows some numbers only."""
    try:
        with open(f"/proc/self/{kind}_map", encoding="ascii") as numbers:
            return numbers.read().split() != _ALL_NUMBERS
    except OSError:
        return True
