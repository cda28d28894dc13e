"""Sessions that go on when their commands have ended: what these leave lives on."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.sessions import (
    Caller,
    Started,
    callers,
    environment,
    mount_table,
    started,
    wait_until,
)

pytestmark = pytest.mark.kernel

SERVICE = ("--service", "a.org=serve")
LEAVE_ONE = "setsid -f sleep 600 >/dev/null 2>&1; echo done"
SUPERVISOR = "supervisor"


@contextmanager
def background(
    script: str, caller: Caller = Caller.ORDINARY, **settings: object
) -> Iterator[Started]:
    before = mount_table()
    variables = {**environment(), "BACKGROUND": "y"}
    options = {"options": SERVICE, "caller": caller, "env": variables, **settings}
    with started("sh", "-c", script, **options) as session:  # type: ignore[arg-type]
        try:
            yield session
        finally:
            for pid in session.pids_of("sleep"):
                os.kill(pid, signal.SIGKILL)
    assert mount_table() == before


def init_of(session: Started) -> int:
    return session.pid_of("cvmfsexec-init")


def supervisor_of(session: Started) -> int:
    status = Path(f"/proc/{init_of(session)}/status").read_text()
    return int(status.split("PPid:")[1].split()[0])


@callers
def test_what_the_command_leaves_goes_on_with_its_mounts(caller: Caller) -> None:
    with background(LEAVE_ONE, caller) as session:
        out, err = session.process.communicate(timeout=60)
        assert (session.process.returncode, out, err) == (0, "done\n", "")
        left = session.pid_of("sleep")
        assert session.pids_of("cvmfs:a.org")
        assert "/cvmfs/a.org" in Path(f"/proc/{left}/mounts").read_text()


def test_it_has_the_pids_of_the_host() -> None:
    with background("sleep 600 >/dev/null 2>&1 & echo $!") as session:
        out, _ = session.process.communicate(timeout=60)
        assert session.pids_of("sleep") == [int(out)]


def test_the_session_ends_with_the_last_that_was_left() -> None:
    two = "setsid -f sleep 600 >/dev/null 2>&1; setsid -f sleep 601 >/dev/null 2>&1"
    with background(two) as session:
        assert session.finish() == 0
        wait_until(lambda: len(session.pids_of("sleep")) == 2, "both run")
        first, second = session.pids_of("sleep")
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: session.pids_of("sleep") == [second], "one is left")
        assert session.pids_of("cvmfs:a.org")
        os.kill(second, signal.SIGKILL)
        wait_until(session.is_gone, "nothing is left")


def test_a_command_that_leaves_nothing_ends_the_session() -> None:
    with background("echo alone") as session:
        assert session.finish() == 0
        wait_until(session.is_gone, "nothing is left")


def test_a_command_that_fails_ends_the_session() -> None:
    with background(f"{LEAVE_ONE}; exit 7") as session:
        assert session.finish() == 7
        assert session.is_gone()


@pytest.mark.parametrize("role", [SUPERVISOR, "cvmfsexec-init", "cvmfs:a.org"])
def test_nothing_is_left_when_a_process_is_killed(role: str) -> None:
    with background(LEAVE_ONE) as session:
        assert session.finish() == 0
        is_supervisor = role == SUPERVISOR
        victim = supervisor_of(session) if is_supervisor else session.pid_of(role)
        os.kill(victim, signal.SIGKILL)
        wait_until(session.is_gone, "nothing is left")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_it_ends_when_it_is_asked_to(name: str) -> None:
    with background(LEAVE_ONE) as session:
        assert session.finish() == 0
        os.kill(supervisor_of(session), signal.Signals[name])
        wait_until(session.is_gone, "nothing is left")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGKILL"])
def test_who_is_killed_too_early_leaves_nothing(name: str) -> None:
    number = signal.Signals[name]
    script = 'trap "exit 9" TERM INT; setsid -f sleep 600 >&2; sleep 1 & wait; sleep 1'
    with background(script, stderr=subprocess.DEVNULL) as session:
        wait_until(lambda: len(session.pids_of("sleep")) == 2, "the command runs")
        session.process.send_signal(number)
        assert session.finish() == (9 if number != signal.SIGKILL else -number)
        wait_until(session.is_gone, "nothing is left")


def test_what_keeps_it_from_starting_is_said() -> None:
    options = ("--service", "a.org=refuse")
    with background("echo never", options=options) as session:
        out, err = session.process.communicate(timeout=60)
    assert (session.process.returncode, out) == (9, "")
    assert err == "ServiceFailedError: no way to a.org (walk)\n"
