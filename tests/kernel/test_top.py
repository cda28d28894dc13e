"""``cvmfs top`` on real sessions, at a real terminal."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvmfsexec.format.gauges import parse_gauges
from tests.support.commands import (
    client_dist,
    run_cvmfs,
    started_exec,
)
from tests.support.published import FQRN, publish_tree, serve
from tests.support.sessions import ROOT, Caller, wrap
from tests.support.terminal import Terminal

pytestmark = pytest.mark.kernel

TOP = f"/cvmfs/{FQRN}"
READING = f"cat {TOP}/file; echo up; while :; do ls {TOP} >/dev/null; sleep 0.05; done"


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    made = publish_tree(tmp_path_factory.mktemp("published"), {"file": b"content\n"})
    with (
        serve(made.output) as base_url,
        client_dist(base_url, made.master_key_pem) as client,
    ):
        yield client


@pytest.fixture
def session(dist: Path) -> Iterator[None]:
    with started_exec(dist, FQRN, "--", "sh", "-c", READING) as started:
        assert started.process.stdout is not None
        assert started.process.stdout.readline() == "content\n"
        assert started.process.stdout.readline() == "up\n"
        yield


@pytest.mark.usefixtures("session")
def test_sessions_are_found_and_told(dist: Path) -> None:
    done = run_cvmfs(dist, "top")
    assert (done.returncode, done.stderr) == (0, b"")
    head, row, *_ = done.stdout.decode().splitlines()
    assert head.startswith("REPOSITORY")
    assert row.split()[0] == FQRN
    assert "by DIRECT" in row


@pytest.mark.usefixtures("session")
def test_programs_are_told_everything(dist: Path) -> None:
    done = run_cvmfs(dist, "top", "--json", "-n", "2", "-d", "0.2", FQRN)
    first, second = map(parse_gauges, done.stdout.splitlines())
    assert second.at_s > first.at_s
    assert first.fqrn == FQRN
    assert first.requests["READ"] >= 1
    assert first.pid == second.pid > 1
    assert second.opened >= first.opened >= 1
    assert json.loads(done.stdout.splitlines()[0])["server"] == first.server


@pytest.mark.usefixtures("session")
def test_terminal_is_given_back(dist: Path) -> None:
    line = (str(ROOT / "cvmfs"), "top", "--dist", str(dist), "-d", "0.1")
    with Terminal(wrap(line, Caller.ORDINARY)) as terminal:
        terminal.expect("\x1b[?1049h")
        terminal.expect("REPOSITORY")
        terminal.expect(FQRN)
        terminal.expect("REPOSITORY")  # the next look
        terminal.type("\x03")
        terminal.expect("\x1b[?1049l")
        assert terminal.finish() == 0


def test_nothing_mounted_is_said(dist: Path) -> None:
    done = run_cvmfs(dist, "top", FQRN)
    assert done.stdout == b"nothing is mounted that could be watched\n"
    assert done.returncode == 0


@pytest.mark.parametrize(
    "words", [("-d", "0"), ("-d", "soon"), ("-n", "0"), ("-n", "-1"), ("not a name",)]
)
def test_wrong_values_are_told(dist: Path, words: tuple[str, ...]) -> None:
    done = run_cvmfs(dist, "top", *words)
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr
    assert done.stderr
