"""One command with its repositories: file servers, namespaces, and the payload.

Nothing here starts a thread: the kernel makes user namespaces only for processes that
have a single one.
"""

import gc
import os
from collections.abc import Callable, Mapping
from typing import NamedTuple

from cvmfsexec import log
from cvmfsexec.configuration.locate import ConfigurationRoot
from cvmfsexec.errors import CvmfsError
from cvmfsexec.namespaces.plan import Service, SessionPlan
from cvmfsexec.namespaces.root import NO_NATIVE, NativeTree
from cvmfsexec.namespaces.supervisor import run_session

MOUNT_DIRECTORY = "/cvmfs"

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
    """

    repositories: tuple[str, ...]
    configuration_repository: str
    command: tuple[str, ...]
    cwd: str
    environment: Mapping[str, str]
    uid: int
    gid: int
    replaces_native: bool = False

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
    services: tuple[Service, ...] = ()
    if root is not None:
        services = _services(request, root, exit_status_of, native.names)
    plan = SessionPlan(
        command=request.command,
        environment=request.environment,
        cwd=request.cwd,
        services=services,
        mountpoints=tuple(mountpoint_of(service.name) for service in services),
        native=native,
    )
    _tell(plan, root)
    gc.freeze()  # what is here now is shared by all processes, as long as none looks
    gc.enable()
    try:
        return run_session(plan)
    finally:
        for descriptor in kept:
            os.close(descriptor)


def mountpoint_of(fqrn: str) -> str:
    """Return where a repository appears."""
    return f"{MOUNT_DIRECTORY}/{fqrn}"


def _native(request: ExecRequest) -> NativeTree:
    """Return what is kept of the host's own directory; most hosts have none."""
    if request.replaces_native or not os.path.lexists(MOUNT_DIRECTORY):
        return NO_NATIVE
    from cvmfsexec.namespaces.native import read_native

    native = read_native(MOUNT_DIRECTORY, request.needed)
    for fqrn in request.needed:
        if fqrn in native.names:
            log.detail("%s: the host has it at %s", fqrn, mountpoint_of(fqrn))
    return native


def _keep_mounted(native: NativeTree) -> tuple[int, ...]:
    if not native.is_automounted:
        return ()
    from cvmfsexec.namespaces.native import keep_mounted

    return keep_mounted(native)


def _tell(plan: SessionPlan, root: ConfigurationRoot | None) -> None:
    if root is not None:
        log.detail("the configuration is %s", root.etc)
    if log.is_debugging():
        for step in plan.describe():
            log.debug("plan: %s", step)


def _services(
    request: ExecRequest,
    root: ConfigurationRoot,
    exit_status_of: ExitStatusOf,
    present: frozenset[str],
) -> tuple[Service, ...]:
    """Return the file servers for what is needed and not present."""
    names = [fqrn for fqrn in request.needed if fqrn not in present]
    if not names:
        return ()
    # Imported once, before the forks: it takes half of the time to the first file.
    from cvmfsexec.file_server import FileServer, Host, ServedRepository

    host = Host(root, request.environment, request.uid, request.gid)
    first = request.configuration_repository
    # Who asks for other repositories can perhaps do without the one that configures.
    can_be_absent = {first} - set(request.repositories) if request.repositories else ()
    services = []
    for fqrn in names:
        is_configured = bool(first) and fqrn != first
        repository = ServedRepository(
            fqrn,
            mountpoint_of(fqrn),
            mountpoint_of(first) if is_configured else None,
            can_be_absent=fqrn in can_be_absent,
        )
        server = FileServer(repository, host, exit_status_of)
        after = (first,) if is_configured and first not in present else ()
        services.append(Service(fqrn, server.run, after))
    return tuple(services)
