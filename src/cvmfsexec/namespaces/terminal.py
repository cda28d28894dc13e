"""The terminal: whose process group is in its foreground.

An interactive shell as payload moves the terminal to groups of its own, and moves it
back when it ends. In a pid namespace it cannot: the group that it found has no number
there. A script that goes on after the session would then be stopped when it reads. So
the supervisor sees to it.
"""

import os
import signal

_TERMINAL = "/dev/tty"


def rescue_foreground() -> None:
    """Take the terminal for this process's group if the one that has it is extinct."""
    try:
        terminal = os.open(_TERMINAL, os.O_RDWR | os.O_NOCTTY)
    except OSError:
        return  # this session of processes has none
    # Who is in the background is stopped by the change, unless the signal is blocked.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
    try:
        if _is_extinct(os.tcgetpgrp(terminal)):
            os.tcsetpgrp(terminal, os.getpgrp())
    except OSError:
        pass  # it hung up
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.close(terminal)


def _is_extinct(process_group: int) -> bool:
    try:
        os.killpg(process_group, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # another user's
    return False
