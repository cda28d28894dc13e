"""Hundreds of sessions of one installation that are started in the same second."""

import contextlib
import json
import os
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import pytest

from tests.support.host_mounts import skip_without_fusermount
from tests.support.installs import (
    Host,
    Installation,
    abstract_sockets,
    installation,
    ordinary_uid,
)
from tests.support.published import FQRN, publish_tree, serve
from tests.support.sessions import Caller, Started, skip_unless_possible, wait_until

pytestmark = [pytest.mark.kernel, pytest.mark.slow, pytest.mark.timeout(900)]

PATIENCE_S = 300
PATIENT = f"CVMFS_TIMEOUT_DIRECT={PATIENCE_S}\n"  # one small server for all of them
PAYLOAD = ("sh", "-c", f'cat /cvmfs/{FQRN}/hello; read -r _; exit "$0"')


@pytest.fixture(scope="module")
def install(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    skip_unless_possible(Caller.ORDINARY)
    made = publish_tree(tmp_path_factory.mktemp("published"), {"hello": b"hello\n"})
    with (
        serve(made.output) as base_url,
        installation(base_url, made.master_key_pem, settings=PATIENT) as built,
    ):
        yield built


class Crowd(NamedTuple):
    """Sessions that all run; the payload of the n-th has said hello.

    Attributes:
        sessions: In the order of their numbers.
        gate: Payloads end when it is closed, with their number as status.
    """

    sessions: list[subprocess.Popen[str]]
    gate: int

    def end(self) -> list[tuple[int, str, str]]:
        """Let all end; return statuses, and what they have said since."""
        os.close(self.gate)
        said = [one.communicate(timeout=PATIENCE_S) for one in self.sessions]
        return [
            (one.returncode, *text)
            for one, text in zip(self.sessions, said, strict=True)
        ]


@contextmanager
def crowd(install: Installation, lines: list[tuple[str, ...]]) -> Iterator[Crowd]:
    """Start all sessions at one instant; look that nothing is left of them."""
    mark = uuid.uuid4().hex
    barrier = str(install.top / "barrier")
    os.mkfifo(barrier)
    os.chown(barrier, ordinary_uid(), -1)
    waiting, gate = os.pipe()
    mounts = Host().mounts_below(install.top)
    # Who opens a pipe to read from it waits until somebody opens it to write.
    until_told = ("sh", "-c", ': <"$0"; exec "$@"', barrier)
    started: list[subprocess.Popen[str]] = []
    try:
        for number, words in enumerate(lines):
            line = install.line("cvmfsexec", *words, FQRN, "--", *PAYLOAD, str(number))
            started.append(
                install.start(*until_told, *line, stdin=waiting, SESSION_MARK=mark)
            )
        with open(barrier, "w", encoding="ascii"):
            said = [one.stdout.readline() for one in started if one.stdout]
        assert said == ["hello\n"] * len(lines)
        yield Crowd(started, gate)
        everybody = Started(started[0], mark)
        wait_until(everybody.is_gone, "no process is left")
        os.unlink(barrier)
        assert Host().mounts_below(install.top) == mounts
        assert install.leftovers() == []
        assert not abstract_sockets(ordinary_uid()) & {
            f"@cvmfsexec/{ordinary_uid()}/+{one.pid}" for one in started
        }
    finally:
        os.close(waiting)
        for one in started:
            if one.poll() is None:
                one.kill()
                one.communicate()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(barrier)


def test_two_hundred_sessions_start_in_the_same_second(install: Installation) -> None:
    with crowd(install, [()] * 200) as everybody:
        assert everybody.end() == [(number, "", "") for number in range(200)]


def test_fifty_sessions_of_two_modes_some_with_names(install: Installation) -> None:
    skip_without_fusermount()
    name = f"crowd-{uuid.uuid4().hex[:8]}"
    lines: list[tuple[str, ...]] = [
        ("--mode", str(2 + number % 2)) for number in range(50)
    ]
    names = {number: f"{name}-{number}" for number in range(0, 50, 5)}
    for number, one in names.items():
        lines[number] += ("--name", one)
    with crowd(install, lines) as everybody:
        listed = json.loads(
            install.run(*install.line("cvmfs", "sessions", "--json")).stdout
        )
        assert set(names.values()) <= {one["name"] for one in listed}
        wanted = ("--", "cat", f"/cvmfs/{FQRN}/hello")
        guests = [
            install.start(
                *install.line("cvmfsexec", "--join", one, *wanted),
                stdin=subprocess.DEVNULL,
            )
            for one in names.values()
        ]
        told = [one.communicate(timeout=PATIENCE_S) for one in guests]
        assert told == [("hello\n", "")] * len(names)
        assert everybody.end() == [(number, "", "") for number in range(50)]
