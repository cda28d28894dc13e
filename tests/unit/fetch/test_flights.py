import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvmfsexec import callers
from cvmfsexec.callers import Caller
from cvmfsexec.errors import CacheError, CvmfsError, TransferError
from cvmfsexec.fetch.flights import Flights
from tests.support.system_calls import fail_calls

THREADS = 8
PATIENCE_S = 30.0


class SlowWork:
    """Work that goes on until all the others wait for it."""

    def __init__(self, flights: Flights, end: Callable[[], int]) -> None:
        self.flights = flights
        self.end = end
        self.count = 0

    def __call__(self) -> int:
        self.count += 1
        while self.flights._flights["key"].waiting < THREADS - 1:
            threading.Event().wait(0.001)
        return self.end()


def join_all(work: SlowWork) -> list[Future[int]]:
    with ThreadPoolExecutor(THREADS) as pool:
        return [pool.submit(work.flights.join, "key", work) for _ in range(THREADS)]


def open_something() -> int:
    return os.memfd_create("content")


def test_work_is_done_once_and_each_gets_a_descriptor_of_its_own() -> None:
    work = SlowWork(Flights(), open_something)
    descriptors = {future.result() for future in join_all(work)}
    assert work.count == 1
    assert len(descriptors) == THREADS
    assert len({os.fstat(descriptor).st_ino for descriptor in descriptors}) == 1
    for descriptor in descriptors:
        os.close(descriptor)


def test_a_failure_is_everybodys() -> None:
    def fail() -> int:
        raise TransferError("no server answers", routes=("a", "b"), hint="wait")

    work = SlowWork(Flights(), fail)
    errors = [future.exception() for future in join_all(work)]
    assert work.count == 1
    assert len({id(error) for error in errors}) == THREADS, "one each to raise"
    for error in errors:
        assert isinstance(error, TransferError)
        assert (str(error), error.routes, error.hint) == (
            "no server answers",
            ("a", "b"),
            "wait",
        )


def test_an_interrupt_is_its_threads_alone() -> None:
    def interrupt() -> int:
        raise KeyboardInterrupt

    errors = [f.exception() for f in join_all(SlowWork(Flights(), interrupt))]
    kinds = sorted(type(error).__name__ for error in errors)
    assert kinds == ["KeyboardInterrupt"] + ["TransferError"] * (THREADS - 1)


def test_whoever_gets_no_descriptor_gets_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fail_calls(monkeypatch, "dup", 24)
    futures = join_all(SlowWork(Flights(), open_something))
    errors = [future.exception() for future in futures]
    assert [type(error) for error in errors if error] == [CacheError] * (THREADS - 1)
    os.close(next(f.result() for f in futures if not f.exception()))


def test_after_a_flight_work_begins_anew() -> None:
    flights = Flights()

    def fail() -> int:
        raise CacheError("once")

    with pytest.raises(CvmfsError):
        flights.join("key", fail)
    for _ in range(2):
        os.close(flights.join("key", open_something))
    assert not flights._flights


def test_different_work_goes_on_at_once() -> None:
    flights = Flights()
    os.close(flights.join("a", lambda: flights.join("b", open_something)))


# Flights from which some go away


class Passenger(threading.Thread):
    """Joins a flight on behalf of a caller, and remembers what came of it."""

    def __init__(self, flights: Flights, work: Callable[[], int]) -> None:
        super().__init__(daemon=True)
        self.caller = Caller()
        self.caller.task = object()
        self.descriptor: int | None = None
        self.has_gone = False
        self._flights = flights
        self._work = work
        self.start()

    def run(self) -> None:
        callers.work_for(self.caller)
        try:
            self.descriptor = self._flights.join("key", self._work)
        except callers.CannotWait:
            self.has_gone = True

    def leave(self) -> None:
        self.caller.leave(self.caller.task)

    def outcome(self) -> bool:
        """Return whether there is a descriptor, which is closed."""
        self.join(PATIENCE_S)
        assert not self.is_alive()
        if self.descriptor is not None:
            os.close(self.descriptor)
        assert self.has_gone == (self.descriptor is None)
        return not self.has_gone


class Download:
    """Work that ends when it is told to, or when nobody wants it any more."""

    def __init__(self) -> None:
        self.may_end = threading.Event()
        self.begun = threading.Semaphore(0)

    def __call__(self) -> int:
        self.begun.release()
        while not self.may_end.wait(0.001):
            if callers.is_lost():
                raise callers.CannotWait
        return open_something()


def wait_for_waiting(flights: Flights, count: int) -> None:
    while flights._flights["key"].waiting != count:
        threading.Event().wait(0.001)


def test_work_that_nobody_waits_for_is_given_up() -> None:
    flights, work = Flights(), Download()
    alone = Passenger(flights, work)
    assert work.begun.acquire(timeout=PATIENCE_S)
    alone.leave()
    assert not alone.outcome()
    assert len(flights) == 0


def test_work_goes_on_as_long_as_one_waits() -> None:
    flights, work = Flights(), Download()
    first = Passenger(flights, work)
    assert work.begun.acquire(timeout=PATIENCE_S)
    second = Passenger(flights, work)
    wait_for_waiting(flights, 1)
    first.leave()
    assert not first.caller.is_lost
    work.may_end.set()
    assert first.outcome(), "its thread has done the work, for nobody"
    assert second.outcome()


def test_who_leaves_last_ends_the_work() -> None:
    flights, work = Flights(), Download()
    first = Passenger(flights, work)
    assert work.begun.acquire(timeout=PATIENCE_S)
    others = [Passenger(flights, work) for _ in range(3)]
    wait_for_waiting(flights, 3)
    for one in (first, *others):
        one.leave()
    assert [one.outcome() for one in (first, *others)] == [False] * 4
    assert len(flights) == 0


def test_who_comes_when_work_was_given_up_does_it_anew() -> None:
    flights = Flights()
    joined: list[Passenger] = []
    work = Download()

    def given_up() -> int:
        joined.append(Passenger(flights, work))
        wait_for_waiting(flights, 1)
        raise callers.CannotWait

    assert not Passenger(flights, given_up).outcome()
    work.may_end.set()
    assert joined[0].outcome()


def test_who_leaves_a_flight_of_nobody_in_particular() -> None:
    flights = Flights()
    assert flights.begin("key")
    passengers = [Passenger(flights, open_something) for _ in range(2)]
    wait_for_waiting(flights, 2)
    passengers[0].leave()
    assert not passengers[0].outcome()
    wait_for_waiting(flights, 1)
    assert flights.end("key", open_something)
    assert passengers[1].outcome()


@settings(max_examples=20, deadline=None)
@given(leaving=st.lists(st.booleans(), min_size=1, max_size=6), ends_well=st.booleans())
def test_whoever_leaves_no_descriptor_is_left(
    leaving: list[bool],
    ends_well: bool,  # noqa: FBT001
) -> None:
    flights, work = Flights(), Download()
    before = set(os.listdir("/proc/self/fd"))
    passengers = [Passenger(flights, work)]
    assert work.begun.acquire(timeout=PATIENCE_S)
    passengers += [Passenger(flights, work) for _ in leaving[1:]]
    for one, leaves in zip(passengers, leaving, strict=True):
        if leaves:
            one.leave()
    if ends_well or not all(leaving):
        work.may_end.set()
    outcomes = [one.outcome() for one in passengers]
    for leaves, came in zip(leaving, outcomes, strict=True):
        assert came or leaves
    assert len(flights) == 0
    assert set(os.listdir("/proc/self/fd")) <= before


# Flights of nobody in particular


def begun_flight_with_waiters(flights: Flights) -> list[Future[int]]:
    assert flights.begin("key")
    pool = ThreadPoolExecutor(THREADS)
    futures = [pool.submit(flights.join, "key", open_something) for _ in range(THREADS)]
    while flights._flights["key"].waiting < THREADS:
        threading.Event().wait(0.001)
    pool.shutdown(wait=False)
    return futures


def test_a_flight_begins_once() -> None:
    flights = Flights()
    assert flights.begin("key")
    assert not flights.begin("key")
    assert len(flights) == 1
    assert not flights.end("key", None)
    assert flights.begin("key")


def test_who_joins_a_begun_flight_shares_what_it_brings() -> None:
    flights = Flights()
    futures = begun_flight_with_waiters(flights)
    brought = open_something()
    inode = os.fstat(brought).st_ino
    assert flights.end("key", lambda: brought)
    descriptors = [future.result(30) for future in futures]
    assert {os.fstat(descriptor).st_ino for descriptor in descriptors} == {inode}
    for descriptor in descriptors:
        os.close(descriptor)


def test_nothing_is_opened_for_nobody() -> None:
    flights = Flights()
    flights.begin("key")
    opened: list[int] = []
    flights.end("key", lambda: opened.append(1))
    assert opened == []


@pytest.mark.parametrize("opened", [None, lambda: None], ids=["nothing", "gone"])
def test_who_joins_a_flight_that_is_given_up_goes_on_alone(
    opened: Callable[[], int | None] | None,
) -> None:
    flights = Flights()
    futures = begun_flight_with_waiters(flights)
    flights.end("key", opened)
    for future in futures:
        os.close(future.result(30))


def test_nobody_waits_for_ever_if_the_end_fails() -> None:
    def fail() -> int:
        raise CacheError("no descriptor is left")

    flights = Flights()
    futures = begun_flight_with_waiters(flights)
    with pytest.raises(CacheError):
        flights.end("key", fail)
    for future in futures:
        os.close(future.result(30))
