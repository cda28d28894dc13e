import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from cvmfsexec.errors import CacheError, CvmfsError, TransferError
from cvmfsexec.fetch.flights import Flights
from tests.support.system_calls import fail_calls

THREADS = 8


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
