"""Which signals the payload gets, from whom, and how it finds them set.

Facts about signals, as far as they matter here:

* A terminal sends INT, QUIT, WINCH and TSTP to every process of the foreground process
  group, and the payload is in it together with the supervisor. ``si_code`` is then
  SI_KERNEL, and passing the signal on would deliver it twice. HUP is different: when
  the line drops, the kernel tells only the leader of the terminal's session.
* A blocked signal is kept pending even if its disposition is to ignore it, and even in
  PID 1, to which unhandled signals are otherwise not delivered. So supervisor and init
  block what they wait for and never miss any.
* Batch systems may signal each process of a job. A file server or init that died of a
  polite signal would take the software away from a payload that is about to write
  its checkpoint. So they never die of one: what means "end" is passed to the payload,
  the rest is for the payload alone. Only KILL kills a part, and then everything ends.
* ``exec`` keeps ignored signals ignored and the mask as it is. Python ignores PIPE and
  XFSZ from its start and forgets how they were; like ``subprocess``, the payload gets
  their defaults. All else is as the user's process had it: what ``nohup`` ignored
  stays ignored.
"""

import os
import signal
import time
from collections.abc import Callable, Iterable
from enum import Enum
from signal import Signals
from types import FrameType
from typing import NamedTuple

SI_KERNEL = 0x80
"""``si_code`` of a signal that the kernel sent by itself, as for Ctrl-C."""

ENDING = frozenset({Signals.SIGHUP, Signals.SIGINT, Signals.SIGQUIT, Signals.SIGTERM})
"""Signals that mean: come to an end."""

JOB_CONTROL = frozenset({Signals.SIGTSTP, Signals.SIGTTIN, Signals.SIGTTOU})
"""These stop the supervisor too, so that the shell above sees a stopped job."""

_OF_TERMINALS = frozenset({Signals.SIGINT, Signals.SIGQUIT, Signals.SIGWINCH})

_OWN_FAULTS = frozenset(
    {
        Signals.SIGABRT,
        Signals.SIGBUS,
        Signals.SIGFPE,
        Signals.SIGILL,
        Signals.SIGPIPE,
        Signals.SIGSEGV,
        Signals.SIGSYS,
        Signals.SIGTRAP,
        Signals.SIGXFSZ,
    }
)
"""Raised by what a process does itself; they say nothing about the payload."""

_NOT_FOR_PAYLOAD = (
    frozenset({Signals.SIGKILL, Signals.SIGSTOP, Signals.SIGCHLD, Signals.SIGCONT})
    | JOB_CONTROL
    | _OWN_FAULTS
)

FORWARDED = frozenset(signal.valid_signals()) - _NOT_FOR_PAYLOAD
"""What the supervisor passes on: all that a program may give a meaning to."""

_IGNORED_BY_PYTHON = (Signals.SIGPIPE, Signals.SIGXFSZ)

REPEAT_WINDOW_S = 1.0
"""The same signal from different processes within this time was sent to all of them."""


class SignalState(NamedTuple):
    """What one process hands to the program that it executes.

    Attributes:
        mask: Blocked signals.
        ignored: Ignored signals.
    """

    mask: frozenset[int]
    ignored: frozenset[int]


class Source(Enum):
    """Which of our processes was sent a signal."""

    SUPERVISOR = "supervisor"
    INIT = "init"
    SERVICE = "service"


def take_over() -> SignalState:
    """Block what the session waits for, and return how everything was before."""
    ignored = frozenset(
        number
        for number in signal.valid_signals()
        if signal.getsignal(number) is signal.SIG_IGN
        and number not in _IGNORED_BY_PYTHON
    )
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED | {Signals.SIGCHLD})
    # If it is ignored, the kernel reaps children by itself and their status is lost.
    signal.signal(Signals.SIGCHLD, signal.SIG_DFL)
    return SignalState(frozenset(mask), ignored)


def hand_back(state: SignalState) -> None:
    """Leave signals to the next program exactly as they were found."""
    for number in _IGNORED_BY_PYTHON:
        signal.signal(number, signal.SIG_DFL)
    if Signals.SIGCHLD in state.ignored:
        signal.signal(Signals.SIGCHLD, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, state.mask)


def restore_mask(state: SignalState) -> None:
    """Block again only what was blocked when the session took over."""
    signal.pthread_sigmask(signal.SIG_SETMASK, state.mask)


def is_news_to_payload(number: int, si_code: int, *, leads_session: bool) -> bool:
    """Whether a signal that reached the supervisor has not reached the payload.

    Args:
        number: The signal.
        si_code: How it was sent, from ``sigwaitinfo``.
        leads_session: The supervisor is the leader of its session.
    """
    if si_code != SI_KERNEL:
        return True
    if number == Signals.SIGHUP:
        return leads_session
    return number not in _OF_TERMINALS


class RepeatFilter:
    """Drops the copies of a signal that was sent to each process of a session.

    What comes from the same process twice was sent twice and is never dropped.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: dict[int, tuple[Source, float]] = {}

    def is_repeat(self, number: int, source: Source) -> bool:
        """Whether another process passed this signal on just before."""
        now = self._clock()
        first, when_s = self._last.get(number, (source, now))
        if first is not source and now - when_s < REPEAT_WINDOW_S:
            return True
        self._last[number] = (source, now)
        return False


def report_in_service(descriptor: int) -> None:
    """Let a file server survive polite signals, and tell init of each.

    Python's C handler writes the number to the descriptor in whatever thread the
    signal strikes, even if all of them wait in system calls. The handlers do nothing,
    but unlike "ignore" they are undone by ``exec``, so that programs which the
    service runs start with default dispositions.

    Args:
        descriptor: Writing end of a non-blocking pipe to init.
    """
    signal.set_wakeup_fd(descriptor, warn_on_full_buffer=False)
    for number in FORWARDED:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _do_nothing)
    for number in JOB_CONTROL:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def describe_end(wait_status: int) -> str:
    """Say how a process ended, as it reads after its name."""
    code = os.waitstatus_to_exitcode(wait_status)
    if code >= 0:
        return f"ended with status {code}"
    return f"was killed by {signal_name(-code)}"


def signal_name(number: int) -> str:
    """Return the name of a signal, e.g. ``SIGTERM``."""
    try:
        return Signals(number).name
    except ValueError:
        return f"signal {number}"


def wait_for(
    awaited: Iterable[int], timeout_s: float | None = None
) -> signal.struct_siginfo | None:
    """Wait for one of the blocked signals; None when the time is over."""
    if timeout_s is None:
        return signal.sigwaitinfo(awaited)
    return signal.sigtimedwait(awaited, max(timeout_s, 0.0))


def _do_nothing(number: int, frame: FrameType | None) -> None:
    del number, frame
