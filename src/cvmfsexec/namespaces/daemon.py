"""A file server in the background: it outlives the command that has started it.

It is forked twice, so that it belongs to nobody and has no terminal. It keeps nothing
of its starter's but standard error, and that only until it is ready. ``TERM`` ends it;
its ``keeper`` then takes the mount away, as after any other end.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from signal import Signals
from typing import NamedTuple, NoReturn

from cvmfsexec.errors import CvmfsError, ServiceFailedError, SessionError
from cvmfsexec.namespaces import descriptors, messages, signals, syscalls
from cvmfsexec.namespaces.keeper import start_keeper
from cvmfsexec.namespaces.messages import Mailbox, Message, Topic
from cvmfsexec.namespaces.plan import Service


class Daemon(NamedTuple):
    """A file server that is to go to the background.

    Attributes:
        service: What it does.
        clear_away: What its keeper does after its end, in another process.
        held: Descriptors that it keeps open until it is ready: locks.
    """

    service: Service
    clear_away: Callable[[], None]
    held: tuple[int, ...]


def start_daemon(daemon: Daemon) -> None:
    """Start a file server in the background, and return when its mount is there.

    If this process is interrupted meanwhile, the file server ends as well.

    Raises:
        ServiceFailedError: It could not start, in its own words.
        SessionError: It was killed before it was ready.
    """
    report_out, report = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(report_out)
        _become_starter(daemon, report)
    os.close(report)
    os.waitpid(pid, 0)
    try:
        _wait_until_ready(daemon.service.name, Mailbox(report_out))
    finally:
        os.close(report_out)


def _wait_until_ready(name: str, mailbox: Mailbox) -> None:
    founded = mailbox.receive()
    try:
        answer = mailbox.receive() if founded else None
    except BaseException:
        if founded:
            os.kill(founded.number, Signals.SIGTERM)
        raise
    if answer is None:
        raise SessionError(f"the file server of {name} was killed before it was ready")
    if answer.topic is not Topic.READY:
        raise ServiceFailedError(answer.text, hint=answer.hint, status=answer.number)


class _DaemonChannel:
    """The ``plan.SessionChannel`` of a file server in the background.

    Attributes:
        requests: There is no init to request anything from.
    """

    requests = -1

    def __init__(self, daemon: Daemon, report: int) -> None:
        self._name = daemon.service.name
        self._held = daemon.held
        self._report = report

    def wait_for_root(self) -> None:
        """The root is the host's, and stands."""

    def wait_for_dependencies(self) -> bool:
        """Whether all are ready: or this one would not have been started."""
        return True

    def ready(self, *, leaves: str = "") -> None:  # noqa: ARG002 -- it ends in order
        """Say that the mount answers, and let go of the starter."""
        syscalls.keep_capabilities()
        # Before the word, or a reader of the starter's output waits for us, too.
        os.dup2(descriptors.STANDARD_OUTPUT, descriptors.STANDARD_ERROR)
        descriptors.close_all(self._held)
        messages.send(self._report, Message(Topic.READY, self._name))
        os.close(self._report)
        self._report = -1

    def failed(self, message: str, *, hint: str = "", status: int = 0) -> None:
        """Say why there will be no mount; once there is one, nobody listens."""
        if self._report < 0:
            return
        failure = Message(Topic.FAILED, self._name, status, text=message, hint=hint)
        messages.send(self._report, failure)

    def wait_for_farewell(self, timeout_s: float) -> bool:
        """Nobody says it: there is no session."""
        time.sleep(timeout_s)
        return False

    def absent(self) -> None:
        """Nothing that is mounted alone can be done without."""
        self.failed(f"{self._name} is not available")

    def named(self, name: str) -> None:
        """Nobody asks."""

    def pass_on(self, answer: Message) -> None:
        """Nobody else does the work."""


def _become_starter(daemon: Daemon, report: int) -> NoReturn:
    try:
        os.setsid()
        if os.fork() == 0:  # whoever leads no session gets no terminal
            _become_daemon(daemon, report)
    except BaseException:  # noqa: BLE001 -- the border of a process
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(0)


def _become_daemon(daemon: Daemon, report: int) -> NoReturn:
    channel = _DaemonChannel(daemon, report)
    status = 1
    try:
        syscalls.set_process_name(f"cvmfs:{daemon.service.name}")
        messages.send(report, Message(Topic.FOUNDED, number=os.getpid()))
        descriptors.let_go(descriptors.find_inherited())
        os.chdir("/")
        signals.report_in_service(-1)
        signal.signal(Signals.SIGTERM, signal.SIG_DFL)
        start_keeper(daemon.clear_away, foreign=(report, *daemon.held))
        status = daemon.service.run(channel)
    except CvmfsError as error:
        channel.failed(str(error), hint=error.hint)
    except BaseException:  # noqa: BLE001 -- the border of a process
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status)
