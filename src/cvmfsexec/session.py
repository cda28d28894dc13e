"""One command with its repositories: file servers, namespaces, and the payload.

Nothing here starts a thread: the kernel makes user namespaces only for processes that
have a single one.
"""

import gc
from collections.abc import Callable, Mapping
from typing import NamedTuple

from cvmfsexec import log
from cvmfsexec.configuration.locate import ConfigurationRoot
from cvmfsexec.errors import CvmfsError
from cvmfsexec.namespaces.plan import Service, SessionPlan
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
    services = () if root is None else _services(request, root, exit_status_of)
    plan = SessionPlan(
        command=request.command,
        environment=request.environment,
        cwd=request.cwd,
        services=services,
        mountpoints=tuple(mountpoint_of(service.name) for service in services),
    )
    _tell(plan, root)
    gc.freeze()  # what is here now is shared by all processes, as long as none looks
    gc.enable()
    return run_session(plan)


def mountpoint_of(fqrn: str) -> str:
    """Return where a repository appears."""
    return f"{MOUNT_DIRECTORY}/{fqrn}"


def _tell(plan: SessionPlan, root: ConfigurationRoot | None) -> None:
    if root is not None:
        log.detail("the configuration is %s", root.etc)
    if log.is_debugging():
        for step in plan.describe():
            log.debug("plan: %s", step)


def _services(
    request: ExecRequest, root: ConfigurationRoot, exit_status_of: ExitStatusOf
) -> tuple[Service, ...]:
    first = request.configuration_repository
    names = dict.fromkeys(
        (first, *request.repositories) if first else request.repositories
    )
    if not names:
        return ()
    # Imported once, before the forks: it takes half of the time to the first file.
    from cvmfsexec.file_server import FileServer, Host, ServedRepository

    host = Host(root, request.environment, request.uid, request.gid)
    # Who asks for other repositories can perhaps do without the one that configures.
    can_be_absent = {first} - set(request.repositories) if request.repositories else ()
    services = []
    for fqrn in names:
        after = (first,) if first and fqrn != first else ()
        repository = ServedRepository(
            fqrn,
            mountpoint_of(fqrn),
            mountpoint_of(first) if after else None,
            can_be_absent=fqrn in can_be_absent,
        )
        server = FileServer(repository, host, exit_status_of)
        services.append(Service(fqrn, server.run, after))
    return tuple(services)
