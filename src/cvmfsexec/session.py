"""One command with its repositories: file servers, mounts, and the payload.

``run`` puts the pieces together. In each file server's process: evaluate the
configuration, open the repository and verify it, and only then mount it and serve.
A repository that cannot be opened thus never leaves a mount behind. The configuration
repository comes first; the others read it through the kernel, at its true path.

Nothing starts a thread before the namespaces are made: the kernel makes user
namespaces only for processes that have a single one.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from cvmfsexec import log
from cvmfsexec.configuration.evaluate import begin
from cvmfsexec.configuration.locate import ConfigurationRoot
from cvmfsexec.errors import CvmfsError
from cvmfsexec.namespaces.fuse_mount import mount_fuse
from cvmfsexec.namespaces.plan import Service, ServiceChannel, SessionPlan
from cvmfsexec.namespaces.supervisor import run_session

MOUNT_DIRECTORY = "/cvmfs"
READ_BYTES_MAX = 1 << 20

ExitStatusOf = Callable[[CvmfsError], int]


class ExecRequest(NamedTuple):
    """What is to be run.

    Attributes:
        repositories: Complete names, in the order of mounting.
        configuration_repository: The one of them that configures the others, or empty.
        command: Words of the payload.
        cwd: Where it starts.
        environment: What it finds in its environment.
        uid: The user's number on this host.
        gid: The user's group.
    """

    repositories: tuple[str, ...]
    configuration_repository: str
    command: tuple[str, ...]
    cwd: str
    environment: Mapping[str, str]
    uid: int
    gid: int


def run(
    request: ExecRequest, root: ConfigurationRoot | None, exit_status_of: ExitStatusOf
) -> int:
    """Run a command with repositories mounted, and return its exit status.

    Args:
        request: What to run, with which repositories.
        root: Configuration; may be missing if there are no repositories.
        exit_status_of: Status for an error that keeps a repository from being mounted.

    Raises:
        CvmfsError: The command was never started.
    """
    services = []
    if root is not None:
        for fqrn in request.repositories:
            server = _FileServer(fqrn, request, root, exit_status_of)
            services.append(Service(fqrn, server.run, server.after))
    return run_session(
        SessionPlan(
            command=request.command,
            environment=request.environment,
            cwd=request.cwd,
            services=tuple(services),
            mountpoints=tuple(mountpoint_of(name) for name in request.repositories),
        )
    )


def mountpoint_of(fqrn: str) -> str:
    """Return where a repository appears."""
    return f"{MOUNT_DIRECTORY}/{fqrn}"


class _FileServer:
    """The process that serves one repository to the kernel."""

    def __init__(
        self,
        fqrn: str,
        request: ExecRequest,
        root: ConfigurationRoot,
        exit_status_of: ExitStatusOf,
    ) -> None:
        self._fqrn = fqrn
        self._request = request
        self._root = root
        self._exit_status_of = exit_status_of
        first = request.configuration_repository
        self.after = (first,) if first and fqrn != first else ()

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
        # Imported in this process, so that the payload does not wait for it.
        from cvmfsexec.client.assembly import Client, User
        from cvmfsexec.client.ownership import Identity
        from cvmfsexec.fuse.server import FuseServer

        request = self._request
        evaluation = begin(self._fqrn, self._root, request.environment)
        directory = None
        if self.after:
            channel.wait_for_dependencies()
            directory = mountpoint_of(request.configuration_repository)
        user = User(
            uid=Identity(request.uid, 0, is_confined=True),
            gid=Identity(request.gid, 0, is_confined=True),
            environment=request.environment,
        )
        with Client(evaluation.finish(directory), user) as client:
            file_system = client.file_system()
            channel.wait_for_root()
            device = mount_fuse(
                mountpoint_of(self._fqrn),
                max_read_bytes=READ_BYTES_MAX,
                default_permissions=client.settings.view.check_permissions,
            )
            server = FuseServer(device, file_system)
            client.watch(server)
            if client.settings.log_path:
                log.keep_in_file(client.settings.log_path, self._fqrn)
            channel.ready()
            server.serve()
