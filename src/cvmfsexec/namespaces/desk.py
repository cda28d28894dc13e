"""Where requests from inside a session are heard, carried out and answered, by init.

In mode 2 the supervisor has another desk, at which init asks (``arrivals``).

A mount takes as long as the network does, and a desk waits for nobody: a file server is
started, and the requesters are answered when it has settled. Requests for the same
repository wait together. A few mounts are made at a time and the others stand in line,
so that a flood of names starts no flood of processes; who comes when the line is full
is turned away.
"""

import errno
import os
import signal
from collections import deque
from functools import partial

from cvmfsexec.errors import FormatError, NamespaceError
from cvmfsexec.namespaces import messages, requests
from cvmfsexec.namespaces.ears import Ears
from cvmfsexec.namespaces.messages import Message, Topic
from cvmfsexec.namespaces.mount_points import MountPoints
from cvmfsexec.namespaces.plan import Interface, Service
from cvmfsexec.namespaces.requests import Request, Requester, Verb
from cvmfsexec.namespaces.services import Services, Stage

STARTING_COUNT_MAX = 8
WAITING_COUNT_MAX = 256
_HEARD_AT_ONCE = 32
"""Requests between two looks at everything else that init has to heed."""


class Desk:
    """Requests of one session.

    Attributes:
        descriptors: Both ends of the channel, the directory of mount points, and the
            sockets of who waits: nobody's but init's, and one of them the payload's.
        inner: The end on which requests are made.
    """

    def __init__(
        self,
        interface: Interface,
        services: Services,
        native: frozenset[str],
        channel: tuple[int, int],
    ) -> None:
        """Begin; nothing is heard yet.

        Args:
            interface: What names stand for.
            services: Of the session.
            native: Names of what the host has mounted.
            channel: Where requests come and are made; see ``requests.make_channel``.
        """
        self._interface = interface
        self._services = services
        self._native = native
        self._points = interface.points or MountPoints()
        self._outer, self.inner = channel
        self._waiting: dict[str, list[tuple[Verb, Requester]]] = {}
        self._line: deque[tuple[Request, Requester]] = deque()
        self._is_line_moving = False

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What no other process may have."""
        ours = (self._outer, self.inner, *self._points.descriptors)
        waiting = [one for some in self._waiting.values() for _, one in some]
        waiting += [one for _, one in self._line]
        return (*ours, *(one.descriptor for one in waiting))

    def open(self, ears: Ears) -> None:
        """Hear requests from now on; what mount points need is there.

        Raises:
            NamespaceError: The kernel refused what mount points need.
        """
        self._points.open()
        ears.listen(self._outer, self._hear)

    def _hear(self) -> None:
        for _ in range(_HEARD_AT_ONCE):
            received = requests.receive(self._outer)
            if received is None:
                return
            data, requester = received
            if requester is not None:
                self._heed(data, requester)
        os.kill(os.getpid(), signal.SIGIO)  # there may be more, after all the others

    def _heed(self, data: bytes, requester: Requester) -> None:
        try:
            request = requests.parse_request(data)
        except FormatError as error:
            requester.answer(Message(Topic.FAILED, text=str(error)))
            return
        waiting = sum(map(len, self._waiting.values())) + len(self._line)
        if waiting >= WAITING_COUNT_MAX:
            text = f"{request.name}: too many requests wait already"
            requester.answer(requests.refusal(errno.EAGAIN, text))
            return
        self._take_up(request, requester)

    def _take_up(self, request: Request, requester: Requester) -> None:
        """Answer at once, start what is needed, or let it wait."""
        name = request.name
        stage = self._services.stage_of(name)
        is_short = "." not in name
        if request.verb is Verb.UNMOUNT and not is_short:
            requester.answer(self._unmount(name))
        elif name in self._waiting:
            self._waiting[name].append((request.verb, requester))
        elif is_short:
            complete = Service(name, partial(self._interface.complete_name, name))
            self._begin(request, requester, (complete,))
        elif stage is Stage.READY or name in self._native:
            requester.answer(Message(Topic.READY, name))
        else:
            self._begin(request, requester, self._interface.services_for(name))

    def _begin(
        self, request: Request, requester: Requester, needed: tuple[Service, ...]
    ) -> None:
        if len(self._waiting) >= STARTING_COUNT_MAX:
            self._line.append((request, requester))
            return
        name = request.name
        self._waiting[name] = [(request.verb, requester)]
        try:
            for one in needed:
                self._start(one)
        except (NamespaceError, OSError) as error:
            self._settle(needed[-1], messages.about_refusal(error))

    def _start(self, one: Service) -> None:
        if one.name in self._native:
            return
        if self._services.stage_of(one.name) in (Stage.STARTING, Stage.READY):
            return
        if one.mountpoint:
            self._points.make(one.mountpoint)
        self._services.start(one, partial(self._settle, one))

    def _settle(self, one: Service, message: Message) -> None:
        """Answer all who wait for one, and let the next in the line come."""
        if message.topic is not Topic.READY and one.mountpoint:
            self._points.clear(one.mountpoint)
        for verb, requester in self._waiting.pop(one.name, ()):
            if message.topic is Topic.NAMED:
                self._take_up(Request(verb, message.text), requester)
            elif message.topic is Topic.ABSENT:
                text = f"{one.name} cannot be mounted; the session has said why"
                requester.answer(Message(Topic.FAILED, one.name, text=text))
            else:
                requester.answer(message)
        self._let_next_come()

    def _let_next_come(self) -> None:
        if self._is_line_moving:
            return  # a start has failed at once; whoever moves the line goes on
        self._is_line_moving = True
        try:
            while self._line and len(self._waiting) < STARTING_COUNT_MAX:
                request, requester = self._line.popleft()
                if requester.is_gone:
                    requester.let_go()
                else:
                    self._take_up(request, requester)
        finally:
            self._is_line_moving = False

    def _unmount(self, name: str) -> Message:
        for one in self._services.ready():
            if one.name == name and one.mountpoint:
                break
        else:
            return requests.refusal(errno.EINVAL, f"{name} not mounted")
        try:
            self._points.unmount(one.mountpoint)
        except NamespaceError as error:
            return requests.refusal(error.errno, str(error))
        self._services.let_leave(name)
        return Message(Topic.READY, name)
