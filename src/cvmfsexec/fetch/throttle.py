"""Slows down who keeps asking for what cannot be had.

A job that tries a failing file again and again would otherwise make the servers pay
for each try. The first failure is told at once. While failures follow each other
within ``QUIET_S``, each is told later than the one before, whichever objects they are
about. What succeeds is never delayed, and takes no lock.

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
        self._places = threading.Semaphore(WAITING_MAX)

    def open(
        self, request: ObjectRequest, missed: Callable[[], object] | None = None
    ) -> int:
        """Return a descriptor of an object; ``missed`` is as of ``Fetcher.open``.

        Raises:
            CvmfsError: It cannot be had; perhaps that took longer to say.
        """
        try:
            return self._open_object(request, missed)
        except CvmfsError:
            self._wait(self._next_delay_s())
            raise

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
