"""In real containers, with and without a pid namespace of their own."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.commands import client_dist
from tests.support.containers import Container, container
from tests.support.published import FQRN, publish_tree, serve
from tests.support.sessions import ROOT, Started, wait_until

pytestmark = pytest.mark.kernel

TOP = f"/cvmfs/{FQRN}"
MARK = "SESSION_MARK"

with_and_without = pytest.mark.parametrize(
    "has_pid_namespace", [True, False], ids=["pid namespace", "host's processes"]
)


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    repository = publish_tree(tmp_path_factory.mktemp("published"), {"hello": b"hi\n"})
    with (
        serve(repository.output) as base_url,
        client_dist(base_url, repository.master_key_pem) as made,
    ):
        yield made


def exec_line(dist: Path, *words: str) -> tuple[str, ...]:
    return (str(ROOT / "cvmfsexec"), "--dist", str(dist), *words)


def host_mounts() -> list[str]:
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return [line for line in lines if FQRN in line]


@with_and_without
def test_a_command_reads_its_repository(dist: Path, *, has_pid_namespace: bool) -> None:
    with container(dist.parent, has_pid_namespace=has_pid_namespace) as made:
        script = f"cat {TOP}/hello; id -u; exit 7"
        done = made.run(*exec_line(dist, FQRN, "--", "sh", "-c", script))
    assert (done.stderr, done.returncode, done.stdout) == ("", 7, "hi\n1001\n")


@with_and_without
@pytest.mark.parametrize("victim", ["first process", "supervisor", "init", "server"])
def test_whatever_is_killed_nothing_is_left(
    dist: Path, victim: str, *, has_pid_namespace: bool
) -> None:
    script = f"cat {TOP}/hello; exec sleep 1000"
    line = exec_line(dist, FQRN, "--", "sh", "-c", script)
    if victim == "supervisor":  # which is then not the first process itself
        line = ("sh", "-c", '"$@" & wait', "sh", *line)
    with container(
        dist.parent,
        has_pid_namespace=has_pid_namespace,
        environment={MARK: str(dist.parent.name)},
    ) as made:
        with made.start(*line) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "hi\n"
            session = Started(process, dist.parent.name)
            kill(victim, made, session)
            process.wait(60)
        wait_until(session.is_gone, "no process of the session is left")
    assert not host_mounts()
    assert not list((dist / "var/lib/cvmfs" / FQRN).glob("txn/*"))


def kill(victim: str, made: Container, session: Started) -> None:
    if victim == "first process":
        made.kill()
        return
    names = {"init": "cvmfsexec-init", "server": f"cvmfs:{FQRN}"[:15]}
    if victim == "supervisor":
        init = session.pid_of("cvmfsexec-init")
        os.kill(parent_of(init), signal.SIGKILL)
    else:
        os.kill(session.pid_of(names[victim]), signal.SIGKILL)


def parent_of(pid: int) -> int:
    status = Path(f"/proc/{pid}/stat").read_text()
    return int(status.rpartition(")")[2].split()[1])


def test_the_doctor_says_what_a_container_allows(dist: Path) -> None:
    with container(dist.parent) as made:
        done = made.run(str(ROOT / "cvmfs"), "doctor", "--dist", str(dist), FQRN)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "/proc is partly covered" in done.stdout
    assert "set-uid programs have no effect here" in done.stdout


def test_a_session_in_a_session_in_a_container(dist: Path) -> None:
    inner = exec_line(dist, FQRN, "--", "cat", f"{TOP}/hello")
    with container(dist.parent) as made:
        done = made.run(*exec_line(dist, FQRN, "--", *inner))
    assert (done.returncode, done.stdout, done.stderr) == (0, "hi\n", "")
