"""Account of requests that failed: counted, and logged without flooding the log.

Threads: any may record; a lock guards the counters. This is the slow path.
"""

import errno
import threading
import time
from collections.abc import Callable

from cvmfsexec import log
from cvmfsexec.errors import CvmfsError
from cvmfsexec.fuse.errno_map import describe

# A job that walks a tree on a dead network makes thousands of equal messages a second;
# twenty a minute tell the story.
_MESSAGES_MAX = 20
_PERIOD_S = 60.0

# The kernel asks twice for what fails, first by its own reading ahead.
_SAME_S = 1.0


class FaultAccount:
    """Counts failures and says in the log why an application was given an error.

    Attributes:
        io_errors: Number of requests answered by EIO.
        last_io_error_s: When the last of them was, seconds since 1970; 0 for never.
        on_fault: As given.
    """

    def __init__(
        self,
        *,
        on_fault: Callable[[str, BaseException], None] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Start with nothing recorded.

        Args:
            on_fault: Called for each failure with what was asked and the error, from
                the thread that failed.
            clock: Seconds since 1970.
        """
        self.io_errors = 0
        self.last_io_error_s = 0
        self.on_fault = on_fault
        self._clock = clock
        self._lock = threading.Lock()
        self._period_start_s = float("-inf")
        self._period_messages = 0
        self._suppressed = 0
        self._last_message = ""
        self._last_message_s = float("-inf")

    def record(self, what: str, error: BaseException, number: int) -> None:
        """Take down one failure.

        Args:
            what: The request in words.
            error: Why it failed.
            number: The errno that the application is given.
        """
        now_s = self._clock()
        message = f"{what} gave {describe(number)}: {_reason(error)}"
        with self._lock:
            if number == errno.EIO:
                self.io_errors += 1
                self.last_io_error_s = int(now_s)
            may_log, suppressed = self._admit(message, now_s)
        if suppressed:
            log.error("%d more errors like the last ones were not logged", suppressed)
        if may_log:
            log.error("%s", message)
        if self.on_fault is not None:
            self.on_fault(what, error)

    def forget(self) -> None:
        """Count from nothing again."""
        with self._lock:
            self.io_errors = self.last_io_error_s = 0

    def _admit(self, message: str, now_s: float) -> tuple[bool, int]:
        """Decide whether to log, and how many unlogged failures to mention first."""
        if message == self._last_message and self._is_soon(now_s):
            return False, 0
        self._last_message, self._last_message_s = message, now_s
        suppressed = 0
        if not 0 <= now_s - self._period_start_s < _PERIOD_S:
            self._period_start_s = now_s
            self._period_messages = 0
            suppressed, self._suppressed = self._suppressed, 0
        self._period_messages += 1
        if self._period_messages > _MESSAGES_MAX:
            self._suppressed += 1
            return False, 0
        return True, suppressed

    def _is_soon(self, now_s: float) -> bool:
        return 0 <= now_s - self._last_message_s < _SAME_S


def _reason(error: BaseException) -> str:
    """Return the message of our own errors, and the traceback of a mistake of ours."""
    if isinstance(error, CvmfsError):
        return f"{error} ({error.hint})" if error.hint else str(error)
    import traceback

    return "this is a mistake in cvmfsexec\n" + "".join(
        traceback.format_exception(error)
    )
