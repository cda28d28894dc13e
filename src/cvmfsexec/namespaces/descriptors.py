"""File descriptors: whose they are, and who lets go of them.

The payload gets what the user's process was started with, untouched: standard streams,
and whatever else an MPI launcher or a batch system has opened for it. Everything of
ours is close-on-exec, as Python opens it. Nobody else keeps the user's streams: the
reader of a pipe must see its end as soon as the payload has closed it. Only standard
error stays, for messages.
"""

import contextlib
import os

STANDARD_INPUT = 0
STANDARD_OUTPUT = 1
STANDARD_ERROR = 2


def occupy_closed_streams() -> None:
    """Let no descriptor of ours get a number of a standard stream.

    A process may be started with some of them closed. The places are taken by
    close-on-exec descriptors, so the payload again finds them closed.
    """
    descriptor = os.open(os.devnull, os.O_RDWR)
    while descriptor <= STANDARD_ERROR:
        descriptor = os.open(os.devnull, os.O_RDWR)
    os.close(descriptor)


def find_inherited() -> tuple[int, ...]:
    """Return descriptors beyond the standard streams that came through ``exec``.

    Those have no close-on-exec flag, or they would not be here; ours all have it.
    """
    found = []
    for name in os.listdir("/proc/self/fd"):
        descriptor = int(name)
        if descriptor > STANDARD_ERROR and _is_inheritable(descriptor):
            found.append(descriptor)
    return tuple(sorted(found))


def let_go(inherited: tuple[int, ...]) -> None:
    """Give up standard input, standard output and the inherited descriptors."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, STANDARD_INPUT)
    os.dup2(nowhere, STANDARD_OUTPUT)
    close_all((nowhere, *inherited))


def close_all(descriptors: tuple[int, ...]) -> None:
    """Close descriptors; one that is closed already is no error."""
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)


def _is_inheritable(descriptor: int) -> bool:
    try:
        return os.get_inheritable(descriptor)
    except OSError:
        return False  # the one that listed the directory is closed by now
