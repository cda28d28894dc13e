"""A service's own process: from the fork to the end of its ``run``."""

import os
import signal
import sys
from typing import NamedTuple, NoReturn

from cvmfsexec.errors import CvmfsError
from cvmfsexec.namespaces import descriptors, messages, signals, steps, syscalls
from cvmfsexec.namespaces.messages import Message, Topic
from cvmfsexec.namespaces.origin import Origin
from cvmfsexec.namespaces.plan import Service

ROOT_STANDS = b"r"
DEPENDENCIES_READY = b"d"
DEPENDENCY_ABSENT = b"a"
FAREWELL = b"f"


class Wiring(NamedTuple):
    """How a service's process is connected with init.

    Attributes:
        init_pid: Its parent.
        messages: Pipe to init for messages.
        requests: Pipe to init for the numbers of signals.
        events: Pipe from init, one byte for each event.
        foreign: Descriptors of init and of other services, to be closed.
        channel: Where requests can be made; -1 for nowhere.
        is_on_host: It is in no namespace of the session, and the supervisor's child.
    """

    init_pid: int
    messages: int
    requests: int
    events: int
    foreign: tuple[int, ...]
    channel: int = -1
    is_on_host: bool = False


class PipeChannel:
    """The ``plan.ServiceChannel`` of a service in its own process."""

    def __init__(self, service: Service, wiring: Wiring) -> None:
        self._name = service.name
        self._wiring = wiring
        self._happened = b"" if service.after else DEPENDENCIES_READY

    @property
    def requests(self) -> int:
        """Where to request from init; -1 for nowhere."""
        return self._wiring.channel

    def wait_for_root(self) -> None:
        """Wait until the private root stands, and have it for a root."""
        self._wait_for(ROOT_STANDS)
        if self._wiring.is_on_host:
            return
        steps.enter_stacked_root()

    def wait_for_dependencies(self) -> bool:
        """Wait for the services that this one comes after; whether all are ready."""
        self._wait_for(DEPENDENCIES_READY, DEPENDENCY_ABSENT)
        return DEPENDENCY_ABSENT not in self._happened

    def ready(self, *, leaves: str = "") -> None:
        """Say that the mount answers; the last privileges are given up with it."""
        syscalls.keep_capabilities()
        message = Message(Topic.READY, self._name, text=leaves)
        messages.send(self._wiring.messages, message)

    def failed(self, message: str, *, hint: str = "", status: int = 0) -> None:
        """Say why there will be no service."""
        failure = Message(Topic.FAILED, self._name, status, text=message, hint=hint)
        messages.send(self._wiring.messages, failure)

    def absent(self) -> None:
        """Say that there will be no service, and that the session can do without."""
        messages.send(self._wiring.messages, Message(Topic.ABSENT, self._name))

    def named(self, name: str) -> None:
        """Say what a short name stands for."""
        message = Message(Topic.NAMED, self._name, text=name)
        messages.send(self._wiring.messages, message)

    def pass_on(self, answer: Message) -> None:
        """Say what another process has said."""
        messages.send(self._wiring.messages, answer._replace(sender=self._name))

    def wait_for_farewell(self, timeout_s: float) -> bool:
        """Wait for the session's end; whether it has come."""
        import select

        events = self._wiring.events
        if (
            FAREWELL not in self._happened
            and select.select([events], [], [], timeout_s)[0]
        ):
            self._hear()
        return FAREWELL in self._happened

    def _wait_for(self, *events: bytes) -> None:
        while not any(event in self._happened for event in events):
            self._hear()

    def _hear(self) -> None:
        happened = os.read(self._wiring.events, 8)
        if not happened:
            os._exit(1)  # init is gone, and nobody waits for a service any more
        self._happened += happened


def become_service(service: Service, wiring: Wiring, origin: Origin) -> NoReturn:
    """Be a service, and end with it. Called in a process that was just forked."""
    channel = PipeChannel(service, wiring)
    status = 1
    try:
        _settle(service.name, wiring, origin)
        status = service.run(channel)
    except CvmfsError as error:
        channel.failed(str(error), hint=error.hint)
    except BaseException:  # noqa: BLE001 -- the border of a process
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status)


def _settle(name: str, wiring: Wiring, origin: Origin) -> None:
    syscalls.set_process_name(f"cvmfs:{name}")
    descriptors.close_all(wiring.foreign)
    descriptors.let_go(origin.inherited)
    os.setsid()  # the terminal's keys are not meant for us
    os.chdir("/")  # the swap of roots takes this along
    # Root of the session could override the modes of the user's files, say of an
    # install directory that was made read-only on purpose. A service only mounts.
    if not wiring.is_on_host:  # there the helper must still be allowed to mount
        syscalls.keep_capabilities(syscalls.CAP_SYS_ADMIN, syscalls.CAP_SYS_CHROOT)
    signals.report_in_service(wiring.requests)
    syscalls.set_parent_death_signal(signal.SIGKILL)
    if os.getppid() != wiring.init_pid:
        os._exit(1)  # init ended before the line above
