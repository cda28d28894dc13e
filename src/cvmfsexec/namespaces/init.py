"""init: the first process of the namespaces, and the parent of all that runs in them.

It builds the private root, starts the services and, when all are ready, the payload.
Then it waits: for children that end, for signals to pass on, for what services say,
and for the supervisor to be gone. When the payload has ended, so does everything.

It is single-threaded and has one place to wait: ``sigwaitinfo``. Pipes and sockets are
made to announce themselves there by SIGIO (``ears``). Signals from the supervisor
arrive as bytes in a pipe, so that init knows them from signals sent to itself. The
same pipe is a lifeline: its end says that the supervisor is gone, whatever became of
it.
"""

import os
import signal
import sys
import time
from collections.abc import Iterator
from signal import Signals
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from cvmfsexec.errors import NamespaceError
from cvmfsexec.namespaces import (
    descendants,
    descriptors,
    messages,
    payload,
    requests,
    root,
    service,
    signals,
    syscalls,
)
from cvmfsexec.namespaces.desk import Desk
from cvmfsexec.namespaces.ears import Ears, announce_by_signal
from cvmfsexec.namespaces.isolation import Isolation
from cvmfsexec.namespaces.meeting import Card, Place, Reception
from cvmfsexec.namespaces.messages import Mailbox, Message, Topic
from cvmfsexec.namespaces.origin import Origin
from cvmfsexec.namespaces.plan import SessionPlan
from cvmfsexec.namespaces.services import Services

if TYPE_CHECKING:
    from cvmfsexec.namespaces.scratch_image import MountedImage

GO = b"\0"
"""First byte from the supervisor: the founder is gone, init is the supervisor's child.
All later bytes are numbers of signals."""

GRACE_S = 3.0
"""What a payload has between TERM and KILL after it has lost a file server: time to say
something, and less than the 5 to 30 seconds that batch systems themselves give."""

_AWAITED = signals.ENDING | {Signals.SIGCHLD, Signals.SIGIO}


class Assignment(NamedTuple):
    """What init is given by the supervisor.

    Attributes:
        place: The session's name.
        control: Pipe from the supervisor; ends with it.
        report: Pipe to the supervisor, for messages.
    """

    plan: SessionPlan
    origin: Origin
    isolation: Isolation
    place: Place
    control: int
    report: int


class _SupervisorGoneError(Exception):
    """There is nobody left to run a session for."""


def become_init(assignment: Assignment) -> NoReturn:
    """Be init, and end the session. Called in the first process of the namespaces."""
    verdict = Message(Topic.LOST, text="the session's init process failed")
    try:
        verdict = _run(_Init(assignment))
    except (NamespaceError, OSError) as error:
        verdict = messages.about_refusal(error)
    except _SupervisorGoneError:
        pass
    except BaseException:  # noqa: BLE001 -- the border of a process
        sys.excepthook(*sys.exc_info())
    finally:
        _end_session(assignment, verdict)


def _run(init: "_Init") -> Message:
    try:
        return init.run()
    finally:
        init.take_down()


def _end_session(assignment: Assignment, verdict: Message) -> NoReturn:
    try:
        messages.send(assignment.report, verdict)
        if assignment.isolation is Isolation.PROCESS_TREE:
            # Looking for them takes a descriptor, and the limit may have been reached.
            descriptors.close_all((assignment.control, assignment.report))
            descendants.end_all()
    finally:
        os._exit(0)  # in a pid namespace, this is the end of all that is left in it


class _Init:
    """The state of a session, from its foundation to its verdict."""

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        self._plan = assignment.plan
        self._pid = os.getpid()
        self._services = Services(self._wiring, assignment.origin, self._fail)
        self._ears = Ears()
        self._reception = Reception(assignment.place.listener, self._ears)
        self._desk = self._make_desk()
        self._image: MountedImage | None = None
        self._payload_pid = 0  # before its start
        self._payload_is_reaped = False
        self._has_handed_over = False  # the payload has ended, what it left goes on
        self._failure: Message | None = None
        self._verdict: Message | None = None
        self._parting: Message | None = None  # the verdict, when the guests have gone
        self._kill_at_s: float | None = None
        self._since_s = int(time.time())
        self._repeats = signals.RepeatFilter()
        incoming, self._messages = os.pipe()
        self._mailbox = Mailbox(incoming)
        self._requests, self._requests_in = os.pipe()
        os.set_blocking(self._requests_in, False)  # written to by signal handlers

    def run(self) -> Message:
        """Run the session, and return what became of it."""
        syscalls.set_process_name("cvmfsexec-init")
        signal.pthread_sigmask(signal.SIG_BLOCK, signals.JOB_CONTROL)
        has_pid_namespace = self._assignment.isolation is Isolation.PID_NAMESPACE
        if not has_pid_namespace:
            syscalls.set_child_subreaper(on=True)
        steps = self._plan.plan_root(
            root.read_entries(), has_new_proc=has_pid_namespace
        )
        root.perform(steps.foundation)
        messages.send(self._assignment.report, Message(Topic.SETTLED))
        for one in self._plan.services:
            self._services.start(one)
        root.perform(steps.building)
        self._hang_on_supervisor()
        self._mount_image()
        if self._desk is not None:
            self._desk.open(self._ears)
        self._services.note_root()
        return self._wait_for_verdict()

    def take_down(self) -> None:
        """Unmount what must not be cut off by the end of the namespaces."""
        self._services.clear_away()
        if self._image is not None:
            self._image.unmount()

    # -- starting -------------------------------------------------------------------

    def _mount_image(self) -> None:
        if self._plan.image is not None:
            from cvmfsexec.namespaces.scratch_image import MountedImage

            self._image = MountedImage(self._plan.image)

    def _make_desk(self) -> Desk | None:
        interface = self._plan.interface
        if interface is None:
            return None
        for one in self._plan.host_mounts:
            self._services.adopt(interface.services_for(one.name)[-1])
        channel = requests.make_channel(requests.DESCRIPTOR_WANTED)
        return Desk(interface, self._services, self._plan.native.names, channel)

    def _wiring(self) -> service.Wiring:
        return service.Wiring(
            init_pid=self._pid,
            messages=self._messages,
            requests=self._requests_in,
            events=-1,
            channel=self._desk.inner if self._desk is not None else -1,
            foreign=(
                self._mailbox.descriptor,
                self._requests,
                self._assignment.control,
                self._assignment.report,
                self._assignment.place.listener,
                *self._ears.descriptors,
                *(self._desk.descriptors if self._desk is not None else ()),
            ),
        )

    def _hang_on_supervisor(self) -> None:
        """End with the supervisor from now on."""
        if not os.read(self._assignment.control, 1):
            raise _SupervisorGoneError
        if self._assignment.isolation is Isolation.PID_NAMESPACE:
            syscalls.set_parent_death_signal(signal.SIGKILL)
        # Without a pid namespace init must live on to kill the others: the end of the
        # lifeline tells it to. With it, this look is for a death before the line above.
        announce_by_signal(self._mailbox.descriptor)
        self._ears.listen(self._assignment.control, self._heed_supervisor)
        self._ears.listen(self._requests, self._heed_services)
        self._look_round()

    def _start_payload(self) -> None:
        origin = self._assignment.origin
        root.perform(root.plan_binds(self._plan.binds))
        self._payload_pid = os.fork()
        if self._payload_pid == 0:
            interface = self._plan.interface
            is_offered = interface is not None and interface.is_for_payload
            channel = self._desk.inner if self._desk and is_offered else -1
            payload.become_payload(
                self._plan, origin, self._pid, self._messages, channel
            )
        # The payload stays in the supervisor's process group, which a terminal may
        # have in the foreground; only now may init leave that group. It leaves the
        # terminal's session too: as a parent in the same session but another group, it
        # would keep the kernel from ending a stopped job whose shell has died.
        os.setsid()
        descriptors.let_go(origin.inherited)

    # -- waiting --------------------------------------------------------------------

    def _wait_for_verdict(self) -> Message:
        while self._verdict is None:
            if not self._payload_pid and self._services.is_complete:
                self._start_payload()
            self._wait_for_event()
        return self._verdict

    def _wait_for_event(self) -> None:
        timeout_s = None
        if self._kill_at_s is not None:
            timeout_s = self._kill_at_s - time.monotonic()
        info = signals.wait_for(_AWAITED, timeout_s)
        if info is None:
            self._signal_payload(Signals.SIGKILL)
            self._kill_at_s = None
            self._verdict = self._verdict or self._parting
        elif info.si_signo in (Signals.SIGCHLD, Signals.SIGIO):
            self._look_round()
        elif info.si_code != signals.SI_KERNEL or not self._payload_pid:
            self._pass_on(info.si_signo, signals.Source.INIT)

    def _look_round(self) -> None:
        # Children first: whatever an ended one has said is then there to be read.
        ended = dict(_reap())
        payload_status = ended.pop(self._payload_pid, None)
        self._payload_is_reaped |= payload_status is not None
        for message in self._mailbox.drain():
            self._heed(message)
        # If both have ended, the payload had its file servers to its end.
        if payload_status is not None:
            self._note_end_of_payload(payload_status)
        for pid, wait_status in ended.items():
            self._services.note_end(pid, wait_status)
        if self._has_handed_over and not self._has_left_any():
            self._part(Message(Topic.ENDED, number=0))
        self._ears.heed()
        if self._parting is not None and not self._reception.has_guests:
            self._services.say_goodbye()
            if not self._services.leaving_pids:
                self._verdict = self._verdict or self._parting

    def _heed_supervisor(self) -> None:
        for number in _drain(self._assignment.control):
            self._pass_on(number, signals.Source.SUPERVISOR)

    def _heed_services(self) -> None:
        for number in _drain(self._requests):
            if number in signals.ENDING:
                self._pass_on(number, signals.Source.SERVICE)

    # -- deciding -------------------------------------------------------------------

    def _pass_on(self, number: int, source: signals.Source) -> None:
        if self._verdict is not None or self._repeats.is_repeat(number, source):
            return
        if self._payload_pid and not self._has_handed_over:
            self._signal_payload(number)
        elif number in signals.ENDING:
            status = payload.SIGNALLED + number
            self._verdict = Message(Topic.ENDED, number=status)

    def _signal_payload(self, number: int) -> None:
        if not self._payload_is_reaped:  # or its pid could be another's by now
            os.kill(self._payload_pid, number)

    def _heed(self, message: Message) -> None:
        if message.topic is Topic.REFUSED:  # by the payload's process
            self._verdict = message
        elif message.topic is Topic.STARTED:
            self._reception.open(
                self._card,
                self._payload_pid,
                outlasts_payload=self._plan.outlasts_command,
            )
        else:
            self._services.heed(message)

    def _note_end_of_payload(self, wait_status: int) -> None:
        status = payload.exit_status_of(wait_status)
        is_good = not (status or self._verdict or self._failure)
        self._has_handed_over = is_good and self._hand_over()
        if not self._has_handed_over:
            self._part(Message(Topic.ENDED, number=status))

    def _hand_over(self) -> bool:
        """Tell that the command has succeeded, if anybody still waits for that."""
        if not self._plan.outlasts_command:
            return False
        try:
            os.write(self._plan.status_out, b"\0")
        except BrokenPipeError:
            return False
        os.close(self._plan.status_out)
        return True

    def _has_left_any(self) -> bool:
        """Whether there are processes that the command has left."""
        ours = {*self._services.pids, self._image.pid if self._image else 0}
        return not ours.issuperset(descendants.list_children())

    def _part(self, ended: Message) -> None:
        """Let the session end."""
        self._has_handed_over = False
        self._parting = self._verdict or self._failure or ended
        # The last look round has seen who has gone; now those who are here learn of it.
        self._reception.say_goodbye()
        self._kill_at_s = time.monotonic() + GRACE_S

    def _card(self) -> Card:
        mountpoints = self._plan.mountpoints
        if self._desk is not None:  # which mounts and unmounts
            ready = (one.mountpoint for one in self._services.ready())
            mountpoints = tuple(filter(None, ready))
        return Card(
            self._assignment.place.name,
            self._since_s,
            self._assignment.isolation,
            " ".join(path.rpartition("/")[2] for path in mountpoints),
            " ".join(self._plan.command),
        )

    def _fail(self, failure: Message) -> None:
        if self._failure or self._verdict or self._parting:
            return
        self._failure = failure
        if self._payload_pid and not self._has_handed_over:
            self._signal_payload(Signals.SIGTERM)
            self._signal_payload(Signals.SIGCONT)
            self._kill_at_s = time.monotonic() + GRACE_S
        else:
            self._verdict = failure


def _reap() -> Iterator[tuple[int, int]]:
    while True:
        try:
            pid, wait_status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        yield pid, wait_status


def _drain(descriptor: int) -> bytes:
    """Return the bytes that have arrived; the end of the lifeline is an error."""
    received = b""
    try:
        while data := os.read(descriptor, 64):
            received += data
    except BlockingIOError:
        return received
    raise _SupervisorGoneError
