"""One download per object, however many threads want it at the same moment.

The first thread that asks for a key leads: it does the work. Others that come while
the work goes on wait for it and share its end: a descriptor of the same file for
each, or the same error. Whoever comes after that begins anew.

Somebody who works for nobody in particular may ``begin`` and ``end`` a flight. Who
joins it meanwhile waits as for any other. If it ends with nothing, those who wait do
the work themselves.

One lock guards the table; it is never held while anybody works or waits.
"""

import os
import threading
from collections.abc import Callable, Hashable

from cvmfsexec.errors import CacheError, CvmfsError, TransferError


class _Flight:
    """One piece of work and those who wait for it."""

    __slots__ = ("descriptors", "error", "gate", "is_given_up", "waiting")

    def __init__(self) -> None:
        # A bare lock: an Event costs 10 us to make, and most flights have no waiters.
        self.gate = threading.Lock()
        self.gate.acquire()
        self.waiting = 0
        self.descriptors: list[int] = []
        self.is_given_up = False
        self.error: CvmfsError | None = None


class Flights:
    """The work going on; safe to call from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flights: dict[Hashable, _Flight] = {}

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._flights)

    def join(self, key: Hashable, work: Callable[[], int]) -> int:
        """Return a descriptor of what ``work`` opens, done once per key at a time.

        Args:
            key: What the work is about.
            work: Called by one of the threads that join; returns a descriptor.

        Returns:
            A descriptor that the caller closes. Those of one flight may share their
            position: read with ``os.pread``.

        Raises:
            CvmfsError: What ``work`` raised, to each of the threads.
        """
        while True:
            with self._lock:
                flight = self._flights.get(key)
                leads = flight is None
                if flight is None:
                    flight = self._flights[key] = _Flight()
                else:
                    flight.waiting += 1
            if leads:
                return self._lead(key, flight, work)
            descriptor = _wait(flight)
            if descriptor is not None:
                return descriptor

    def begin(self, key: Hashable) -> bool:
        """Begin a flight, to be ended by ``end``; not if there is one."""
        with self._lock:
            if key in self._flights:
                return False
            self._flights[key] = _Flight()
            return True

    def end(self, key: Hashable, opened: Callable[[], int | None] | None) -> bool:
        """End a flight that was begun.

        Args:
            key: What it was about.
            opened: Called if somebody waits; returns a descriptor, which becomes ours.
                None if there is nothing: those who wait go on by themselves.

        Returns:
            Whether anybody waited.
        """
        with self._lock:
            flight = self._flights.pop(key)
        descriptor: int | None = None
        try:
            if opened is not None and flight.waiting:
                descriptor = opened()
        finally:
            if descriptor is None:
                flight.is_given_up = True
            else:
                _share(flight, descriptor)
                os.close(descriptor)
            flight.gate.release()
        return flight.waiting > 0

    def _lead(self, key: Hashable, flight: _Flight, work: Callable[[], int]) -> int:
        try:
            descriptor = work()
        except BaseException as error:
            self._close(key)
            if flight.waiting:
                flight.error = _for_others(error)
            flight.gate.release()
            raise
        self._close(key)
        _share(flight, descriptor)
        flight.gate.release()
        return descriptor

    def _close(self, key: Hashable) -> None:
        """Let nobody join any more; the number of those who wait is then final."""
        with self._lock:
            del self._flights[key]


def _share(flight: _Flight, descriptor: int) -> None:
    try:
        for _ in range(flight.waiting):
            flight.descriptors.append(os.dup(descriptor))
    except OSError as error:
        flight.error = CacheError(f"cannot share an object: {error.strerror}")


def _for_others(error: BaseException) -> CvmfsError:
    """Return what those who wait are told; they were not interrupted themselves."""
    if isinstance(error, CvmfsError):
        return error
    return TransferError(f"the download was given up: {type(error).__name__}")


def _wait(flight: _Flight) -> int | None:
    """Return a descriptor; None if the flight was given up."""
    with flight.gate:
        if flight.is_given_up:
            return None
        if flight.descriptors:
            return flight.descriptors.pop()
        error = flight.error or TransferError("the download ended with nothing")
    import copy

    raise copy.copy(error)  # a traceback grows in each thread that raises
