"""One command with its repositories: file servers, namespaces, and the payload.

Nothing here starts a thread: the kernel makes user namespaces only for processes that
have a single one.
"""

import gc
import os
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from cvmfsexec import log
from cvmfsexec.configuration.locate import ConfigurationRoot
from cvmfsexec.errors import ConfigurationError, CvmfsError, NamespaceError
from cvmfsexec.namespaces.plan import (
    Interface,
    Service,
    SessionChannel,
    SessionPlan,
)
from cvmfsexec.namespaces.root import NO_NATIVE, NativeTree
from cvmfsexec.namespaces.steps import BindElsewhere
from cvmfsexec.namespaces.supervisor import run_session

if TYPE_CHECKING:
    from cvmfsexec.format.pinned_name import Pin
    from cvmfsexec.host_session import HostWay
    from cvmfsexec.namespaces.scratch_image import ScratchImage

HOST_MODE = 2
"""In it the host mounts; see ``host_session``."""

MOUNT_DIRECTORY = "/cvmfs"

CACHE_IN_MEMORY = "/dev/shm/cvmfsexec.{}"  # noqa: S108 -- the name is that of a user
"""As ``cache.ram`` calls it, which no other session needs to import."""

_ON_DEMAND = "on-demand"
"""The service that serves ``/cvmfs`` itself; no repository has such a name."""

ExitStatusOf = Callable[[CvmfsError], int]


class ExecRequest(NamedTuple):
    """What is to be run.

    Attributes:
        repositories: Complete names, as asked for.
        configuration_repository: What configures the others, or empty. It is mounted
            first, whether or not it was asked for.
        command: Words of the payload.
        cwd: Where it starts.
        environment: What it finds in its environment.
        uid: The user's number on this host.
        gid: The user's group.
        replaces_native: Nothing of the host's own ``/cvmfs`` is shown.
        mode: 2 or 3, to insist on it; 0 for the best that works.
        name: By which other commands can join; empty for an automatic one.
        binds: What is shown at a second place, once everything is mounted.
        has_interface: The payload may ask for more repositories.
        image: Absolute path of a scratch image for the cache, or empty.
        is_on_demand: Others are mounted when something of them is used first.
        pins: Revisions that were asked for, by the names of their repositories.
        status_out: As in ``SessionPlan``: the session outlasts its command.
        recording: Descriptor that file servers append what they count to; -1 for none.
    """

    repositories: tuple[str, ...]
    configuration_repository: str
    command: tuple[str, ...]
    cwd: str
    environment: Mapping[str, str]
    uid: int
    gid: int
    replaces_native: bool = False
    mode: int = 0
    name: str = ""
    binds: tuple[BindElsewhere, ...] = ()
    has_interface: bool = False
    image: str = ""
    is_on_demand: bool = False
    pins: Mapping[str, "Pin"] = MappingProxyType({})
    status_out: int = -1
    recording: int = -1

    @property
    def needed(self) -> tuple[str, ...]:
        """All repositories that must be there, each once, the first one first."""
        first = (
            (self.configuration_repository,) if self.configuration_repository else ()
        )
        return tuple(dict.fromkeys(first + self.repositories))


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
    native = _native(request)
    kept = _keep_mounted(native)
    attempt = _Attempt(request, root, exit_status_of, native)
    if request.image:
        attempt = attempt.with_image()
        kept += (attempt.image.lock,) if attempt.image is not None else ()
    try:
        if request.mode == HOST_MODE:
            return attempt.run_with_host_mounts()
        return _run_in_best_mode(attempt)
    finally:
        for descriptor in kept:
            os.close(descriptor)
        _clear_memory(request.uid)


def mountpoint_of(fqrn: str) -> str:
    """Return where a repository appears."""
    return f"{MOUNT_DIRECTORY}/{fqrn}"


def _clear_memory(uid: int) -> None:
    """Remove the user's cache in memory, if no other session uses it.

    File servers cannot do it: they are killed when their session ends, perhaps in the
    midst of it.
    """
    memory, _, name = CACHE_IN_MEMORY.format(uid).rpartition("/")
    try:
        names = os.listdir(memory)
    except OSError:
        return  # there is none
    if any(one == name or one.startswith(f"{name}.") for one in names):
        from cvmfsexec.cache.ram import remove_unused

        remove_unused(f"{memory}/{name}")


def _native(request: ExecRequest) -> NativeTree:
    """Return what is kept of the host's own directory; most hosts have none."""
    if request.replaces_native or not os.path.lexists(MOUNT_DIRECTORY):
        return NO_NATIVE
    from cvmfsexec.namespaces.native import read_native

    native = read_native(MOUNT_DIRECTORY, request.needed)
    for fqrn in request.needed:
        if fqrn in native.names:
            if fqrn in request.pins:
                raise ConfigurationError(
                    f"{fqrn}: {request.pins[fqrn].value} was asked for, but the host "
                    "has the repository itself, at a revision of its own",
                    hint="hide what the host has with --replace-native",
                )
            log.detail("%s: the host has it at %s", fqrn, mountpoint_of(fqrn))
    return native


def _keep_mounted(native: NativeTree) -> tuple[int, ...]:
    if not native.is_automounted:
        return ()
    from cvmfsexec.namespaces.native import keep_mounted

    return keep_mounted(native)


def _run_in_best_mode(attempt: "_Attempt") -> int:
    """Run with mounts in namespaces, or if these are refused with those of the host."""
    try:
        return attempt.run(tries_fuse=not attempt.request.mode)
    except NamespaceError as error:
        from cvmfsexec.namespaces import hints

        if attempt.request.mode or not hints.is_about_fuse(error):
            error.hint = _with_mount_command(error.hint, attempt.request)
            raise
        refusal = error
    log.detail("mode 3 is not possible (%s); going on in mode 2", refusal)
    try:
        return attempt.run_with_host_mounts()
    except CvmfsError as error:
        if attempt.exit_status_of(error) != attempt.exit_status_of(refusal):
            raise
        raise NamespaceError(
            f"{refusal} (mode 3); {error} (mode 2)",
            hint=error.hint or refusal.hint,
            errno=refusal.errno,
        ) from error


def _with_mount_command(hint: str, request: ExecRequest) -> str:
    """Say what can be done with ``fusermount`` alone, if it is there."""
    from cvmfsexec.namespaces.fusermount import find_helper

    if not request.needed or not find_helper(request.environment.get("PATH", "")):
        return hint
    advice = "mountrepo (mode 1) needs no namespaces, and mounts below dist/cvmfs"
    return f"{hint}; {advice}" if hint else advice


class _Attempt(NamedTuple):
    """A session that is tried in one mode or another.

    Attributes:
        request: What to run.
        root: Configuration, if there is any.
        exit_status_of: Status for an error.
        native: What is kept of the host's own directory.
        image: A scratch image, locked.
    """

    request: ExecRequest
    root: ConfigurationRoot | None
    exit_status_of: ExitStatusOf
    native: NativeTree
    image: "ScratchImage | None" = None

    def with_image(self) -> "_Attempt":
        """Return the same with the scratch image; what is cached is cached there."""
        from cvmfsexec.namespaces.scratch_image import MOUNTPOINT, take_image

        request, root = self.request, self.root
        image = take_image(request.image, request.environment.get("PATH", ""))
        if root is not None:
            place = root.scratch_cache or f"{MOUNTPOINT}/cvmfscache"
            root = root._replace(scratch_cache=place)
        return self._replace(root=root, image=image)

    def run(self, *, tries_fuse: bool = False) -> int:
        """Run it with mounts in its own namespaces (mode 3).

        Args:
            tries_fuse: If something can be mounted later, find out now whether the
                kernel allows it.
        """
        services = self._services()
        if self.request.is_on_demand:
            services = (self._on_demand(), *services)
        interface = self._interface()
        can_mount = interface is not None and self.root is not None
        plan = self._plan(services)._replace(
            services=services, interface=interface, tries_fuse=tries_fuse and can_mount
        )
        self._tell(plan)
        return run_session(plan)

    def run_with_host_mounts(self) -> int:
        """Run it with mounts of the host (mode 2)."""
        if self.request.is_on_demand:
            raise NamespaceError("--on-demand is only possible in mode 3")
        if self.image is not None:
            raise NamespaceError("a scratch image is only possible in mode 3")
        if self.root is None or not (self._missing or self.request.has_interface):
            return self.run()
        from cvmfsexec.host_session import HostWay

        try:
            way = HostWay.prepare(self.root, self.request.environment)
        except CvmfsError as error:
            if self._missing or self.request.mode:
                raise
            log.detail("mode 2 is not possible (%s); nothing can be mounted", error)
            return self.run()
        try:
            return self._run_with(way)
        finally:
            way.end()

    def _run_with(self, way: "HostWay") -> int:
        way.place.make_mountpoints(self._missing)
        services = self._services(way)
        inner, outer = self._interfaces(way)
        shown = {name: mountpoint_of(name) for name in self._missing}
        plan = self._plan(services)._replace(
            host_mounts=way.mounts(shown), interface=inner
        )
        self._tell(plan)
        return run_session(plan, way.side(services, outer))

    @property
    def _missing(self) -> tuple[str, ...]:
        """Repositories that the host does not have."""
        present = self.native.names
        return tuple(fqrn for fqrn in self.request.needed if fqrn not in present)

    def _plan(self, services: tuple[Service, ...]) -> SessionPlan:
        return SessionPlan(
            command=self.request.command,
            environment=self.request.environment,
            cwd=self.request.cwd,
            mountpoints=tuple(
                mountpoint_of(one.name) for one in services if one.name != _ON_DEMAND
            ),
            native=self.native,
            name=self.request.name,
            binds=self.request.binds,
            image=self.image,
            status_out=self.request.status_out,
        )

    def _tell(self, plan: SessionPlan) -> None:
        if self.root is not None:
            log.detail("the configuration is %s", self.root.etc)
        if log.is_debugging():
            for step in plan.describe():
                log.debug("plan: %s", step)
        gc.freeze()  # what is here now is shared by all, as long as none looks
        gc.enable()

    def _services(self, way: "HostWay | None" = None) -> tuple[Service, ...]:
        """Return the file servers for what is needed and not present."""
        if self.root is None or not self._missing:
            return ()
        # Imported once, before the forks: it takes half of the time to the first file.
        import cvmfsexec.file_server  # noqa: F401

        # Who asks for others can perhaps do without the one that configures.
        wanted = self.request.repositories
        first = self.request.configuration_repository
        optional = {first} - set(wanted) if wanted else ()
        return tuple(
            self._service(fqrn, way, can_be_absent=fqrn in optional)
            for fqrn in self._missing
        )

    def _service(
        self, fqrn: str, way: "HostWay | None" = None, *, can_be_absent: bool = False
    ) -> Service:
        """Return the file server for one repository; nothing is imported for it yet."""
        place_of = mountpoint_of if way is None else way.place.mountpoint
        first = self.request.configuration_repository
        is_configured = bool(first) and fqrn != first
        is_after = is_configured and first not in self.native.names
        directory = place_of(first) if is_after else mountpoint_of(first)
        place = _Place(
            place_of(fqrn),
            directory if is_configured else None,
            can_be_absent,
            self.request.pins.get(fqrn),
        )
        return Service(
            fqrn,
            partial(self._serve, fqrn, place, way),
            self._after(first if is_after else ""),
            place_of(fqrn),
            takes_leave=self._is_recorded,
        )

    @property
    def _is_recorded(self) -> bool:
        """Whether file servers append what they count; the original client does not."""
        is_ours = self.root is not None and not self.root.wants_original_client
        return is_ours and self.request.recording >= 0

    def _after(self, first: str) -> tuple[str, ...]:
        names = (first, _ON_DEMAND if self.request.is_on_demand else "")
        return tuple(name for name in names if name)

    def _serve(
        self, fqrn: str, place: "_Place", way: "HostWay | None", channel: SessionChannel
    ) -> int:
        """Be a file server, in its own process."""
        from cvmfsexec.file_server import FileServer, Host, ServedRepository
        from cvmfsexec.namespaces.fuse_mount import mount_fuse

        request = self.request
        if self.root is None:
            error = ConfigurationError(
                "there is no configuration", hint="start the session with --dist"
            )
            channel.failed(
                f"{fqrn}: {error}", hint=error.hint, status=self.exit_status_of(error)
            )
            return 1
        host = Host(
            self.root, request.environment, request.uid, request.gid, way is None
        )
        mount = mount_fuse if way is None else way.mount_call
        repository = ServedRepository(fqrn, *place)
        recording = None
        if request.recording >= 0:
            from cvmfsexec.client.recording import Recording

            recording = Recording(request.recording, channel.wait_for_farewell)
        server = FileServer
        if self.root.wants_original_client:
            from cvmfsexec.original_client import OriginalServer as server  # noqa: N813
        return server(repository, host, self.exit_status_of, mount, recording).run(
            channel
        )

    def _on_demand(self) -> Service:
        """Return the server of the directory in which the others mount."""
        from cvmfsexec.on_demand import OnDemand

        server = OnDemand(MOUNT_DIRECTORY)
        return Service(_ON_DEMAND, server.run, may_request=True)

    # -- from inside ----------------------------------------------------------------

    def _interface(self) -> Interface | None:
        is_for_payload = self.request.has_interface
        if not is_for_payload and not self.request.is_on_demand:
            return None
        return Interface(self._services_for, self._complete_name, is_for_payload)

    def _interfaces(
        self, way: "HostWay"
    ) -> tuple[Interface, Interface] | tuple[None, None]:
        """Return what can be asked for in the session, and by it on the host."""
        if not self.request.has_interface:
            return None, None
        arrivals = way.arrivals()

        def arriving(fqrn: str) -> tuple[Service, ...]:
            return tuple(
                arrivals.service(name, mountpoint_of(name))
                for name in self._needed_for(fqrn)
            )

        mounting = partial(self._services_for, way=way)
        return (
            Interface(arriving, self._complete_name, points=arrivals),
            Interface(mounting, self._complete_name, points=way.points()),
        )

    def _services_for(
        self, fqrn: str, way: "HostWay | None" = None
    ) -> tuple[Service, ...]:
        """Return what has to be started for a repository that is asked for later."""
        return tuple(
            self._service(name, way, can_be_absent=name != fqrn)
            for name in self._needed_for(fqrn)
        )

    def _needed_for(self, fqrn: str) -> tuple[str, ...]:
        first = self.request.configuration_repository
        return tuple(dict.fromkeys((first or fqrn, fqrn)))

    def _complete_name(self, name: str, channel: SessionChannel) -> int:
        """Tell what a short name stands for, in a process of its own."""
        from cvmfsexec.configuration.evaluate import complete_name

        try:
            if self.root is None:
                raise ConfigurationError(f"{name} is not the full name of a repository")
            channel.named(complete_name(name, self.root, self.request.environment))
        except CvmfsError as error:
            status = self.exit_status_of(error)
            channel.failed(str(error), hint=error.hint, status=status)
        return 0


class _Place(NamedTuple):
    """The fields of a ``ServedRepository`` after its name."""

    mountpoint: str
    configuration_directory: str | None
    can_be_absent: bool
    pin: "Pin | None"
