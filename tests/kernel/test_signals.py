"""Signals reach the payload, from whomever they come, once."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fcntl import ioctl
from pathlib import Path

import pytest

from tests.support.sessions import (
    DRIVER,
    PATIENCE_S,
    ROOT,
    Caller,
    Place,
    Started,
    callers,
    command,
    environment,
    places,
    started,
    wait_until,
)

SERVICES = ("--service", "a.org=idle", "--service", "b.org=idle")
COUNTER = (sys.executable, str(ROOT / "tests/support/signal_counter.py"), "0.3")
ENDING = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT")


@contextmanager
def counting(
    *names: str, caller: Caller = Caller.ORDINARY, place: Place = Place.PLAIN
) -> Iterator[Started]:
    """Run a session whose payload counts these signals, and is ready to."""
    words = (*COUNTER, *names)
    with started(*words, options=SERVICES, caller=caller, place=place) as session:
        assert session.process.stdout is not None
        assert session.process.stdout.readline() == "up\n"
        yield session


def count_told_by(session: Started) -> str:
    assert session.process.stdout is not None
    told = session.process.stdout.readline().strip()
    assert session.finish() == 0
    return told


# -- to the supervisor --------------------------------------------------------------


@places
@pytest.mark.parametrize(
    "name",
    [*ENDING, "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGWINCH", "SIGXCPU", "SIGRTMIN"],
)
def test_signal_to_the_supervisor_reaches_the_payload_once(
    name: str, place: Place
) -> None:
    with counting(name, place=place) as session:
        os.kill(session.process.pid, signal.Signals[name])
        assert count_told_by(session) == f"{name}=1"


@callers
def test_two_signals_reach_the_payload_as_two(caller: Caller) -> None:
    with counting("SIGUSR1", caller=caller) as session:
        for _ in range(2):
            os.kill(session.process.pid, signal.SIGUSR1)
            time.sleep(0.05)
        assert count_told_by(session) == "SIGUSR1=2"


@places
@pytest.mark.parametrize("name", ENDING)
def test_payload_that_does_not_care_dies_of_it(name: str, place: Place) -> None:
    with started("sleep", "60", options=SERVICES, place=place) as session:
        session.pid_of("sleep")
        number = signal.Signals[name]
        os.kill(session.process.pid, number)
        assert session.finish() == 128 + number


def test_alarm_that_was_set_before_exec_reaches_the_payload() -> None:
    script = (
        "import os, signal, sys; signal.alarm(1); os.execv(sys.argv[1], sys.argv[1:])"
    )
    inner = command(payload=("sleep", "60"), caller=Caller.ORDINARY)
    which = "/usr/bin/env"
    line = (sys.executable, "-c", script, which, *inner)
    done = subprocess.run(line, env=environment(), check=False, timeout=PATIENCE_S)
    assert done.returncode == 128 + signal.SIGALRM


@pytest.mark.parametrize("name", ENDING)
def test_signal_before_the_payload_ends_the_start(name: str) -> None:
    with started("true", options=("--service", "a.org=hang")) as session:
        session.pid_of("cvmfs:a.org")
        number = signal.Signals[name]
        os.kill(session.process.pid, number)
        assert session.finish() == 128 + number


# -- to the others ------------------------------------------------------------------


@places
@pytest.mark.parametrize("role", ["cvmfsexec-init", "cvmfs:a.org"])
@pytest.mark.parametrize("name", ENDING)
def test_ending_signal_to_any_process_reaches_the_payload_once(
    name: str, role: str, place: Place
) -> None:
    with counting(name, place=place) as session:
        os.kill(session.pid_of(role), signal.Signals[name])
        assert count_told_by(session) == f"{name}=1"


@places
@pytest.mark.parametrize("role", ["cvmfsexec-init", "cvmfs:a.org"])
@pytest.mark.parametrize("name", ["SIGUSR1", "SIGUSR2", "SIGALRM", "SIGTSTP"])
def test_other_signals_to_our_processes_do_nothing(
    name: str, role: str, place: Place
) -> None:
    with counting(name, "SIGTERM", place=place) as session:
        os.kill(session.pid_of(role), signal.Signals[name])
        time.sleep(0.1)
        os.kill(session.process.pid, signal.SIGTERM)
        assert count_told_by(session) == "SIGTERM=1"


@places
@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_signal_to_every_process_reaches_the_payload_and_spares_the_services(
    name: str, place: Place
) -> None:
    with counting(name, place=place) as session:
        for pid in session.pids():
            os.kill(pid, signal.Signals[name])
        # Once by itself, once by way of the supervisor, and not by all the others.
        assert count_told_by(session) in (f"{name}=1", f"{name}=2")


# -- from the terminal --------------------------------------------------------------


class Terminal:
    """A pseudo terminal with a program on it; what it prints is read to the end."""

    def __init__(self, *words: str) -> None:
        self._master, slave = pty.openpty()

        def take_terminal() -> None:
            os.setsid()
            ioctl(0, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(
            words,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**environment(), "TERM": "dumb", "PS1": "$ "},
            cwd="/",
            preexec_fn=take_terminal,  # noqa: PLW1509 -- tests have no threads
        )
        os.close(slave)
        self.text = ""

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Read until a pattern has been printed; forget what comes before its end."""
        deadline_s = time.monotonic() + PATIENCE_S
        while (match := re.search(pattern, self.text)) is None:
            assert time.monotonic() < deadline_s, f"no {pattern!r} in {self.text!r}"
            if select.select([self._master], [], [], 0.1)[0]:
                self.text += os.read(self._master, 4096).decode()
        self.text = self.text[match.end() :]
        return match

    def hang_up(self) -> None:
        os.close(self._master)
        self._master = -1

    def close(self) -> None:
        if self._master >= 0:
            self.hang_up()
        self.process.kill()
        self.process.wait()


@contextmanager
def terminal_with(*words: str) -> Iterator[Terminal]:
    terminal = Terminal(*words)
    try:
        yield terminal
    finally:
        terminal.close()


@places
@pytest.mark.parametrize(("key", "name"), [("\x03", "SIGINT"), ("\x1c", "SIGQUIT")])
def test_key_reaches_the_payload_once(key: str, name: str, place: Place) -> None:
    line = command(
        *SERVICES, payload=(*COUNTER, name), caller=Caller.ORDINARY, place=place
    )
    with terminal_with(*line) as terminal:
        terminal.wait_for("up")
        terminal.type(key)
        assert terminal.wait_for(r"(SIG\w+=\d+)")[1] == f"{name}=1"
        assert terminal.process.wait(PATIENCE_S) == 0


@places
def test_key_ends_a_session_that_has_no_payload_yet(place: Place) -> None:
    options = ("--service", "a.org=hang")
    line = command(*options, payload=("true",), caller=Caller.ORDINARY, place=place)
    with terminal_with(*line) as terminal:
        wait_until(lambda: is_running("cvmfs:a.org", terminal), "the service runs")
        terminal.type("\x03")
        assert terminal.process.wait(PATIENCE_S) == 128 + signal.SIGINT


def is_running(name: str, terminal: Terminal) -> bool:
    pids = descendants_of(terminal.process.pid)
    return name in [read_if_alive(f"/proc/{pid}/comm").strip() for pid in pids]


def descendants_of(pid: int) -> list[int]:
    listing = read_if_alive(f"/proc/{pid}/task/{pid}/children")
    children = [int(word) for word in listing.split()]
    return children + [one for child in children for one in descendants_of(child)]


def read_if_alive(path: str) -> str:
    """Read what /proc says; of a process that ends meanwhile, nothing."""
    try:
        return Path(path).read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


@places
def test_hangup_reaches_the_payload_if_we_lead_the_session(place: Place) -> None:
    script = (
        "trap 'echo hung up > $OUT; exit' HUP; echo up; while :; do sleep .05; done"
    )
    out = f"/tmp/hangup.{os.getpid()}.{place.name}"
    words = ("env", f"OUT={out}", "sh", "-c", script)
    line = command(*SERVICES, payload=words, caller=Caller.ORDINARY, place=place)
    try:
        with terminal_with(*line) as terminal:
            terminal.wait_for("up")
            terminal.hang_up()
            terminal.process.wait(PATIENCE_S)
            with open(out, encoding="utf-8") as told:
                assert told.read() == "hung up\n"
    finally:
        os.unlink(out)


def in_words(line: tuple[str, ...]) -> str:
    return " ".join(f"'{word}'" for word in line)


@contextmanager
def stopped_job(*payload: str, place: Place) -> Iterator[Terminal]:
    """Stop a session from the keyboard of an interactive shell; ``up`` was printed."""
    line = command(*SERVICES, payload=payload, caller=Caller.ORDINARY, place=place)
    with terminal_with("bash", "--norc", "--noprofile", "-i") as terminal:
        terminal.type(in_words(line) + "\n")
        terminal.wait_for(r"\nup")
        terminal.type("\x1a")
        terminal.wait_for("Stopped")
        yield terminal


@places
def test_job_is_stopped_and_continued_by_an_interactive_shell(place: Place) -> None:
    loop = "echo up; i=0; while test $i -lt 400; do i=$((i+1)); sleep .02; done"
    words = ("bash", "-c", f'trap "echo cont" CONT; {loop}')
    with stopped_job(*words, place=place) as terminal:
        terminal.type("fg\n")
        terminal.wait_for(r"\ncont")
        terminal.type("\x03")
        terminal.type("echo status=$?\n")
        assert terminal.wait_for(r"status=(\d+)")[1] == "130"


@places
def test_stopped_job_ends_when_its_shell_is_killed(place: Place) -> None:
    with stopped_job("sh", "-c", "echo up; sleep 60", place=place) as terminal:
        pids = descendants_of(terminal.process.pid)
        assert len(pids) > 4
        terminal.process.kill()
        left = [Path(f"/proc/{pid}") for pid in pids]
        wait_until(lambda: not any(one.exists() for one in left), "nothing is left")


@places
def test_terminal_is_readable_again_after_an_interactive_payload(place: Place) -> None:
    words = ("bash", "--norc", "--noprofile", "-i")
    line = command(*SERVICES, payload=words, caller=Caller.ORDINARY, place=place)
    script = f"{in_words(line)}; echo status=$?; read line; echo got=$line"
    with terminal_with("sh", "-c", script) as terminal:
        terminal.wait_for(r"\$ ")
        terminal.type("sleep 60\n")
        time.sleep(0.2)
        terminal.type("\x03")
        terminal.type("echo two=$((1+1))\n")
        terminal.wait_for("two=2")
        terminal.type("exit 5\n")
        assert terminal.wait_for(r"status=(\d+)")[1] == "5"
        terminal.type("hello\n")
        assert terminal.wait_for(r"got=(\w+)")[1] == "hello"


def test_payload_has_the_controlling_terminal() -> None:
    inner = (*DRIVER, *SERVICES, "--", "sh", "-c", "echo to tty > /dev/tty; tty")
    with terminal_with(*inner) as terminal:
        terminal.wait_for("to tty")
        terminal.wait_for("/dev/pts/")
