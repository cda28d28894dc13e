"""What was downloaded and what failed, for magic attributes and ``cvmfs`` tools."""

import threading
from collections import deque
from typing import NamedTuple

FAILURES_KEPT_MAX = 50


class RouteFailure(NamedTuple):
    """An attempt that brought nothing of use.

    Attributes:
        at_s: When it failed, in seconds since 1970.
        host: Base URL of the server, without user and password.
        proxy: The way to it, likewise, or ``DIRECT``.
        text: What happened.
    """

    at_s: float
    host: str
    proxy: str
    text: str


class TransferStatistics(NamedTuple):
    """Sums since the client was made.

    Attributes:
        downloads: Requests that brought what they asked for.
        received_bytes: Bytes of all bodies, also of those that were no use.
        seconds: Time spent waiting for answers, summed over parallel transfers.
        failed_attempts: Attempts that were followed by another one, or by an error.
    """

    downloads: int = 0
    received_bytes: int = 0
    seconds: float = 0.0
    failed_attempts: int = 0


class TransferAccount:
    """The transfers of one client, counted; any thread may call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._downloads = 0
        self._received_bytes = 0
        self._seconds = 0.0
        self._failed_attempts = 0
        self._failures: deque[RouteFailure] = deque(maxlen=FAILURES_KEPT_MAX)

    def count(
        self, received_bytes: int, seconds: float, failure: RouteFailure | None = None
    ) -> None:
        """Take in an attempt that is over, and how it failed, if it did."""
        with self._lock:
            self._received_bytes += received_bytes
            self._seconds += seconds
            if failure is None:
                self._downloads += 1
            else:
                self._failed_attempts += 1
                self._failures.append(failure)

    @property
    def sums(self) -> TransferStatistics:
        """All attempts so far."""
        with self._lock:
            return TransferStatistics(
                self._downloads,
                self._received_bytes,
                self._seconds,
                self._failed_attempts,
            )

    def failures(self) -> tuple[RouteFailure, ...]:
        """Return the last failed attempts, the oldest first."""
        with self._lock:
            return tuple(self._failures)
