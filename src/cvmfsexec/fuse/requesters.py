"""Those who made the requests: whether one of them is about to end, or has.

Facts about the kernel:

- Any signal that a process has a handler for makes it send INTERRUPT, if the process
  waits for a request: a child that ended, a timer, Go's switching between goroutines.
  The answer EINTR then comes out of ``stat`` or ``open``, which programs do not expect,
  and SA_RESTART does not help: it is for the kernel's own errors. So only those who are
  to end get it. The others wait on, as they would for a disk.
- INTERRUPT comes once. What is sent to a process later is not told.
- A signal that ends a process is pending as SIGKILL in each of its threads, whatever
  it was; only those that write a core keep their number. What the process has a handler
  for is pending until the request is answered.
- Who waits for pages that the kernel reads ahead can be killed without a word to us.
  The request stays, with the number of a process that is no more.
- The number in a request is that of a thread, in the pid namespace of whoever mounted;
  0 if it has none there. We may be in another one (``apptainer --fusemount``), and then
  the number is somebody else's or nobody's. Who waits for anything but a READ must be
  there to be seen; that tells.

Threads: any may call.
"""

import os
from contextlib import suppress

_HUP, _INT, _QUIT, _ABRT, _KILL, _SEGV, _TERM, _XCPU = 1, 2, 3, 6, 9, 11, 15, 24
_MASK_NAMES = (b"SigPnd", b"ShdPnd", b"SigBlk")
_STATUS_BYTES_MAX = 1 << 16
_EVIDENCE_MAX = 8

ENDING_SIGNALS = frozenset({_HUP, _INT, _QUIT, _ABRT, _KILL, _SEGV, _TERM, _XCPU})
"""What asks a process to end, with a handler or without; the module ``signal`` takes
time to import."""

_ENDING_MASK = sum(1 << number - 1 for number in ENDING_SIGNALS)


class Requesters:
    """What is known of the processes that use one mount.

    Args:
        proc: Where the kernel tells of processes.
    """

    def __init__(self, proc: str = "/proc") -> None:
        self._proc = proc
        self._evidence = 0  # above 0: their numbers mean here the same
        self._is_told: bool | None = None  # whether proc is that of our namespace

    def wants_out(self, pid: int) -> bool:
        """Whether one who was sent a signal is to have his answer at once.

        If it cannot be known, he is: rather a call that fails than a process that
        cannot be ended.
        """
        if pid:
            self._learn(is_there=_is_there(pid))
        pending = self._pending(pid)
        return pending is None or bool(pending & _ENDING_MASK)

    def is_gone(self, pid: int, *, may_be_gone: bool) -> bool:
        """Whether nobody waits for a request any more, although nobody has said so.

        Args:
            pid: Who made it.
            may_be_gone: Whether the kernel lets go of those who wait for such requests.
        """
        if not pid:
            return False
        is_there = _is_there(pid)
        if is_there or not may_be_gone:
            self._learn(is_there=is_there)
        if not is_there:
            return may_be_gone and self._evidence > 0
        pending = self._pending(pid)
        return pending is not None and bool(pending & _ENDING_MASK)

    def _learn(self, *, is_there: bool) -> None:
        """Take note whether one who must be there is.

        He may have got his answer this moment, so one who is not proves nothing.
        """
        evidence = self._evidence + (1 if is_there else -1)
        self._evidence = max(-_EVIDENCE_MAX, min(evidence, _EVIDENCE_MAX))

    def _pending(self, pid: int) -> int | None:
        """Return the signals that wait for a process; ``None`` if nobody knows."""
        if self._is_told is None:
            self._is_told = self._is_own_proc()
        if not self._is_told or self._evidence <= 0:
            return None
        try:
            with open(f"{self._proc}/{pid}/status", "rb", buffering=0) as file:
                status = file.read(_STATUS_BYTES_MAX)
        except OSError:
            return None
        return pending_signals(status)

    def _is_own_proc(self) -> bool:
        with suppress(OSError):
            return os.readlink(f"{self._proc}/self") == str(os.getpid())
        return False


def pending_signals(status: bytes) -> int | None:
    """Read a process's status: return the signals that are pending and not blocked.

    Returns:
        Bit 0 stands for signal 1. ``None`` if the status does not say.
    """
    masks: dict[bytes, int] = {}
    for line in status.split(b"\n"):
        name, _, value = line.partition(b":")
        if name in _MASK_NAMES:
            try:
                masks[name] = int(value, 16)
            except ValueError:
                return None
    if len(masks) != len(_MASK_NAMES):
        return None
    return (masks[b"SigPnd"] | masks[b"ShdPnd"]) & ~masks[b"SigBlk"]


def _is_there(pid: int) -> bool:
    """Whether there is such a thread, seen by us or not."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True
