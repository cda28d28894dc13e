"""The process that serves one repository to the kernel, from its start to its end.

It evaluates the configuration, opens the repository and verifies it, and only then
mounts it: a repository that cannot be opened never leaves a mount behind. If another
repository configures this one, it waits for that to be mounted and reads its files
through the kernel, at their true paths.
"""

import gc
from collections.abc import Callable, Mapping
from typing import NamedTuple

from cvmfsexec import log
from cvmfsexec.client.assembly import Client, User
from cvmfsexec.client.ownership import Identity
from cvmfsexec.configuration.evaluate import begin
from cvmfsexec.configuration.locate import ConfigurationRoot
from cvmfsexec.errors import CvmfsError
from cvmfsexec.fuse.server import FuseServer
from cvmfsexec.namespaces.fuse_mount import mount_fuse
from cvmfsexec.namespaces.plan import ServiceChannel

READ_BYTES_MAX = 1 << 20  # 256 pages, the most that the kernel asks for at once


class Host(NamedTuple):
    """What a file server knows of the machine and its user.

    Attributes:
        root: Where the configuration is.
        environment: The user's environment.
        uid: The user's number on this host; in the session it is 0.
        gid: The user's group, likewise.
    """

    root: ConfigurationRoot
    environment: Mapping[str, str]
    uid: int
    gid: int


class FileServer:
    """One repository of a session; ``run`` is the body of its process."""

    def __init__(
        self,
        fqrn: str,
        mountpoint: str,
        configuration_directory: str | None,
        host: Host,
        exit_status_of: Callable[[CvmfsError], int],
    ) -> None:
        """Remember what to do; called before the process is forked.

        Args:
            fqrn: The repository.
            mountpoint: Where it is to appear.
            configuration_directory: Where the repository that configures it will be
                mounted, if there is one.
            host: The machine and its user.
            exit_status_of: Status for an error that keeps it from being mounted.
        """
        self._fqrn = fqrn
        self._mountpoint = mountpoint
        self._configuration_directory = configuration_directory
        self._host = host
        self._exit_status_of = exit_status_of

    def run(self, channel: ServiceChannel) -> int:
        """Serve until unmounted; the way here is told through the channel."""
        try:
            self._serve(channel)
        except CvmfsError as error:
            status = self._exit_status_of(error)
            channel.failed(f"{self._fqrn}: {error}", hint=error.hint, status=status)
            return status
        return 0

    def _serve(self, channel: ServiceChannel) -> None:
        host = self._host
        evaluation = begin(self._fqrn, host.root, host.environment)
        if self._configuration_directory is not None:
            channel.wait_for_dependencies()
        configuration = evaluation.finish(self._configuration_directory)
        user = User(
            uid=Identity(host.uid, 0, is_confined=True),
            gid=Identity(host.gid, 0, is_confined=True),
            environment=host.environment,
        )
        with Client(configuration, user) as client:
            file_system = client.file_system()
            channel.wait_for_root()
            device = mount_fuse(
                self._mountpoint,
                max_read_bytes=READ_BYTES_MAX,
                default_permissions=client.settings.view.check_permissions,
            )
            server = FuseServer(device, file_system)
            client.watch(server)
            if client.settings.log_path:
                log.keep_in_file(client.settings.log_path, self._fqrn)
            # With several repositories, it matters whose trouble is told.
            log.speak_as(f"cvmfsexec: {self._fqrn}")
            gc.freeze()  # what is here now lives as long as the process
            channel.ready()
            server.serve()
