"""A keeper: a small process that takes away what another one leaves behind.

Mounts of the host do not end with the process that serves them: without it, whoever
looks there is told that the "transport endpoint is not connected". So that process has
a keeper, which waits for its end, however it comes, and then clears away.

It waits for the end of a pipe, the lifeline, whose other end only the owner and its
children have. It has a process group and a session of its own, and no polite signal
ends it. If it is killed as well, the next start clears away.
"""

import os
import signal
import sys
from collections.abc import Callable
from typing import NamedTuple, NoReturn

from cvmfsexec.namespaces import descriptors, signals, syscalls

NAME = "cvmfs-keeper"

_IGNORED = signals.FORWARDED | signals.JOB_CONTROL


class Keeper(NamedTuple):
    """A keeper as its owner holds it.

    Attributes:
        pid: Its process, a child of the owner.
        lifeline: Writing end of a pipe in which nothing is ever written.
    """

    pid: int
    lifeline: int

    def dismiss(self) -> None:
        """Let it clear away what there is, and wait for its end.

        Only if nobody else has the lifeline any more.
        """
        os.close(self.lifeline)
        os.waitpid(self.pid, 0)


def start_keeper(
    clear_away: Callable[[], None], foreign: tuple[int, ...] = ()
) -> Keeper:
    """Start a keeper of this process.

    Args:
        clear_away: What it does in the end, in its own process.
        foreign: Descriptors that it shall not keep open.
    """
    lifeline_out, lifeline = os.pipe()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _IGNORED)
    pid = os.fork()
    if pid == 0:
        _become_keeper(clear_away, lifeline_out, (lifeline, *foreign))
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    os.close(lifeline_out)
    return Keeper(pid, lifeline)


def _become_keeper(
    clear_away: Callable[[], None], lifeline: int, foreign: tuple[int, ...]
) -> NoReturn:
    try:
        syscalls.set_process_name(NAME)
        descriptors.close_all(foreign)
        descriptors.let_go(descriptors.find_inherited())
        os.dup2(descriptors.STANDARD_INPUT, descriptors.STANDARD_ERROR)
        os.setsid()
        os.chdir("/")
        for number in _IGNORED:
            signal.signal(number, signal.SIG_IGN)
        while os.read(lifeline, 1):
            pass
        clear_away()
    except BaseException:  # noqa: BLE001 -- the border of a process
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(0)
