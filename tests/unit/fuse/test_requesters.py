"""Who is about to end: read from the kernel's word about real processes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.fuse.requesters import ENDING_SIGNALS, Requesters, pending_signals
from tests.support.fuse_messages import NOBODY

PATIENCE_S = 30.0
HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGALRM, signal.SIGURG)
SCRIPT = f"""
import signal
for number in {[int(number) for number in HANDLED]}:
    signal.signal(number, lambda *_: None)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
print("ready", flush=True)
while True:
    signal.pause()
"""


@contextmanager
def stopped_process() -> Iterator[subprocess.Popen[str]]:
    """Run a process that has handlers; stopped, it keeps its signals pending."""
    words = [sys.executable, "-c", SCRIPT]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED)
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("number", "wants_out"),
    [
        (signal.SIGINT, True),
        (signal.SIGTERM, True),
        (signal.SIGCHLD, False),
        (signal.SIGALRM, False),
        (signal.SIGURG, False),
        (signal.SIGHUP, False),  # blocked
    ],
)
def test_only_who_is_to_end_wants_out(number: signal.Signals, wants_out: bool) -> None:  # noqa: FBT001
    requesters = Requesters()
    with stopped_process() as process:
        assert not requesters.wants_out(process.pid)
        process.send_signal(number)
        assert requesters.wants_out(process.pid) is wants_out
        assert requesters.is_gone(process.pid, may_be_gone=False) is wants_out


def test_who_was_sent_two_signals_is_to_end_by_one() -> None:
    with stopped_process() as process:
        process.send_signal(signal.SIGCHLD)
        assert not Requesters().wants_out(process.pid)
        process.send_signal(signal.SIGTERM)
        assert Requesters().wants_out(process.pid)


def test_who_cannot_be_seen_wants_out() -> None:
    assert Requesters().wants_out(NOBODY)
    assert Requesters().wants_out(0)
    assert Requesters().wants_out((1 << 32) - 1)


def test_without_the_right_proc_everybody_wants_out(tmp_path: Path) -> None:
    assert Requesters(str(tmp_path)).wants_out(os.getpid())
    (tmp_path / "self").symlink_to("1")
    assert Requesters(str(tmp_path)).wants_out(os.getpid())


def test_nobody_is_gone_before_somebody_was_seen() -> None:
    requesters = Requesters()
    assert not requesters.is_gone(NOBODY, may_be_gone=True)
    assert not requesters.is_gone(os.getpid(), may_be_gone=True)
    assert requesters.is_gone(NOBODY, may_be_gone=True)
    assert not requesters.is_gone(0, may_be_gone=True)


def test_who_waits_and_is_not_there_shows_that_numbers_mean_nothing() -> None:
    requesters = Requesters()
    assert not requesters.is_gone(NOBODY, may_be_gone=False)
    assert not requesters.is_gone(NOBODY, may_be_gone=False)
    requesters.is_gone(os.getpid(), may_be_gone=True)  # somebody else of that number
    assert not requesters.is_gone(NOBODY, may_be_gone=True)
    for _ in range(3):
        requesters.is_gone(os.getpid(), may_be_gone=False)
    assert requesters.is_gone(NOBODY, may_be_gone=True)


def test_a_process_that_ends_is_gone() -> None:
    requesters = Requesters()
    with stopped_process() as process:
        assert not requesters.is_gone(process.pid, may_be_gone=True)
        process.kill()
        process.wait(PATIENCE_S)
        until_s = time.monotonic() + PATIENCE_S
        while not requesters.is_gone(process.pid, may_be_gone=True):
            assert time.monotonic() < until_s


def test_the_numbers_are_those_of_the_kernel() -> None:
    names = ("HUP", "INT", "QUIT", "ABRT", "KILL", "SEGV", "TERM", "XCPU")
    assert {getattr(signal, f"SIG{name}").value for name in names} == ENDING_SIGNALS


MASKS = st.integers(0, (1 << 64) - 1)


@given(own=MASKS, shared=MASKS, blocked=MASKS)
def test_pending_is_what_is_not_blocked(own: int, shared: int, blocked: int) -> None:
    status = (
        f"Name:\tcat\nSigQ:\t0/1\nSigPnd:\t{own:016x}\nShdPnd:\t{shared:016x}\n"
        f"SigBlk:\t{blocked:016x}\nSigIgn:\t0\n"
    )
    assert pending_signals(status.encode()) == (own | shared) & ~blocked


@given(st.binary())
def test_any_text_is_read_or_says_nothing(status: bytes) -> None:
    pending = pending_signals(status)
    assert pending is None or pending >= 0


def test_a_status_that_says_nothing() -> None:
    assert pending_signals(b"") is None
    assert pending_signals(b"SigPnd:\tx\nShdPnd:\t0\nSigBlk:\t0\n") is None
