"""Mounts that are talked to: from inside, from outside, by others, and when killed."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.commands import (
    client_dist,
    give_to_ordinary_user,
    plain_environment,
    run_cvmfs,
    run_exec,
    started_exec,
)
from tests.support.published import FQRN, Tree, publish_tree, serve
from tests.support.sessions import ROOT, Started, wait_until

TOP = f"/cvmfs/{FQRN}"
TREE: Tree = {"hello": b"hello\n", "nested": {".cvmfscatalog": b"", "leaf": b"leaf\n"}}
STAY = ("--", "sh", "-c", "cd {}/nested; echo up; exec sleep 300")
COLUMNS = [
    *("VERSION", "PID", "UPTIME(M)", "MEM(K)", "REVISION", "EXPIRES(M)"),
    *("NOCATALOGS", "CACHEUSE(K)", "CACHEMAX(K)", "NOFDUSE", "NOFDMAX", "NOIOERR"),
    *("NOOPEN", "HITRATE(%)", "RX(K)", "SPEED(K/S)", "HOST", "PROXY", "ONLINE"),
]


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    made = publish_tree(tmp_path_factory.mktemp("talk"), TREE, tag="v1")
    with (
        serve(made.output) as base_url,
        client_dist(
            base_url, made.master_key_pem, settings=f"CVMFS_REPOSITORIES={FQRN}\n"
        ) as given,
    ):
        yield given


@pytest.fixture(autouse=True)
def _no_sockets(dist: Path) -> None:
    """Forget the sessions of the test before, which were killed."""
    for path in sockets(dist):
        path.unlink()


@contextlib.contextmanager
def staying(dist: Path, revision: str = "") -> Iterator[Started]:
    words = tuple(word.format(TOP) for word in STAY)
    with started_exec(dist, FQRN + revision, *words) as session:
        assert session.process.stdout is not None
        assert session.process.stdout.readline() == "up\n"
        yield session


def workspace(dist: Path) -> Path:
    return dist / "var/lib/cvmfs" / FQRN


def plain_socket(dist: Path) -> Path:
    return workspace(dist) / f"cvmfs_io.{FQRN}"


def sockets(dist: Path) -> list[Path]:
    return sorted(workspace(dist).glob("cvmfs_io.*"))


def cvmfs(dist: Path, *words: str) -> tuple[int, str, str]:
    done = run_cvmfs(dist, *words)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def test_a_session_is_talked_to_from_outside(dist: Path) -> None:
    with staying(dist) as session:
        assert sockets(dist) == [plain_socket(dist)]
        assert plain_socket(dist).stat().st_mode & 0o777 == 0o600
        assert cvmfs(dist, "talk", "-i", FQRN, "mountpoint") == (0, f"{TOP}\n", "")
        assert cvmfs(dist, "talk", FQRN, "revision") == (0, "1\n", "")
        assert cvmfs(dist, "talk", "open", "catalogs")[1].startswith("-> /\n")
        path = str(plain_socket(dist))
        assert cvmfs(dist, "talk", "-p", path, "remount")[1] == "Catalog up to date\n"
        assert cvmfs(dist, "talk", FQRN, "nonsense")[:2] == (1, "unknown command\n")
        told = json.loads(cvmfs(dist, "talk", FQRN, "revision", "--json")[1])
        (pid,) = session.pids_of(f"cvmfs:{FQRN}"[:15])
        assert told == [{"socket": path, "pid": pid, "answer": "1\n"}]


def test_a_session_that_ends_takes_its_socket_away(dist: Path) -> None:
    run_exec(dist, FQRN, "--", "true")
    assert sockets(dist) == []


def test_a_session_is_talked_to_from_inside(dist: Path) -> None:
    with staying(dist):  # another one, which is not meant
        script = f'"$0" talk revision; "$0" talk {FQRN} attribute tag; "$0" status'
        done = run_exec(dist, f"{FQRN}@v1", *inside(dist, script))
    assert done.returncode == 0, done.stderr
    revision, tag, status = done.stdout.splitlines()
    assert (revision, tag) == ("1", "v1")
    assert re.fullmatch(rf"{FQRN} mounted on {TOP} with pid \d+", status)


def inside(dist: Path, script: str) -> tuple[str, ...]:
    """Return what runs a script with the command as its ``$0``."""
    variable = f"CVMFSEXEC_DIST={dist}"
    return ("--", "env", variable, "sh", "-c", script, str(ROOT / "cvmfs"))


def test_each_of_several_sessions_answers(dist: Path) -> None:
    with staying(dist) as one, staying(dist, "@v1") as other:
        first, second = sockets(dist)
        assert first == plain_socket(dist)
        assert second.name.startswith(f"{first.name}+")
        status, told, _ = cvmfs(dist, "talk", FQRN, "attribute", "tag")
        assert (status, told) == (0, f"{first}:\n\n{second}:\nv1\n")
        listed = cvmfs(dist, "status")[1].splitlines()
        pids = {s.pids_of(f"cvmfs:{FQRN}"[:15])[0] for s in (one, other)}
        wanted = {f"{FQRN} mounted on {TOP} with pid {pid}" for pid in pids}
        assert set(listed) == wanted
        users = json.loads(cvmfs(dist, "fuser", FQRN, "--json")[1])
        assert [one["uses"] for one in users] == [["cwd"], ["cwd"]]
        assert {one["command"] for one in users} == {"sleep 300"}


def test_what_a_killed_session_left_is_replaced(dist: Path) -> None:
    with staying(dist) as session:
        os.kill(session.pid_of("cvmfsexec-init"), signal.SIGKILL)
        wait_until(session.is_gone, "it has gone")
        assert plain_socket(dist).is_socket()
        with staying(dist):
            assert sockets(dist) == [plain_socket(dist)]
            assert cvmfs(dist, "talk", FQRN, "revision") == (0, "1\n", "")


def test_who_looks_takes_away_what_is_dead(dist: Path) -> None:
    workspace(dist).mkdir(parents=True, exist_ok=True)
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as dead:
        dead.bind(str(plain_socket(dist)))
    give_to_ordinary_user(dist)
    status, told, error = cvmfs(dist, "talk", FQRN, "revision")
    assert (status, told) == (1, "")
    assert error == (
        f"Seems like CernVM-FS is not running in {workspace(dist)} "
        f"(not found: {plain_socket(dist)})\n"
    )
    assert sockets(dist) == []


def test_other_users_cannot_talk(dist: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can be another user")
    program = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX)\n"
        "try:\n    s.connect(sys.argv[1])\n"
        "except PermissionError:\n    print('refused')\n"
    )
    with staying(dist):
        for directory in (workspace(dist), *workspace(dist).parents):
            if directory == dist.parent.parent:
                break
            directory.chmod(0o711)  # so that the socket's own mode decides
        try:
            done = subprocess.run(
                [
                    *("setpriv", "--reuid", "65533", "--regid", "65533"),
                    *("--clear-groups", "python3", "-c", program),
                    str(plain_socket(dist)),
                ],
                capture_output=True,
                text=True,
                check=False,
                env=plain_environment(),
            )
        finally:
            workspace(dist).chmod(0o700)
    assert done.stdout == "refused\n", done.stderr


def test_the_mount_goes_on_whatever_is_said(dist: Path) -> None:
    with staying(dist) as session:
        for message in (b"\0" * 100, b"x" * 1_000_000, b"evict " + b"/a" * 5000, b""):
            with contextlib.closing(socket.socket(socket.AF_UNIX)) as caller:
                caller.settimeout(20)
                caller.connect(str(plain_socket(dist)))
                with contextlib.suppress(OSError):
                    caller.sendall(message)
                    caller.shutdown(socket.SHUT_WR)
                    caller.recv(1000)
        assert cvmfs(dist, "talk", FQRN, "revision") == (0, "1\n", "")
        assert session.process.poll() is None


def test_statistics_have_the_columns_of_the_original(dist: Path) -> None:
    with staying(dist) as session:
        status, told, _ = cvmfs(dist, "stat", FQRN)
        heading, line = told.splitlines()
        assert (status, heading.split()) == (0, COLUMNS)
        values = dict(zip(COLUMNS, line.split(), strict=True))
        (pid,) = session.pids_of(f"cvmfs:{FQRN}"[:15])
        assert values["PID"] == str(pid)
        assert values["REVISION"] == "1"
        assert values["ONLINE"] == "1"
        assert values["PROXY"] == "DIRECT"
        assert int(values["MEM(K)"]) > 5000
        assert int(values["CACHEMAX(K)"]) == 4000 * 1024
        assert 0 < int(values["CACHEUSE(K)"]) < int(values["CACHEMAX(K)"])
        status, long, error = cvmfs(dist, "stat", "-v", FQRN)
        assert (status, error) == (0, "")
        assert len(long.splitlines()) == len(COLUMNS) + 2
        (row,) = json.loads(cvmfs(dist, "stat", "--json")[1])
        assert (row["repository"], row["pid"], row["online"]) == (FQRN, str(pid), "1")


def test_what_is_not_mounted_is_told_so(dist: Path) -> None:
    assert cvmfs(dist, "stat", FQRN) == (1, "", f"{FQRN} not mounted\n")
    assert cvmfs(dist, "status", FQRN)[:2] == (1, "")
    assert cvmfs(dist, "status") == (0, "", "")
    assert cvmfs(dist, "fuser", FQRN)[0] == 1


@pytest.mark.parametrize("asked", ["status", "stat"])
def test_a_mount_that_does_not_answer_is_unhealthy(dist: Path, asked: str) -> None:
    with staying(dist) as session:
        (pid,) = session.pids_of(f"cvmfs:{FQRN}"[:15])
        os.kill(pid, signal.SIGSTOP)
        try:
            status, told, error = cvmfs(dist, asked, FQRN)
        finally:
            os.kill(pid, signal.SIGCONT)
    assert (status, told) == (1, "")
    assert str(plain_socket(dist)) in error
    assert "not mounted" not in error


def test_all_parameters_are_shown_of_all_repositories(dist: Path) -> None:
    status, told, _ = cvmfs(dist, "showconfig", "-s")
    assert status == 0
    heading, name, *_ = told.splitlines()
    assert heading == f"Running cvmfs showconfig {FQRN}:"
    assert name == f"CVMFS_REPOSITORY_NAME={FQRN}"
    (row,) = json.loads(cvmfs(dist, "showconfig", "--json")[1])
    assert row["repository"] == FQRN


def test_words_change_a_running_mount(dist: Path) -> None:
    with staying(dist):
        for command, answer in (
            ("timeout set 3 4", "OK\n"),
            ("timeout info", "Timeout with proxy: 3s\nTimeout without proxy: 4s\n"),
            ("evict /hello", "OK\n"),
            ("pin /hello", "OK\n"),
            ("evict /hello", "OK\n"),
            ("host probe", "OK\n"),
            ("cleanup rate 10", "0\n"),
        ):
            assert cvmfs(dist, "talk", FQRN, *command.split()) == (0, answer, "")


@pytest.mark.parametrize(
    ("use", "wanted"),
    [
        (f"exec sleep 300 < {TOP}/hello", "open"),
        (f"exec {TOP}/program 300", "exe,mapped"),
    ],
)
@pytest.mark.parametrize("mode", ["2", "3"])
def test_all_ways_of_use_are_seen(
    tmp_path: Path, mode: str, use: str, wanted: str
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "hello").write_bytes(b"hello\n")
    shutil.copy2("/bin/sleep", tree / "program")
    made = publish_tree(tmp_path, tree)
    with (
        serve(made.output) as base_url,
        client_dist(base_url, made.master_key_pem) as given,
        started_exec(
            *(given, "--mode", mode, FQRN, "--", "sh", "-c", f"echo up; {use}")
        ) as session,
    ):
        line = session.process.stdout and session.process.stdout.readline()
        if not line:
            pytest.skip(f"mode {mode} does not work here")

        def is_seen() -> bool:
            rows = cvmfs(given, "fuser", FQRN, "--json")[1]
            return bool(rows) and [",".join(r["uses"]) for r in json.loads(rows)] == [
                wanted
            ]

        wait_until(is_seen, f"{wanted} in mode {mode}")


def test_a_new_revision_is_shown_on_request(tmp_path: Path) -> None:
    old: Tree = {"file": b"old\n", "same": {"leaf": b"leaf\n"}}
    made = publish_tree(tmp_path, old, ttl_s=86400)
    script = f"cat {TOP}/file; read line; cat {TOP}/file; read line"
    with (
        serve(made.output) as base_url,
        client_dist(base_url, made.master_key_pem) as given,
        started_exec(
            given, FQRN, "--", "sh", "-c", script, takes_input=True
        ) as session,
    ):
        out, to = session.process.stdout, session.process.stdin
        assert out is not None
        assert to is not None
        assert out.readline() == "old\n"
        assert cvmfs(given, "talk", FQRN, "remount")[1] == "Catalog up to date\n"
        publish_tree(tmp_path, {**old, "file": b"new\n"}, ttl_s=86400)
        told = cvmfs(given, "talk", FQRN, "remount", "sync")
        assert told == (0, "New revision applied\n", "")
        assert cvmfs(given, "talk", FQRN, "revision")[1] == "2\n"
        to.write("\n")
        to.flush()
        assert out.readline() == "new\n"
        (made.directory / ".cvmfspublished").write_bytes(b"no manifest")
        assert cvmfs(given, "talk", FQRN, "remount")[:2] == (1, "Failed\n")
        assert cvmfs(given, "talk", FQRN, "revision")[1] == "2\n"
