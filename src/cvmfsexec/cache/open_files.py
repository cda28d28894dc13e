"""Open files of a cache, where a network file system may put things off or forget them.

**Put off**: what it could then not do, such as to open the file at all or to keep its
bytes, it says on ``close``, where it helps nobody. Who wrote something and wants to
know asks before (``scratch.flush``).

**Forgotten**: when another node removes or replaces a file, who has it open gets
``ESTALE``, or ``ENOENT``. What a path leads to is remembered for a second or more, so
that to open it once more may give the same file. That is no damage: the object that is
there now is whole, and must not be removed. It is opened again a little later.
"""

import contextlib
import errno
import os
import time
from collections.abc import Callable
from typing import TypeVar

from cvmfsexec import callers
from cvmfsexec.errors import GoneObjectError, UnreadableObjectError

GONE = frozenset({errno.ENOENT, errno.ESTALE})
"""What is not there, or not any more: another node has removed it."""

_TRIES = 30
_PAUSE_S = 0.1

_T = TypeVar("_T")


def close_quietly(descriptor: int) -> None:
    """Close a file, and do not mind what its file system says."""
    with contextlib.suppress(OSError):
        os.close(descriptor)


def is_same_file(one: int, other: int) -> bool:
    """Whether two descriptors are of one file; of one that is gone nobody knows."""
    try:
        return os.path.sameopenfile(one, other)
    except OSError:
        return False


def unreadable(what: str, error: OSError) -> UnreadableObjectError:
    """Return the error for an open file that cannot be read.

    Args:
        what: The file, as it reads after "cannot read".
        error: What the kernel says.
    """
    kind = GoneObjectError if error.errno in GONE else UnreadableObjectError
    return kind(f"cannot read {what}: {error.strerror}")


def again_while_gone(read: Callable[[], _T]) -> _T:
    """Open and read something; again, for some seconds, while what was opened is gone.

    Args:
        read: Raises ``GoneObjectError`` for that.

    Raises:
        GoneObjectError: It is so each time.
        CannotWait: The thread must not wait.
    """
    for _ in range(_TRIES):
        try:
            return read()
        except GoneObjectError:
            callers.before_waiting()
            time.sleep(_PAUSE_S)
    return read()
