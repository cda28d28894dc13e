"""What init listens to besides its children: pipes and sockets, each with a handler.

init has one thread and one place to wait, ``sigwaitinfo``. A descriptor announces
itself there by SIGIO when something arrives in it, or its other end goes away. The
signal is not queued and does not say which descriptor it was. So each time every
handler is called, in the order in which they came. A handler takes all that there is
and never waits: its descriptor is non-blocking, and nothing to be read is no error.

What init listens to is closed in every process that it forks
(``Ears.descriptors``). The flags are those of the open file: whoever shares it through
``fork`` has a non-blocking one, too.
"""

import fcntl
import os
from collections.abc import Callable

Handler = Callable[[], None]


class Ears:
    """Descriptors that announce themselves by SIGIO, which init has blocked."""

    def __init__(self) -> None:
        """Begin without any."""
        self._handlers: dict[int, Handler] = {}

    @property
    def descriptors(self) -> tuple[int, ...]:
        """All that is listened to."""
        return tuple(self._handlers)

    def listen(self, descriptor: int, handler: Handler) -> None:
        """Call a handler whenever something may have arrived, from now on.

        What arrived before does not announce itself: who adds an ear after the start
        calls the handler once.

        Args:
            descriptor: A pipe or a socket.
            handler: Runs in init's only thread, between any two other events.
        """
        announce_by_signal(descriptor)
        self._handlers[descriptor] = handler

    def forget(self, descriptor: int) -> None:
        """Listen no more; whoever owns the descriptor closes it."""
        self._handlers.pop(descriptor, None)

    def heed(self) -> None:
        """Call every handler; one that was forgotten by another is left out."""
        for descriptor, handler in tuple(self._handlers.items()):
            if self._handlers.get(descriptor) is handler:
                handler()


def announce_by_signal(descriptor: int) -> None:
    """Let the kernel send SIGIO when something arrives, or the other end is closed."""
    fcntl.fcntl(descriptor, fcntl.F_SETOWN, os.getpid())
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_NONBLOCK | fcntl.FASYNC)
