import os
import signal
from signal import Signals

import pytest

from cvmfsexec.namespaces.signals import (
    ENDING,
    FORWARDED,
    JOB_CONTROL,
    REPEAT_WINDOW_S,
    SI_KERNEL,
    RepeatFilter,
    Source,
    describe_end,
    is_news_to_payload,
    signal_name,
)
from tests.support.clock import Clock

SI_USER = 0


@pytest.mark.parametrize(
    "name", ["TERM", "INT", "HUP", "QUIT", "USR1", "USR2", "ALRM", "WINCH", "XCPU"]
)
def test_what_programs_give_a_meaning_to_is_forwarded(name: str) -> None:
    assert Signals[f"SIG{name}"] in FORWARDED


def test_realtime_signals_are_forwarded() -> None:
    assert set(range(signal.SIGRTMIN, signal.SIGRTMAX + 1)) <= FORWARDED


@pytest.mark.parametrize("name", ["KILL", "STOP", "CHLD", "CONT", "SEGV", "PIPE"])
def test_what_says_nothing_about_the_payload_is_not(name: str) -> None:
    assert Signals[f"SIG{name}"] not in FORWARDED


def test_job_control_is_left_to_the_kernel() -> None:
    assert not FORWARDED & JOB_CONTROL


def test_all_ending_signals_are_forwarded() -> None:
    assert ENDING <= FORWARDED


@pytest.mark.parametrize("leads_session", [False, True])
@pytest.mark.parametrize("number", sorted(FORWARDED))
def test_what_a_process_sends_is_news(number: int, leads_session: bool) -> None:  # noqa: FBT001
    assert is_news_to_payload(number, SI_USER, leads_session=leads_session)


@pytest.mark.parametrize("name", ["INT", "QUIT", "WINCH"])
def test_what_the_terminal_sends_is_not(name: str) -> None:
    number = Signals[f"SIG{name}"]
    assert not is_news_to_payload(number, SI_KERNEL, leads_session=True)


def test_hangup_is_news_only_if_we_lead_the_session() -> None:
    assert is_news_to_payload(Signals.SIGHUP, SI_KERNEL, leads_session=True)
    assert not is_news_to_payload(Signals.SIGHUP, SI_KERNEL, leads_session=False)


def test_alarm_that_was_set_before_exec_is_news() -> None:
    assert is_news_to_payload(Signals.SIGALRM, SI_KERNEL, leads_session=False)


def test_copy_from_another_process_is_a_repeat_for_a_while() -> None:
    clock = Clock()
    repeats = RepeatFilter(clock)
    assert not repeats.is_repeat(Signals.SIGTERM, Source.SUPERVISOR)
    clock.now_s += REPEAT_WINDOW_S / 2
    assert repeats.is_repeat(Signals.SIGTERM, Source.SERVICE)
    clock.now_s += REPEAT_WINDOW_S
    assert not repeats.is_repeat(Signals.SIGTERM, Source.SERVICE)


def test_what_one_process_sends_twice_is_no_repeat() -> None:
    repeats = RepeatFilter(Clock())
    assert not repeats.is_repeat(Signals.SIGUSR1, Source.SUPERVISOR)
    assert not repeats.is_repeat(Signals.SIGUSR1, Source.SUPERVISOR)


def test_different_signals_are_no_repeats() -> None:
    repeats = RepeatFilter(Clock())
    assert not repeats.is_repeat(Signals.SIGTERM, Source.SUPERVISOR)
    assert not repeats.is_repeat(Signals.SIGINT, Source.INIT)


@pytest.mark.parametrize(
    ("ending", "words"),
    [
        (lambda: os._exit(3), "ended with status 3"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "was killed by SIGKILL"),
    ],
)
def test_end_of_a_process_is_told(ending, words: str) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    pid = os.fork()
    if pid == 0:
        ending()
    assert describe_end(os.waitpid(pid, 0)[1]) == words


def test_signal_without_a_name_has_its_number() -> None:
    assert signal_name(signal.SIGRTMIN + 1) == f"signal {signal.SIGRTMIN + 1}"
