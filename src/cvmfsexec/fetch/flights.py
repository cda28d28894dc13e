"""One download per object, however many threads want it at the same moment.

The first thread that asks for a key leads: it does the work. Others that come while
the work goes on wait for it and share its end: a descriptor of the same file for
each, or the same error. Whoever comes after that begins anew.

Somebody who works for nobody in particular may ``begin`` and ``end`` a flight. Who
joins it meanwhile waits as for any other. If it ends with nothing, those who wait do
the work themselves.

Whoever works for somebody who has gone (``cvmfsexec.callers``) leaves the flight, and
the others wait on. When nobody is left the work is given up.

One lock guards the table; it is never held while anybody works or waits.
"""

import os
import threading
from collections.abc import Callable, Hashable
from contextlib import suppress

from cvmfsexec import callers
from cvmfsexec.cache.open_files import close_quietly
from cvmfsexec.errors import CacheError, CvmfsError, TransferError


class _Flight:
    """One piece of work and those who wait for it."""

    __slots__ = (
        *("descriptors", "error", "gate", "is_closed", "is_given_up", "leader"),
        "waiting",
    )

    def __init__(self) -> None:
        # A bare lock: an Event costs 10 us to make, and most flights have no waiters.
        self.gate = threading.Lock()
        self.gate.acquire()
        self.waiting = 0
        self.leader: callers.Caller | None = None
        self.is_closed = False  # nobody can join any more
        self.descriptors: list[int] = []
        self.is_given_up = False
        self.error: CvmfsError | None = None

    def has_company(self) -> bool:
        """Whether others wait for what the leader does."""
        return self.waiting > 0


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
            CannotWait: Who the thread works for has gone.
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
            self._wait(flight)
            descriptor = _share_of(flight)
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
        flight = self._close(key)
        descriptor: int | None = None
        try:
            if opened is not None and flight.waiting:
                descriptor = opened()
        finally:
            if descriptor is None:
                flight.is_given_up = True
            else:
                _share(flight, descriptor)
                close_quietly(descriptor)
            flight.gate.release()
        return flight.waiting > 0

    def _lead(self, key: Hashable, flight: _Flight, work: Callable[[], int]) -> int:
        flight.leader = caller = callers.current()
        try:
            if caller is None:
                descriptor = work()
            else:
                with caller.in_company(flight.has_company):
                    descriptor = work()
        except BaseException as error:
            self._close(key)
            if isinstance(error, callers.CannotWait):
                flight.is_given_up = True
            elif flight.waiting:
                flight.error = _for_others(error)
            flight.gate.release()
            raise
        self._close(key)
        _share(flight, descriptor)
        flight.gate.release()
        return descriptor

    def _close(self, key: Hashable) -> _Flight:
        """Let nobody join any more; the number of those who wait is then final."""
        with self._lock:
            flight = self._flights.pop(key)
            flight.is_closed = True
            return flight

    def _wait(self, flight: _Flight) -> None:
        while not flight.gate.acquire(timeout=callers.LOOK_S):
            if callers.has_left() and self._is_left(flight):
                raise callers.CannotWait
        flight.gate.release()

    def _is_left(self, flight: _Flight) -> bool:
        """Whether one who waited does not any more; not when the end is at hand."""
        with self._lock:
            if flight.is_closed:
                return False
            flight.waiting -= 1
        if flight.leader is not None:
            flight.leader.look_again()
        return True


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


def _share_of(flight: _Flight) -> int | None:
    """Return a descriptor; None if the flight was given up."""
    if flight.is_given_up:
        return None
    with suppress(IndexError):
        return flight.descriptors.pop()
    error = flight.error or TransferError("the download ended with nothing")
    import copy

    raise copy.copy(error)  # a traceback grows in each thread that raises
