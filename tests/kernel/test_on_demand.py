"""Repositories that are mounted when something of them is used."""

import os
import re
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.commands import SYSTEM_PYTHON, client_dist, run_exec, started_exec
from tests.support.published import FQRN, Tree, publish_tree, serve
from tests.support.sessions import PATIENCE_S, ROOT, Place, places, wait_until

pytestmark = pytest.mark.kernel

SECOND = "second.example.org"
SLOW = "slow.example.org"
MISSING = "missing.example.org"
TOP = f"/cvmfs/{SECOND}"
TREE: Tree = {
    "who": b"second\n",
    "link": "who",
    "directory": {"run": b"#!/bin/sh\necho run\n"},
}


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("published")
    published = [publish_tree(home, TREE, name) for name in (FQRN, SECOND)]
    keys = [one.master_key_pem for one in published]
    with (
        serve(published[0].output) as base_url,
        client_dist(base_url, *keys) as made,
    ):
        yield made


def inside(
    dist: Path, script: str, *words: str, place: Place = Place.PLAIN
) -> tuple[str, str, int]:
    """Run a script in a session; output, complaints, and status."""
    words = ("--on-demand", *words, "--", "bash", "-c", script)
    done = run_exec(dist, *words, place=place)
    return done.stdout, done.stderr, done.returncode


@contextmanager
def silent_server(dist: Path) -> Iterator[socket.socket]:
    """Let a repository be where connections are accepted and nothing is said."""
    settings = dist / f"etc/cvmfs/config.d/{SLOW}.conf"
    settings.parent.mkdir(exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/@fqrn@"
        settings.write_text(f"CVMFS_SERVER_URL={url}\nCVMFS_TIMEOUT_DIRECT=60\n")
        yield silent


def python(statement: str) -> str:
    return f"{SYSTEM_PYTHON} -c 'import os; print({statement})'"


@pytest.mark.parametrize(
    ("script", "told"),
    [
        (f"cat {TOP}/who", "second"),
        (f"cat {TOP}/directory/run | tail -n 1", "echo run"),
        (f"stat -c %F {TOP}/who", "regular file"),
        (f"stat -c %m {TOP}", TOP),
        (f"stat -f -c %T {TOP}", "fuseblk"),
        (f"ls {TOP}", "directory\nlink\nwho"),
        (f"cd {TOP} && cat who", "second"),
        (f"cd /cvmfs && cat {SECOND}/who", "second"),
        (f"cd /cvmfs && cat ./{SECOND}/../{SECOND}/who", "second"),
        (f"readlink {TOP}/link", "who"),
        (f"readlink -f {TOP}/link", f"{TOP}/who"),
        (f"test -r {TOP} && echo yes", "yes"),
        (f"sh {TOP}/directory/run", "run"),
        (f"find {TOP} -name who", f"{TOP}/who"),
        (f"ln -s {TOP}/who $PWD/x 2>/dev/null; echo {TOP}/w*", f"{TOP}/who"),
        (python(f'sorted(os.listdir("{TOP}"))'), "['directory', 'link', 'who']"),
        (python(f'[e.name for e in os.scandir("{TOP}/directory")]'), "['run']"),
        (python(f'os.access("{TOP}/who", os.R_OK)'), "True"),
        (python(f'open("{TOP}/who").read().strip()'), "second"),
        (python(f'len(os.listxattr("{TOP}")) > 0'), "True"),
    ],
)
def test_whatever_touches_a_repository_mounts_it(
    dist: Path, script: str, told: str
) -> None:
    output, complaint, status = inside(dist, script)
    if "stat -f" in script:
        assert (complaint, status) == ("", 0)
    else:
        assert (complaint, output.strip(), status) == ("", told, 0)


@places
@pytest.mark.parametrize("option", [(), ("-N",)], ids=["plain", "N"])
def test_it_goes_with_others_and_with_no_interface(
    dist: Path, place: Place, option: tuple[str, ...]
) -> None:
    script = f"ls /cvmfs; cat /cvmfs/{FQRN}/who {TOP}/who; ls /cvmfs"
    told = f"{FQRN}\nsecond\nsecond\n{SECOND}\n{FQRN}\n"
    assert inside(dist, script, *option, FQRN, place=place) == (told, "", 0)


@pytest.mark.parametrize("name", [".Trash", "lib", "foo", "bin.", ".git.x", "a b.c"])
def test_other_names_do_not_exist_and_ask_nobody(dist: Path, name: str) -> None:
    _, complaint, status = inside(dist, f"stat '/cvmfs/{name}'")
    assert status == 1
    assert complaint.endswith("No such file or directory\n")
    assert "cvmfsexec: " not in complaint


def test_what_cannot_be_mounted_does_not_exist_and_the_reason_is_told_once(
    dist: Path,
) -> None:
    script = f"for i in 1 2 3; do cat /cvmfs/{MISSING}/who; stat /cvmfs/{MISSING}; done"
    output, complaint, status = inside(dist, f"{script}; ls /cvmfs; cat {TOP}/who")
    assert (output, status) == ("second\n", 0)
    assert complaint.count("No such file or directory") == 6
    assert complaint.count("cvmfsexec: ") == 1


def test_many_at_once_wait_for_one_mount(dist: Path) -> None:
    script = f"for i in {{1..30}}; do cat {TOP}/who & done; wait"
    told = inside(dist, f"{script}; grep -c '^cvmfs2 {TOP} ' /proc/mounts")
    assert told == ("second\n" * 30 + "1\n", "", 0)


def test_requests_work_too_and_what_was_unmounted_comes_back(dist: Path) -> None:
    script = (
        f"$CVMFSMOUNT {SECOND} && ls /cvmfs && $CVMFSUMOUNT {SECOND} && ls /cvmfs"
        f"; cat {TOP}/who"
    )
    told = f"{SECOND}\nUnmounting {SECOND}\nsecond\n"
    assert inside(dist, script) == (told, "", 0)


def test_private_copies_of_the_mount_table_see_it(dist: Path) -> None:
    script = (
        "unshare -rm --propagation slave sh -c "
        f"'cat {TOP}/who; stat -c %m {TOP}; cat {TOP}/who'"
    )
    assert inside(dist, script) == (f"second\n{TOP}\nsecond\n", "", 0)


def test_nobody_can_make_anything_there(dist: Path) -> None:
    script = f"touch /cvmfs/x; rmdir {TOP}; ls {TOP} > /dev/null; mkdir {TOP}/x"
    output, complaint, status = inside(dist, script)
    assert (output, status) == ("", 1)
    assert complaint.count("Read-only file system") == 3


@places
@pytest.mark.parametrize("option", ["", "-N"])
def test_in_another_session_its_repositories_stay(
    dist: Path, place: Place, option: str
) -> None:
    outer = (FQRN, "--", "bash", "-c")
    inner = f"{ROOT}/cvmfsexec --dist {dist} --on-demand {option} -- sh -c"
    script = f"{inner} 'ls /cvmfs; cat /cvmfs/{FQRN}/who {TOP}/who'"
    done = run_exec(dist, *outer, script, place=place)
    told = f"{FQRN}\nsecond\nsecond\n"
    assert (done.stderr, done.stdout, done.returncode) == ("", told, 0)


@places
@pytest.mark.parametrize("name", ["supervisor", "cvmfsexec-init", "cvmfs:on-demand"])
def test_nothing_is_left_of_those_who_wait(dist: Path, name: str, place: Place) -> None:
    with silent_server(dist) as silent:
        script = f"cat /cvmfs/{SLOW}/x & ls /cvmfs/{SLOW} & echo up; wait"
        words = ("--on-demand", "--", "sh", "-c", script)
        with started_exec(dist, *words, place=place) as session:
            assert session.process.stdout is not None
            assert session.process.stdout.readline() == "up\n"
            silent.settimeout(PATIENCE_S)
            with silent.accept()[0]:
                os.kill(session.pid_of(name), signal.SIGKILL)
                session.finish()
                wait_until(session.is_gone, "no process is left")


def test_no_server_keeps_privileges(dist: Path) -> None:
    words = ("--on-demand", FQRN, "--", "sh", "-c", f"cat {TOP}/who; sleep 60 & wait")
    with started_exec(dist, *words) as session:
        assert session.process.stdout is not None
        assert session.process.stdout.readline() == "second\n"
        for name in ("cvmfs:on-demand", f"cvmfs:{FQRN}"[:15], f"cvmfs:{SECOND}"[:15]):
            tasks = Path(f"/proc/{session.pid_of(name)}/task").glob("*/status")
            kept = [re.findall(r"CapEff:\s0*(\S*)", one.read_text()) for one in tasks]
            assert kept == [[""]] * len(kept), name


@pytest.mark.parametrize("name", ["KILL", "INT", "TERM"])
def test_who_waits_can_be_ended(dist: Path, name: str) -> None:
    with silent_server(dist):
        script = f"timeout -s {name} 1 cat /cvmfs/{SLOW}/x; cat {TOP}/who"
        assert inside(dist, script)[0::2] == ("second\n", 0)


@places
def test_the_end_of_its_server_is_that_of_the_session(dist: Path, place: Place) -> None:
    words = ("--on-demand", "--", "sh", "-c", f"cat {TOP}/who; sleep 60 & wait")
    with started_exec(dist, *words, place=place) as session:
        assert session.process.stdout is not None
        assert session.process.stdout.readline() == "second\n"
        os.kill(session.pid_of("cvmfs:on-demand"), signal.SIGKILL)
        assert session.finish() == 6
        wait_until(session.is_gone, "no process is left")
