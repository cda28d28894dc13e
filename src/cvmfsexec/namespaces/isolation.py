"""The two ways to make sure that a session ends whole.

With a **pid namespace**, init is its PID 1: when init ends, for whatever reason, the
kernel kills all that is in it. ``/proc`` must then be a new one that shows this
namespace, as programs look themselves up there. Where the host's ``/proc`` is partly
covered (in most containers) the kernel refuses a new one.

Without it, init is a **subreaper** of an ordinary process tree: orphans become its
children, so that it can find and kill each. If init itself is killed, services and
payload get their parent-death signal, and what the payload left behind falls to the
supervisor, a subreaper as well. One gap remains: KILL for supervisor *and* init within
a millisecond spares what the payload has started. All of ours is gone then, file
servers too; and such places are containers, which end as a whole themselves.
"""

from enum import Enum

from cvmfsexec.namespaces.syscalls import CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUSER


class Isolation(Enum):
    """Ways to end a session whole, the better one first; the value is for messages."""

    PID_NAMESPACE = "pid namespace"
    PROCESS_TREE = "process tree"

    @property
    def clone_flags(self) -> int:
        """Namespaces to create."""
        flags = CLONE_NEWUSER | CLONE_NEWNS
        if self is Isolation.PID_NAMESPACE:
            flags |= CLONE_NEWPID
        return flags
