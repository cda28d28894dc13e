"""The process that serves one repository to the kernel, from its start to its end.

It evaluates the configuration, opens the repository and verifies it, and only then
mounts it: a repository that cannot be opened never leaves a mount behind. If another
repository configures this one, it waits for that to be mounted and reads its files
through the kernel, at their true paths; or goes on without, if that cannot be mounted
and is not required.
"""

import gc
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol

from cvmfsexec import log
from cvmfsexec.client.assembly import Client, User
from cvmfsexec.client.ownership import Identity
from cvmfsexec.client.talk_socket import Answer, take_talk_socket
from cvmfsexec.client.updates import Updates
from cvmfsexec.configuration.evaluate import Configuration, begin
from cvmfsexec.configuration.locate import ConfigurationRoot
from cvmfsexec.configuration.settings import log_places
from cvmfsexec.errors import CvmfsError
from cvmfsexec.fuse.crew import Alarm
from cvmfsexec.fuse.server import FuseServer
from cvmfsexec.namespaces.fuse_mount import mount_fuse
from cvmfsexec.namespaces.plan import ServiceChannel
from cvmfsexec.vfs.attributes import FileSystem
from cvmfsexec.vfs.file_system import RepositoryFileSystem

if TYPE_CHECKING:
    from cvmfsexec.client.recording import Recording
    from cvmfsexec.format.pinned_name import Pin

READ_BYTES_MAX = 1 << 20  # 256 pages, the most that the kernel asks for at once


class Host(NamedTuple):
    """What a file server knows of the machine and its user.

    Attributes:
        root: Where the configuration is.
        environment: The user's environment.
        uid: The user's number on this host; in the session's namespaces it is 0.
        gid: The user's group, likewise.
        is_in_namespace: Whether the file server is in the session's namespaces.
    """

    root: ConfigurationRoot
    environment: Mapping[str, str]
    uid: int
    gid: int
    is_in_namespace: bool = True

    @property
    def user(self) -> User:
        """For whom the files are shown."""
        if not self.is_in_namespace:
            uid, gid = Identity.outside(self.uid), Identity.outside(self.gid)
        else:
            uid = Identity(self.uid, 0, is_confined=True)
            gid = Identity(self.gid, 0, is_confined=True)
        return User(uid, gid, self.environment)


class MountCall(Protocol):
    """Mounts on a directory, and returns the device to serve the mount from."""

    def __call__(
        self, mountpoint: str, *, max_read_bytes: int, default_permissions: bool
    ) -> int:
        """See ``namespaces.fuse_mount.mount_fuse``."""


class ServedRepository(NamedTuple):
    """What a file server is to serve.

    Attributes:
        fqrn: The repository.
        mountpoint: Where it is to appear.
        configuration_directory: Where the repository that configures it will be
            mounted, if there is one.
        can_be_absent: Whether the session can do without it.
        pin: The revision that was asked for; ``None`` for what is configured.
    """

    fqrn: str
    mountpoint: str
    configuration_directory: str | None
    can_be_absent: bool
    pin: "Pin | None" = None


class FileServer:
    """One repository of a session; ``run`` is the body of its process."""

    def __init__(
        self,
        repository: ServedRepository,
        host: Host,
        exit_status_of: Callable[[CvmfsError], int],
        mount: MountCall = mount_fuse,
        recording: "Recording | None" = None,
    ) -> None:
        """Remember what to do; called before the process is forked.

        Args:
            repository: What to serve.
            host: The machine and its user.
            exit_status_of: Status for an error that keeps it from being mounted.
            mount: How it is mounted.
            recording: What takes down how it fares, if there will be a report.
        """
        self._recording = recording
        self._repository = repository
        self._can_be_absent = repository.can_be_absent
        self._host = host
        self._exit_status_of = exit_status_of
        self._mount = mount

    def run(self, channel: ServiceChannel) -> int:
        """Serve until unmounted; the way here is told through the channel."""
        try:
            self._serve(channel)
        except CvmfsError as error:
            return self._give_up(channel, error)
        return 0

    def _give_up(self, channel: ServiceChannel, error: CvmfsError) -> int:
        """Tell that there will be no repository, and return the exit status."""
        message = f"{self._repository.fqrn}: {error}"
        if self._can_be_absent:
            log.warning("%s", message)
            channel.absent()
            return 0
        status = self._exit_status_of(error)
        channel.failed(message, hint=error.hint, status=status)
        return status

    def _configuration(self, channel: ServiceChannel) -> Configuration:
        """Evaluate the configuration, with the repository that configures this one."""
        fqrn, _, directory, _, pin = self._repository
        if self._host.root.scratch_cache:
            channel.wait_for_root()  # before that the cache is not there
        evaluation = begin(fqrn, self._host.root, self._host.environment)
        if directory is not None:
            channel.wait_for_root()  # or it could not be seen
            if not channel.wait_for_dependencies():
                directory = None
        return evaluation.finish(directory, pin)

    def _server(self, device: int, file_system: FileSystem) -> FuseServer:
        """Return what answers the requests of the mount."""
        return FuseServer(device, file_system)

    def _traced(
        self, file_system: RepositoryFileSystem, configuration: Configuration
    ) -> FileSystem:
        """Return what also writes down what is touched, if somebody wants that."""
        given = self._host.root.given_trace
        path = given or configuration.path("CVMFS_TRACEFILE")
        if not path:
            return file_system
        from cvmfsexec.vfs.tracing import TracedFileSystem

        fqrn = self._repository.fqrn if given else ""
        return TracedFileSystem.open(file_system, path, fqrn)

    def _hear(
        self, client: Client, configuration: Configuration, server: FuseServer
    ) -> str:
        """Let the mount be talked to, and return where; empty for nowhere."""
        socket = take_talk_socket(
            client.settings.cache.workspace,
            self._repository.fqrn,
            configuration.path("CVMFS_TALK_SOCKET"),
        )
        if socket is None:
            return ""
        mountpoint = self._repository.mountpoint
        client.hear(
            socket, partial(_talk_answers, client, configuration, mountpoint, server)
        )
        return socket.path

    def _serve(self, channel: ServiceChannel) -> None:
        fqrn = self._repository.fqrn
        configuration = self._configuration(channel)
        log.keep_in(log_places(configuration))
        with Client(configuration, self._host.user) as client:
            file_system = client.file_system()
            channel.wait_for_root()
            channel.wait_for_dependencies()  # on-demand, they serve the mount point
            device = self._mount(
                self._repository.mountpoint,
                max_read_bytes=READ_BYTES_MAX,
                default_permissions=client.settings.view.check_permissions,
            )
            _tell_about(client)
            shown = self._traced(file_system, configuration)
            recording = self._recording
            if recording is not None:
                shown = recording.observe(shown)
            server = self._server(device, shown)
            server.bounded_validity_s = client.settings.view.kernel_timeout_s
            if configuration.boolean("CVMFS_INSTRUMENT_FUSE", default=False):
                server.measure()
            client.watch(server)
            client.follow(file_system, server)
            # With several repositories, it matters whose trouble is told.
            log.speak_as(f"cvmfsexec: {fqrn}")
            talk_path = self._hear(client, configuration, server)
            gc.freeze()  # what is here now lives as long as the process
            self._can_be_absent = False
            channel.ready(leaves=talk_path)
            if client.store.quota is not None:
                client.store.quota.put_in_order()
            if recording is not None:
                server.faults.on_fault = recording.note_failure
                recording.start(client.gauges(server), server)
            server.serve(_alarm(client.updates))
            if recording is not None:
                recording.finish()


def _talk_answers(
    client: Client, configuration: Configuration, mountpoint: str, server: FuseServer
) -> Answer:
    """Return what answers those who talk to the mount; there are few such mounts."""
    from cvmfsexec.client.talk_answers import TalkAnswers, TalkSubject

    return TalkAnswers(
        TalkSubject(
            client,
            configuration,
            mountpoint,
            client.gauges(server),
            server.faults.forget,
        )
    ).answer


def _alarm(updates: Updates) -> Alarm | None:
    """Return when the first look for a newer revision is due."""
    expires_in_s = updates.expires_in_s()
    return None if expires_in_s is None else Alarm(expires_in_s, updates.begin)


def _tell_about(client: Client) -> None:
    log.detail(
        "%s: revision %d is mounted; server %s, proxy %s, cache %s",
        client.fqrn,
        client.revision.number,
        client.http.routes.active_host,
        client.http.routes.active_proxy,
        client.settings.cache.directory,
    )
