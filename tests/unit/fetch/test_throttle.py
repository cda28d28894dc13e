import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from cvmfsexec.errors import CacheError, IntegrityError, TransferError
from cvmfsexec.fetch import ObjectRequest
from cvmfsexec.fetch.throttle import (
    QUIET_S,
    REMEMBERED_MAX,
    REMEMBERED_S,
    WAITING_MAX,
    FailureThrottle,
)
from cvmfsexec.format.digest import ContentHash, ObjectKind
from cvmfsexec.format.dirent import Compression
from tests.support.clock import Clock

GOOD = ObjectRequest(
    ContentHash(bytes(range(20))), ObjectKind.FILE, 10, Compression.ZLIB, 10
)
BAD = GOOD._replace(content_hash=ContentHash(bytes(range(1, 21))))
SEVERAL_BAD = tuple(
    GOOD._replace(content_hash=ContentHash(bytes([n]) * 20)) for n in range(100)
)
DESCRIPTOR = 77


def open_good(request: ObjectRequest, _missed: object) -> int:
    if request == GOOD:
        return DESCRIPTOR
    raise TransferError("nobody has it")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def throttle(clock: Clock) -> FailureThrottle:
    return FailureThrottle(open_good, clock=clock, sleep=clock.sleep)


def fail(throttle: FailureThrottle, *requests: ObjectRequest) -> None:
    for request in requests:
        with pytest.raises(TransferError, match="nobody has it"):
            throttle.open(request)


def test_what_succeeds_never_waits(throttle: FailureThrottle, clock: Clock) -> None:
    fail(throttle, *SEVERAL_BAD[:2])
    clock.slept_s.clear()
    assert [throttle.open(GOOD) for _ in range(100)] == [DESCRIPTOR] * 100
    assert clock.slept_s == []


def test_a_single_failure_is_told_at_once(
    throttle: FailureThrottle, clock: Clock
) -> None:
    fail(throttle, BAD)
    assert clock.slept_s == []


def test_repeated_failures_wait_twice_as_long_each_time(
    throttle: FailureThrottle, clock: Clock
) -> None:
    fail(throttle, *SEVERAL_BAD[:10])
    assert clock.slept_s == pytest.approx(
        [0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.0, 2.0, 2.0]
    )


@pytest.mark.parametrize(("pause_s", "slept"), [(QUIET_S - 1, 1), (QUIET_S + 1, 0)])
def test_some_quiet_forgets_failures(
    throttle: FailureThrottle, clock: Clock, pause_s: float, slept: int
) -> None:
    fail(throttle, *SEVERAL_BAD[:3])
    clock.slept_s.clear()
    clock.now_s += pause_s
    fail(throttle, BAD)
    assert len(clock.slept_s) == slept


@pytest.mark.parametrize("error", [TransferError, IntegrityError, CacheError])
def test_every_kind_of_failure_counts(
    clock: Clock, error: Callable[[str], Exception]
) -> None:
    def open_bad(_request: ObjectRequest, _missed: object) -> int:
        raise error("no")

    throttle = FailureThrottle(open_bad, clock=clock, sleep=clock.sleep)
    for request in SEVERAL_BAD[:2]:
        with pytest.raises(Exception, match="no"):
            throttle.open(request)
    assert len(clock.slept_s) == 1


def test_only_so_many_threads_wait() -> None:
    threads = 3 * WAITING_MAX
    end = threading.Event()
    asleep: list[float] = []

    def sleep(seconds: float) -> None:
        asleep.append(seconds)
        assert end.wait(10)

    throttle = FailureThrottle(open_good, sleep=sleep)
    fail(throttle, BAD)
    with ThreadPoolExecutor(threads) as pool:
        futures = [pool.submit(fail, throttle, SEVERAL_BAD[n]) for n in range(threads)]
        while sum(future.done() for future in futures) < threads - WAITING_MAX:
            threading.Event().wait(0.001)
        assert len(asleep) == WAITING_MAX
        end.set()
    for future in futures:
        future.result()
    fail(throttle, SEVERAL_BAD[threads])
    assert len(asleep) == WAITING_MAX + 1


class Asked:
    """Who never has anything, and counts how often it was asked."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, _request: ObjectRequest, _missed: object) -> int:
        self.count += 1
        raise TransferError("nobody has it", hint="ask again")


def test_what_just_failed_is_told_once_more_without_asking(clock: Clock) -> None:
    asked = Asked()
    throttle = FailureThrottle(asked, clock=clock, sleep=clock.sleep)
    for times in (1, 1, 2, 2, 3):
        with pytest.raises(TransferError, match="nobody has it") as caught:
            throttle.open(BAD)
        assert caught.value.hint == "ask again"
        assert asked.count == times
    assert len(clock.slept_s) == 2


def test_failure_is_not_told_again_after_a_while(clock: Clock) -> None:
    asked = Asked()
    throttle = FailureThrottle(asked, clock=clock, sleep=clock.sleep)
    fail(throttle, BAD)
    clock.now_s += REMEMBERED_S + 0.1
    fail(throttle, BAD)
    assert asked.count == 2


def test_few_failures_are_remembered(clock: Clock) -> None:
    asked = Asked()
    throttle = FailureThrottle(asked, clock=clock, sleep=lambda _: None)
    fail(throttle, *SEVERAL_BAD)
    fail(throttle, *SEVERAL_BAD)
    assert asked.count >= 2 * len(SEVERAL_BAD) - REMEMBERED_MAX
