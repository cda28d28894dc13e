"""What a session consists of: the request that the outside makes to this package."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple, Protocol

from cvmfsexec.errors import NamespaceError
from cvmfsexec.namespaces import root
from cvmfsexec.namespaces.messages import Message
from cvmfsexec.namespaces.steps import BindElsewhere

if TYPE_CHECKING:
    from cvmfsexec.namespaces.scratch_image import ScratchImage


class ServiceChannel(Protocol):
    """How a service and the session speak to each other."""

    def wait_for_root(self) -> None:
        """Wait until the private root stands; only then mount anything."""

    def wait_for_dependencies(self) -> bool:
        """Wait for the services that this one comes after; whether all are ready."""

    def ready(self, *, leaves: str = "") -> None:
        """Say that the mount answers. The payload waits for this word of all.

        Args:
            leaves: A file to be removed when the session ends, since the service is
                killed then; empty for none.
        """

    def failed(self, message: str, *, hint: str = "", status: int = 0) -> None:
        """Say why there will be no service; the session then ends with it.

        Args:
            message: One sentence for the user.
            hint: What the user can do.
            status: Exit status for the session; 0 leaves it to the caller.
        """

    def absent(self) -> None:
        """Say that there will be no service, and that the session can do without.

        Not after ``ready``. Services that come after this one learn of it.
        """


class SessionChannel(ServiceChannel, Protocol):
    """What a service in the session's namespaces can say besides."""

    @property
    def requests(self) -> int:
        """Where to request from init, for a service that may; otherwise -1."""

    def wait_for_farewell(self, timeout_s: float) -> bool:
        """Wait for the session's end, which comes only to a service that takes leave.

        After ``ready``, from one thread. The service is then to end soon by itself.

        Returns:
            Whether it has come; else the time is over.
        """

    def named(self, name: str) -> None:
        """Say what a short name stands for, in place of a service of that name."""

    def pass_on(self, answer: Message) -> None:
        """Say what another process, which was to do the work, has said in the end."""


class Service(NamedTuple):
    """A file server: a process of its own, that lives as long as the session.

    It starts as early as possible, while the private root is still being built, so
    that it can import and download meanwhile. It runs as uid 0 of the session's user
    namespace, its working directory is ``/``, it holds nothing of the user's but
    standard error, and polite signals do not end it (they reach the payload instead).

    Attributes:
        name: For messages and ``ps``; the fqrn.
        run: Called in the service's process; returns its exit status. Once ready, it
            should not return before the session ends.
        after: Names of services that ``wait_for_dependencies`` waits for.
        mountpoint: Where it mounts, if that can be undone on request.
        may_request: It can make requests, as a payload can.
        is_brief: Its process may end as soon as it is ready; what it has mounted is
            served by another.
        takes_leave: It is told of the end of the session, and waited for.
    """

    name: str
    run: Callable[[SessionChannel], int]
    after: tuple[str, ...] = ()
    mountpoint: str = ""
    may_request: bool = False
    is_brief: bool = False
    takes_leave: bool = False


class MountPlaces(Protocol):
    """Where that is mounted what is asked for, as the desk has it."""

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What no other process may have."""

    def open(self) -> None:
        """Get hold of what is needed; NamespaceError if the kernel refuses."""

    def make(self, mountpoint: str) -> None:
        """Make a mount point; NamespaceError or OSError if that is not possible."""

    def unmount(self, mountpoint: str) -> None:
        """Take away a mount and its mount point; NamespaceError if it stays."""

    def clear(self, mountpoint: str) -> None:
        """Take away whatever is left of a mount that failed."""


class Interface(NamedTuple):
    """What a payload can ask for while it runs (``requests``).

    Attributes:
        services_for: Returns the service for a complete name, after those that it
            needs. Called in init: it neither waits nor fails.
        complete_name: Tells the channel what a short name stands for; called in a
            process of its own, and returns its exit status.
        is_for_payload: Whether the payload itself may ask.
        points: Where they mount; the session's own ``/cvmfs`` by default.
    """

    services_for: Callable[[str], tuple[Service, ...]]
    complete_name: Callable[[str, SessionChannel], int]
    is_for_payload: bool = True
    points: MountPlaces | None = None


class HostMount(NamedTuple):
    """A mount of the host that the session shows at a place of its own.

    Attributes:
        name: Of the service that makes it.
        source: Where it is on the host.
        mountpoint: Where it is shown; one of the plan's mount points.
    """

    name: str
    source: str
    mountpoint: str


class SessionPlan(NamedTuple):
    """One command and what it needs around it.

    Attributes:
        command: At least one word; looked up in the PATH of ``environment``.
        environment: The whole environment of the command.
        cwd: Absolute path of the command's working directory.
        services: Started at once, in this order.
        mountpoints: Directories made for them, like ``/cvmfs/atlas.cern.ch``.
        native: What of the host's own ``/cvmfs`` is shown beside them.
        name: By which other commands can join; empty for an automatic one.
        binds: What is shown elsewhere as well, once all file servers are ready.
        host_mounts: What is shown at some of the mount points.
        interface: What can be asked for from inside, if anything.
        image: A scratch image to mount before the file servers begin.
        tries_fuse: Find out early whether file servers can mount, even if none is
            among the first services.
        status_out: Pipe for a zero byte, the command's exit status if it succeeds. The
            session then lasts as long as any process that the command has left, and has
            no pid namespace: they have the same pids for everybody. If the command
            fails, or with -1, the session ends with it.
    """

    command: tuple[str, ...]
    environment: Mapping[str, str]
    cwd: str
    services: tuple[Service, ...] = ()
    mountpoints: tuple[str, ...] = ()
    native: root.NativeTree = root.NO_NATIVE
    name: str = ""
    binds: tuple[BindElsewhere, ...] = ()
    host_mounts: tuple[HostMount, ...] = ()
    interface: Interface | None = None
    image: "ScratchImage | None" = None
    tries_fuse: bool = False
    status_out: int = -1

    @property
    def outlasts_command(self) -> bool:
        """Whether what the command leaves behind goes on."""
        return self.status_out >= 0

    def check(self) -> None:
        """Refuse a plan that cannot be carried out.

        Raises:
            NamespaceError: No command, a mount point that cannot be one, two services
                of one name, or one that waits for a service that is not listed before.
        """
        if not self.command:
            raise NamespaceError("there is no command to run")
        root.list_own_directories(self.mountpoints)
        earlier: set[str] = set()
        for service in self.services:
            if service.name in earlier or not earlier.issuperset(service.after):
                raise NamespaceError(f"file server {service.name!r} is out of order")
            earlier.add(service.name)

    def plan_root(
        self, entries: Iterable[root.RootEntry], *, has_new_proc: bool
    ) -> root.RootPlan:
        """Plan the private root of this session; see ``root.plan_root``."""
        return root.plan_root(
            entries,
            (*self.mountpoints, root.SCRATCH) if self.image else self.mountpoints,
            has_new_proc=has_new_proc,
            native=self.native,
            shown={one.mountpoint: one.source for one in self.host_mounts},
            tries_fuse=self.tries_fuse or bool(self.services),
        )

    def describe(self) -> Iterator[str]:
        """Yield one line for each thing that a session does, in order.

        Raises:
            NamespaceError: A mount point cannot be one.
        """
        import shlex

        yield "create user, mount and pid namespaces; be uid 0 in them"
        entries = root.read_entries()
        steps = self.plan_root(entries, has_new_proc=True)
        for step in steps.foundation:
            yield step.describe()
        for service in self.services:
            after = f", after {', '.join(service.after)}" if service.after else ""
            yield f"start a file server for {service.name}{after}"
        for step in steps.building:
            yield step.describe()
        if self.image is not None:
            yield f"mount the image {self.image.path} at {root.SCRATCH}"
        for step in root.plan_binds(self.binds):
            yield step.describe()
        yield "create a second user namespace; be the user again"
        yield f"in {self.cwd}, run: {shlex.join(self.command)}"
