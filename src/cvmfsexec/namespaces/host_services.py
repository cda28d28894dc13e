"""File servers of a session that run on the host, because the session cannot mount.

They are children of the supervisor, started before there are namespaces, and mount by
``fusermount``. The session then shows their mounts at its own places. All else is as
with the services of init: they die with their parent, they pass on signals that are
meant for the payload, and the payload ends if one of them is lost. Others come later:
init asks for them at a desk that is the supervisor's (``arrivals``).
"""

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from signal import Signals
from typing import NamedTuple

from cvmfsexec.namespaces import descriptors, service, signals
from cvmfsexec.namespaces.desk import Desk
from cvmfsexec.namespaces.ears import Ears, announce_by_signal
from cvmfsexec.namespaces.init import GRACE_S
from cvmfsexec.namespaces.messages import Mailbox, Message, Topic
from cvmfsexec.namespaces.origin import Origin
from cvmfsexec.namespaces.payload import SIGNALLED
from cvmfsexec.namespaces.plan import Interface, Service
from cvmfsexec.namespaces.services import Services

_AWAITED = signals.ENDING | {Signals.SIGCHLD, Signals.SIGIO}


class HostSide(NamedTuple):
    """What a session needs on the host.

    Attributes:
        services: File servers, in the order in which they are started.
        clear_away: Takes their mounts away, alive or dead, and what was made for them.
            Called by the supervisor, and by its keeper; never raises.
        channel: Where init asks for more, and its requests are heard.
        interface: What it can ask for, if anything.
    """

    services: tuple[Service, ...]
    clear_away: Callable[[], None]
    channel: tuple[int, int]
    interface: Interface | None = None


class HostServices:
    """The file servers on the host, as the supervisor has them.

    Attributes:
        failure: Why the session must end, if it must.
    """

    def __init__(self, host: HostSide, origin: Origin, native: frozenset[str]) -> None:
        """Begin without any; the session's signals are blocked.

        Args:
            host: What there is to start, and can be asked for.
            origin: The user's process.
            native: Names of what the host has mounted.
        """
        self._host = host
        self._origin = origin
        self._services = Services(self._wiring, origin, self._fail)
        self._ears = Ears()
        incoming, self._messages = os.pipe()
        self._mailbox = Mailbox(incoming)
        self._requests, self._requests_in = os.pipe()
        os.set_blocking(self._requests_in, False)
        self._foreign: tuple[int, ...] = (*host.channel, incoming, self._requests)
        self._desk: Desk | None = None
        if host.interface is not None:
            self._desk = Desk(host.interface, self._services, native, host.channel)
        self._signal_payload: Callable[[int], None] = self._note_signal
        self._kill_at_s: float | None = None
        self._repeats = signals.RepeatFilter()
        self.failure: Message | None = None

    @property
    def ready_names(self) -> frozenset[str]:
        """Names of those whose mounts are there."""
        return frozenset(one.name for one in self._services.ready())

    @property
    def time_left_s(self) -> float | None:
        """Until the payload is to be killed; ``None`` for ever."""
        if self._kill_at_s is None:
            return None
        return self._kill_at_s - time.monotonic()

    def start(self) -> Message | None:
        """Start the first ones, and wait until they are ready.

        Returns:
            What to conclude with instead of a session; ``None`` if all is well.
        """
        announce_by_signal(self._mailbox.descriptor)
        self._ears.listen(self._requests, self._heed_requests)
        for one in self._host.services:
            self._services.start(one)
        self._services.note_root()
        awaited = _AWAITED - self._origin.signals.ignored
        while self.failure is None and not self._services.is_complete:
            info = signal.sigwaitinfo(awaited)
            if info.si_signo in (Signals.SIGCHLD, Signals.SIGIO):
                self.look_round()
            else:
                self._note_signal(info.si_signo)
        return self.failure

    def watch_for(
        self, signal_payload: Callable[[int], None], foreign: tuple[int, ...]
    ) -> None:
        """Have a session from now on, whose payload ends with any of the services.

        Args:
            signal_payload: Passes a signal on.
            foreign: The supervisor's descriptors, which no file server may have.
        """
        self._signal_payload = signal_payload
        self._foreign += foreign
        if self._desk is not None:
            self._desk.open(self._ears)
        if self.failure is not None:  # since ``start``
            self._begin_end()

    def look_round(self) -> None:
        """See who has ended, and what was said."""
        ended = []
        for pid in self._services.pids:
            with suppress(ChildProcessError):
                ended.append(os.waitpid(pid, os.WNOHANG))
        for message in self._mailbox.drain():
            self._services.heed(message)
        for pid, wait_status in ended:
            if pid:
                self._services.note_end(pid, wait_status)
        self._ears.heed()

    def lose_patience(self) -> None:
        """Kill the payload; it has had its time."""
        self._kill_at_s = None
        self._signal_payload(Signals.SIGKILL)

    def is_repeat(self, number: int) -> bool:
        """Whether a signal to the supervisor was sent to file servers as well."""
        return self._repeats.is_repeat(number, signals.Source.SUPERVISOR)

    def end(self) -> None:
        """Let go who takes leave, and kill all others: they have nothing to save."""
        self._let_leave()
        self._services.clear_away()
        for pid in self._services.pids:
            with suppress(ProcessLookupError):
                os.kill(pid, Signals.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)
        descriptors.close_all(
            (
                self._mailbox.descriptor,
                self._messages,
                self._requests,
                self._requests_in,
            )
        )
        # What was announced and is not wanted any more would kill us unblocked.
        while signal.sigtimedwait({Signals.SIGIO}, 0):
            pass

    def _let_leave(self) -> None:
        self._services.say_goodbye()
        deadline_s = time.monotonic() + GRACE_S
        for pid in self._services.leaving_pids:
            while True:
                ended, wait_status = os.waitpid(pid, os.WNOHANG)
                left_s = deadline_s - time.monotonic()
                if ended:
                    self._services.note_end(pid, wait_status)
                if ended or left_s <= 0:
                    break
                signal.sigtimedwait({Signals.SIGCHLD}, left_s)

    def _wiring(self) -> service.Wiring:
        return service.Wiring(
            init_pid=os.getpid(),
            messages=self._messages,
            requests=self._requests_in,
            events=-1,
            foreign=(
                *self._foreign,
                *(self._desk.descriptors if self._desk is not None else ()),
            ),
            is_on_host=True,
        )

    def _heed_requests(self) -> None:
        with suppress(BlockingIOError):
            for number in os.read(self._requests, 64):
                source = signals.Source.SERVICE
                is_repeat = self._repeats.is_repeat(number, source)
                if number in signals.ENDING and not is_repeat:
                    self._signal_payload(number)

    def _note_signal(self, number: int) -> None:
        """There is no payload yet; so this is the end."""
        ended = Message(Topic.ENDED, number=SIGNALLED + number)
        self.failure = self.failure or ended

    def _fail(self, failure: Message) -> None:
        if self.failure is None:
            self.failure = failure
            self._begin_end()

    def _begin_end(self) -> None:
        if self._signal_payload != self._note_signal:
            self._signal_payload(Signals.SIGTERM)
            self._signal_payload(Signals.SIGCONT)
            self._kill_at_s = time.monotonic() + GRACE_S
