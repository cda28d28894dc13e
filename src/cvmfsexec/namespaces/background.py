"""A session in the background: what its command leaves behind goes on.

The process that was called, the *starter*, forks the session's supervisor and waits
until the command has ended. If that has succeeded, the starter ends with it, and the
session goes on without anybody of the user's above it. Otherwise the session ends, and
the starter with its exit status. A starter that is killed takes the session along.

Messages of the session's processes are kept apart until then, and the starter writes
them: nobody who reads the starter's output must wait for the end of the session.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from cvmfsexec.namespaces import descriptors, payload, signals

_COPIED_BYTES = 65536


def run_in_background(run: Callable[[int], int]) -> int:
    """Start a session, and return the exit status of its command when that has ended.

    Args:
        run: Runs the session to its end, in another process, and returns its exit
            status. Is given what ``SessionPlan.status_out`` is to be.
    """
    sys.stderr.flush()
    messages = os.memfd_create("messages")
    status_in, status_out = os.pipe()
    supervisor_pid = os.fork()
    if supervisor_pid == 0:
        os.close(status_in)
        os.dup2(messages, descriptors.STANDARD_ERROR)
        os.close(messages)
        _become_supervisor(run, status_out)
    os.close(status_out)
    with _signals_for(supervisor_pid):
        status = _status_of(supervisor_pid, status_in)
    _write_messages(messages)
    return status


def _become_supervisor(run: Callable[[int], int], status_out: int) -> NoReturn:
    status = 1
    try:
        os.setsid()
        status = run(status_out)
    except BaseException:  # noqa: BLE001 -- the border of a process
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        os._exit(status)


def _status_of(supervisor_pid: int, status_in: int) -> int:
    answer = os.read(status_in, 1)
    if answer:
        return answer[0]
    return payload.exit_status_of(os.waitpid(supervisor_pid, 0)[1])


@contextmanager
def _signals_for(pid: int) -> Iterator[None]:
    """Pass on signals for the command."""

    def pass_on(number: int, _frame: FrameType | None) -> None:
        os.kill(pid, number)

    ours = [
        one for one in signals.ENDING if signal.getsignal(one) is not signal.SIG_IGN
    ]
    earlier = {one: signal.signal(one, pass_on) for one in ours}
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def _write_messages(messages: int) -> None:
    position = 0
    while data := os.pread(messages, _COPIED_BYTES, position):
        position += len(data)
        os.write(descriptors.STANDARD_ERROR, data)
    os.close(messages)
