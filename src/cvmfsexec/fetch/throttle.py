"""Slows down who keeps asking for what cannot be had.

A job that tries a failing file again and again would otherwise make the servers pay
for each try. The first failure is told at once. While failures follow each other
within ``QUIET_S``, each is told later than the one before, whichever objects they are
about. What succeeds is never delayed, and takes no lock.

The kernel asks twice for what fails: first by its own reading ahead, then for the page
that is wanted. So a failure is remembered for a moment, and told again, once, to who
asks for the same; otherwise each failing read would go through all timeouts twice.

A caller that waits occupies a thread of the file server. So that others can be served
meanwhile, no more than ``WAITING_MAX`` wait at a time; further failures are told at
once.

Source: docs/reference/client-behaviour.md, "Requests, timeouts, failover".
"""

import threading
import time
from collections.abc import Callable

from cvmfsexec.errors import CvmfsError
from cvmfsexec.fetch.request import ObjectRequest

DELAY_MIN_S = 0.032
DELAY_MAX_S = 2.0
QUIET_S = 10.0
WAITING_MAX = 4  # half of a file server's threads
REMEMBERED_S = 1.0
REMEMBERED_MAX = 64


class FailureThrottle:
    """Opens objects for impatient callers; any thread may call.

    Args:
        open_object: Opens them, or raises.
        clock: Seconds that do not jump.
        sleep: Waits for so many seconds.
    """

    def __init__(
        self,
        open_object: Callable[[ObjectRequest, Callable[[], object] | None], int],
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._open_object = open_object
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._delay_s = 0.0
        self._failed_s = float("-inf")
        self._remembered: dict[ObjectRequest, tuple[float, CvmfsError]] = {}
        self._places = threading.Semaphore(WAITING_MAX)

    def open(
        self, request: ObjectRequest, missed: Callable[[], object] | None = None
    ) -> int:
        """Return a descriptor of an object; ``missed`` is as of ``Fetcher.open``.

        Raises:
            CvmfsError: It cannot be had; perhaps that took longer to say.
        """
        if self._remembered:
            self._tell_again(request)
        try:
            return self._open_object(request, missed)
        except CvmfsError as error:
            self._wait(self._next_delay_s())
            self._remember(request, error)
            raise

    def _tell_again(self, request: ObjectRequest) -> None:
        """Raise what was raised for the same object a moment ago, if nobody has yet."""
        with self._lock:
            failed_s, error = self._remembered.pop(request, (float("-inf"), None))
        if error is not None and self._clock() - failed_s <= REMEMBERED_S:
            raise error

    def _remember(self, request: ObjectRequest, error: CvmfsError) -> None:
        import copy

        now_s = self._clock()
        with self._lock:
            if len(self._remembered) >= REMEMBERED_MAX:
                self._remembered.clear()
            # A copy: the other one holds on to the frames of its traceback.
            self._remembered[request] = (now_s, copy.copy(error))

    def _next_delay_s(self) -> float:
        now_s = self._clock()
        with self._lock:
            if now_s - self._failed_s > QUIET_S:
                self._delay_s = 0.0
            else:
                self._delay_s = min(max(DELAY_MIN_S, 2 * self._delay_s), DELAY_MAX_S)
            self._failed_s = now_s
            return self._delay_s

    def _wait(self, delay_s: float) -> None:
        if delay_s and self._places.acquire(blocking=False):
            try:
                self._sleep(delay_s)
            finally:
                self._places.release()
