"""Whom a thread works for: who leaves, what that ends, and what it does not."""

import threading
import time
from collections.abc import Iterator

import pytest

from cvmfsexec import callers
from cvmfsexec.callers import Caller, CannotWait


@pytest.fixture
def caller() -> Iterator[Caller]:
    caller = Caller()
    caller.task = object()
    callers.work_for(caller)
    yield caller
    callers.work_for(None)


def test_nobody_can_leave_a_thread_that_works_for_the_process() -> None:
    callers.before_waiting()
    callers.pause(0)
    assert callers.current() is None
    assert not callers.has_left()
    assert not callers.is_lost()


def test_a_caller_without_a_task_has_not_left() -> None:
    assert not Caller().has_left
    assert not Caller().is_lost


def test_who_is_about_to_wait_is_known(caller: Caller) -> None:
    callers.before_waiting()
    assert caller.waits_for is caller.task


def test_who_has_left_is_not_waited_for(caller: Caller) -> None:
    caller.leave(caller.task)
    assert callers.has_left()
    assert callers.is_lost()
    with pytest.raises(CannotWait):
        callers.before_waiting()


def test_to_leave_a_task_that_is_over_does_nothing(caller: Caller) -> None:
    over, caller.task = caller.task, object()
    caller.leave(over)
    assert not callers.has_left()
    assert not callers.is_lost()
    callers.before_waiting()


def test_the_next_task_is_another_matter(caller: Caller) -> None:
    caller.leave(caller.task)
    caller.task = object()
    assert not callers.has_left()
    assert not callers.is_lost()


def test_a_caller_that_wants_no_waiting_gets_none() -> None:
    class Busy(Caller):
        __slots__ = ()

        def may_wait(self) -> bool:
            return False

    callers.work_for(Busy())
    try:
        with pytest.raises(CannotWait):
            callers.before_waiting()
    finally:
        callers.work_for(None)


def test_what_others_wait_for_is_not_lost_before_they_leave(caller: Caller) -> None:
    others = [1]
    cuts: list[str] = []
    company = caller.in_company(lambda: bool(others))
    with company, caller.ended_by(lambda: cuts.append("cut")):
        caller.leave(caller.task)
        assert (caller.has_left, caller.is_lost, cuts) == (True, False, [])
        others.clear()
        caller.look_again()
        assert (caller.has_left, caller.is_lost, cuts) == (True, True, ["cut"])
        others.append(1)
        caller.look_again()
        assert caller.is_lost, "whoever comes later begins anew"


def test_who_stays_is_not_cut(caller: Caller) -> None:
    cuts: list[str] = []
    with caller.ended_by(lambda: cuts.append("cut")):
        caller.look_again()
    caller.leave(caller.task)
    assert cuts == [], "it was over"


def test_what_is_lost_is_not_begun(caller: Caller) -> None:
    caller.leave(caller.task)
    with pytest.raises(CannotWait), caller.ended_by(pytest.fail):
        pytest.fail("begun")


def test_a_sleep_ends_when_the_caller_leaves(caller: Caller) -> None:
    begun_s = time.monotonic()
    timer = threading.Timer(0.05, caller.leave, (caller.task,))
    timer.start()
    with pytest.raises(CannotWait):
        callers.pause(600)
    timer.join()
    assert time.monotonic() - begun_s < 300


def test_a_sleep_lasts_as_long_as_it_should(caller: Caller) -> None:  # noqa: ARG001
    begun_s = time.monotonic()
    callers.pause(callers.LOOK_S * 1.2)
    assert time.monotonic() - begun_s >= callers.LOOK_S * 1.2
    callers.pause(-1)
