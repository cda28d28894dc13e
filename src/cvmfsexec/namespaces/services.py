"""The services of a session as init has them: started, ready, absent, ended.

Those of the plan come at the session's start, and the session fails with any of them.
Others come later, on request (``desk``). Until it is ready, a later one is its
requester's business alone; from then on it is like the first.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from enum import Enum

from cvmfsexec.namespaces import descriptors, messages, service, signals
from cvmfsexec.namespaces.messages import Message, Topic
from cvmfsexec.namespaces.origin import Origin
from cvmfsexec.namespaces.plan import Service

OnSettled = Callable[[Message], None]
"""Called once with READY, ABSENT or NAMED, or with FAILED or LOST and the reason."""


class Stage(Enum):
    """How far a service is."""

    STARTING = "starting"
    READY = "ready"
    ABSENT = "absent"  # the session does without it
    FAILED = "failed"  # it said so to its requester
    LEAVING = "leaving"  # its end is expected


class _Running:
    """A service that was started.

    Attributes:
        events: Pipe to its process, one byte for each event.
        on_settled: Who asked for it; ``None`` for a service of the plan.
        leaves: A file to be removed at the end of the session, or empty.
    """

    __slots__ = ("events", "leaves", "on_settled", "service", "stage")

    def __init__(self, one: Service, events: int, on_settled: OnSettled | None) -> None:
        self.service = one
        self.events = events
        self.on_settled = on_settled
        self.stage = Stage.STARTING
        self.leaves = ""

    def settle(self, stage: Stage, message: Message) -> None:
        self.stage = stage
        on_settled, self.on_settled = self.on_settled, None
        if on_settled is not None:
            on_settled(message)


class Services:
    """Starts services and knows how far each is."""

    def __init__(
        self,
        wiring: Callable[[], service.Wiring],
        origin: Origin,
        on_loss: Callable[[Message], None],
    ) -> None:
        """Begin without any.

        Args:
            wiring: How a process that is forked now is connected, without ``events``.
            origin: The user's process.
            on_loss: Called when the session cannot go on without one that is lost.
        """
        self._wiring = wiring
        self._origin = origin
        self._on_loss = on_loss
        self._by_pid: dict[int, _Running] = {}
        self._by_name: dict[str, _Running] = {}
        self._does_root_stand = False

    @property
    def pids(self) -> tuple[int, ...]:
        """Processes whose end was not noted yet."""
        return tuple(self._by_pid)

    @property
    def leaving_pids(self) -> tuple[int, ...]:
        """Processes of those that take leave and have not ended yet."""
        return tuple(
            pid
            for pid, running in self._by_pid.items()
            if running.service.takes_leave and running.stage is Stage.LEAVING
        )

    @property
    def is_complete(self) -> bool:
        """Whether none is still starting."""
        return all(
            running.stage is not Stage.STARTING for running in self._by_name.values()
        )

    def stage_of(self, name: str) -> Stage | None:
        """Return how far the latest service of a name is; ``None`` without one."""
        running = self._by_name.get(name)
        return running.stage if running else None

    def ready(self) -> Iterator[Service]:
        """Yield those that are in use, in the order of their starts."""
        for running in self._by_name.values():
            if running.stage is Stage.READY:
                yield running.service

    def start(self, one: Service, on_settled: OnSettled | None = None) -> None:
        """Start one.

        Args:
            one: What to start; none of this name is starting or ready.
            on_settled: Who asked for it; ``None`` for a service of the plan.
        """
        events_out, events = os.pipe()
        wiring = self._wiring()
        try:
            pid = os.fork()
        except OSError:
            descriptors.close_all((events_out, events))
            raise
        if pid == 0:
            others = (running.events for running in self._by_pid.values())
            foreign = (*wiring.foreign, events, *others)
            if one.may_request:
                foreign = tuple(fd for fd in foreign if fd != wiring.channel)
            else:
                wiring = wiring._replace(channel=-1)
            wiring = wiring._replace(events=events_out, foreign=foreign)
            origin = self._origin
            if on_settled is not None:
                # init has let go of those, and their numbers are others' by now.
                origin = origin._replace(inherited=())
            service.become_service(one, wiring, origin)
        os.close(events_out)
        running = _Running(one, events, on_settled)
        self._by_pid[pid] = running
        self._by_name.pop(one.name, None)
        self._by_name[one.name] = running
        if self._does_root_stand:
            messages.send_bytes(events, service.ROOT_STANDS)
            self._tell_dependents()

    def adopt(self, one: Service) -> None:
        """Have one that is ready, and no process of ours."""
        running = _Running(one, -1, None)
        running.stage = Stage.READY
        self._by_name[one.name] = running

    def note_root(self) -> None:
        """Tell all that the private root stands."""
        self._does_root_stand = True
        for running in self._by_pid.values():
            messages.send_bytes(running.events, service.ROOT_STANDS)
        self._tell_dependents()

    def let_leave(self, name: str) -> None:
        """Expect the end of one whose mount was taken away."""
        self._by_name.pop(name).stage = Stage.LEAVING

    def say_goodbye(self) -> None:
        """Tell those that take leave of the session's end."""
        for running in self._by_pid.values():
            if running.service.takes_leave and running.stage is Stage.READY:
                running.stage = Stage.LEAVING
                messages.send_bytes(running.events, service.FAREWELL)

    def clear_away(self) -> None:
        """Remove what the services leave behind when they are killed."""
        for running in self._by_pid.values():
            _clear_away(running)

    def heed(self, message: Message) -> None:
        """Take note of what a service says."""
        running = self._by_name.get(message.sender)
        if running is None or running.stage not in (Stage.STARTING, Stage.READY):
            return
        if message.topic is Topic.READY:
            running.leaves = message.text
            running.settle(Stage.READY, message)
        elif message.topic in (Topic.ABSENT, Topic.NAMED):
            running.settle(Stage.ABSENT, message)
        elif running.on_settled is None:
            self._on_loss(message)
        else:
            running.settle(Stage.FAILED, message)
        self._tell_dependents()

    def note_end(self, pid: int, wait_status: int) -> None:
        """Take note of the end of a process, which may be none of ours."""
        running = self._by_pid.pop(pid, None)
        if running is None:
            return
        os.close(running.events)
        _clear_away(running)
        name = running.service.name
        how = signals.describe_end(wait_status)
        lost = Message(Topic.LOST, name, text=f"the file server of {name} {how}")
        if running.stage is Stage.STARTING and running.on_settled is not None:
            running.settle(Stage.FAILED, lost)
            self._tell_dependents()
        elif running.stage is Stage.STARTING or (
            running.stage is Stage.READY and not running.service.is_brief
        ):
            self._on_loss(lost)

    def _tell_dependents(self) -> None:
        by_name = self._by_name.items()
        ready = {name for name, one in by_name if one.stage is Stage.READY}
        starting = {name for name, one in by_name if one.stage is Stage.STARTING}
        for running in self._by_pid.values():
            after = running.service.after
            if running.stage is not Stage.STARTING:
                continue
            if ready.issuperset(after):
                messages.send_bytes(running.events, service.DEPENDENCIES_READY)
            elif starting.isdisjoint(after):
                messages.send_bytes(running.events, service.DEPENDENCY_ABSENT)


def _clear_away(running: _Running) -> None:
    if running.leaves:
        with suppress(OSError):
            os.unlink(running.leaves)
