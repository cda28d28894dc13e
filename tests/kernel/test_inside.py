"""Mounting and unmounting from inside of a session, by everybody at once."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.commands import (
    SYSTEM_PYTHON,
    client_dist,
    plain_environment,
    run_exec,
    started_exec,
)
from tests.support.host_mounts import CONFIG, configure
from tests.support.published import FQRN, publish_tree, serve
from tests.support.sessions import ROOT, Caller, Place, places, wait_until, wrap

pytestmark = pytest.mark.kernel

SECOND = "second.example.org"
THIRD = "third.example.org"
MISSING = "missing.example.org"
EXEC = str(ROOT / "cvmfsexec")
SHOW = f"cat /cvmfs/{SECOND}/who"


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("published")
    published = [
        publish_tree(home, {"who": f"{name}\n".encode()}, name)
        for name in (FQRN, SECOND, THIRD)
    ]
    keys = [one.master_key_pem for one in published]
    settings = "CVMFS_DEFAULT_DOMAIN=example.org\n"
    with (
        serve(published[0].output) as base_url,
        client_dist(base_url, *keys, settings=settings) as made,
    ):
        yield made


def inside(
    dist: Path, script: str, *words: str, place: Place = Place.PLAIN
) -> tuple[str, str, int]:
    """Run a script in a session; output, complaints, and status."""
    done = run_exec(dist, *words, "--", "bash", "-c", script, place=place)
    return done.stdout, done.stderr, done.returncode


@places
def test_a_repository_is_mounted_and_unmounted(dist: Path, place: Place) -> None:
    script = (
        f"$CVMFSMOUNT {SECOND} && {SHOW} && $CVMFSUMOUNT {SECOND} && ls -A /cvmfs"
        f"; $CVMFSMOUNT {SECOND} && {SHOW}; ls /cvmfs"
    )
    told = f"{SECOND}\nUnmounting {SECOND}\n{SECOND}\n{SECOND}\n"
    assert inside(dist, script, place=place) == (told, "", 0)


def test_it_is_mounted_beside_others(dist: Path) -> None:
    count = "grep -c ^cvmfs2./cvmfs/ /proc/mounts"
    script = f"$CVMFSMOUNT {SECOND} && cat /cvmfs/*/who; {count}"
    assert inside(dist, script, FQRN) == (f"{SECOND}\n{FQRN}\n2\n", "", 0)


def test_what_is_mounted_already_is_no_error(dist: Path) -> None:
    script = f"$CVMFSMOUNT {FQRN} && $CVMFSMOUNT {FQRN}"
    assert inside(dist, script, FQRN) == ("", "", 0)


def test_a_first_repository_can_be_unmounted(dist: Path) -> None:
    script = f"$CVMFSUMOUNT {FQRN}; ls -A /cvmfs; $CVMFSMOUNT {FQRN}; ls /cvmfs/{FQRN}"
    assert inside(dist, script, FQRN) == (f"Unmounting {FQRN}\nwho\n", "", 0)


@pytest.mark.parametrize(
    ("options", "repositories"), [((), [THIRD, SECOND]), (("-N",), [FQRN, THIRD])]
)
def test_the_session_is_listed_with_what_is_mounted_now(
    dist: Path, options: tuple[str, ...], repositories: list[str]
) -> None:
    name = f"listed-{os.getpid()}"
    change = f"$CVMFSUMOUNT {FQRN}; $CVMFSMOUNT {SECOND}; " if not options else ""
    script = f"{change}exec {ROOT}/cvmfs sessions --json"
    words = (*options, "--name", name, FQRN, THIRD)
    done = run_exec(dist, *words, "--", "sh", "-c", script)
    assert done.stderr == ""
    listed = json.loads(done.stdout[done.stdout.index("[") :])
    (found,) = (one["repositories"] for one in listed if one["name"] == name)
    assert found == repositories


def test_short_names_get_the_default_domain(dist: Path) -> None:
    script = f"$CVMFSMOUNT second && {SHOW} && $CVMFSUMOUNT second"
    assert inside(dist, script) == (f"{SECOND}\nUnmounting {SECOND}\n", "", 0)


@pytest.mark.parametrize(
    ("name", "status"), [(MISSING, 16), ("a/b", 2), ("..", 2), ("x" * 61, 2)]
)
def test_what_cannot_be_mounted_leaves_nothing(
    dist: Path, name: str, status: int
) -> None:
    script = f"$CVMFSMOUNT {name}; s=$?; ls -A /cvmfs; cat /cvmfs/{FQRN}/who; exit $s"
    output, complaint, got = inside(dist, script, FQRN)
    assert (output, got) == (f"{FQRN}\n{FQRN}\n", status)
    assert complaint.startswith("mountrepo: ")
    assert name in complaint


def test_the_status_is_that_of_a_first_mount(dist: Path) -> None:
    _, complaint, status = inside(dist, "true", MISSING)
    _, said_inside, status_inside = inside(dist, f"$CVMFSMOUNT {MISSING}")
    assert status_inside == status
    assert said_inside.partition(": ")[2] == complaint.partition(": ")[2]


def test_a_busy_repository_stays(dist: Path) -> None:
    script = f"cd /cvmfs/{FQRN}; $CVMFSUMOUNT {FQRN}; s=$?; cat who; exit $s"
    output, complaint, status = inside(dist, script, FQRN)
    assert (output, status) == (f"Unmounting {FQRN}\n{FQRN}\n", 32)
    assert "busy" in complaint


def test_an_unknown_repository_is_not_unmounted(dist: Path) -> None:
    told = inside(dist, f"$CVMFSUMOUNT {MISSING}", FQRN)
    assert told == ("", f"{MISSING} not mounted\n", 1)


@pytest.mark.parametrize("words", ["-a", f"-z {FQRN}", "-za"])
def test_all_and_lazily_are_refused(dist: Path, words: str) -> None:
    script = f"$CVMFSUMOUNT {words}; s=$?; cat /cvmfs/{FQRN}/who; exit $s"
    output, complaint, status = inside(dist, script, FQRN)
    assert (output, status) == (f"{FQRN}\n", 1)
    assert "not possible in a session" in complaint


def test_a_closed_descriptor_is_an_error_at_once(dist: Path) -> None:
    script = f"exec {{CVMFSEXEC_CMDFD}}>&-; $CVMFSMOUNT {SECOND}"
    output, complaint, status = inside(dist, script)
    assert (output, status) == ("", 1)
    assert "was closed" in complaint


def test_another_descriptor_is_no_session(dist: Path) -> None:
    script = f"CVMFSEXEC_CMDFD=0 $CVMFSMOUNT {SECOND}"
    assert inside(dist, script)[2] == 1
    script = f"CVMFSEXEC_CMDFD=nonsense $CVMFSMOUNT {SECOND}"
    assert inside(dist, script)[2] == 2


def test_without_an_interface_nothing_can_be_asked(dist: Path) -> None:
    script = (
        "env | grep ^CVMFS; for f in /proc/self/fd/*; do readlink $f; done "
        f"| grep -c socket; {ROOT}/mountrepo {SECOND}"
    )
    output, complaint, status = inside(dist, script, "-N")
    assert (output, status) == ("0\n", 1)
    assert "-N" in complaint


def test_the_descriptor_is_the_only_one_that_the_payload_gets(dist: Path) -> None:
    script = "echo $CVMFSEXEC_CMDFD; exec ls /proc/self/fd"
    assert inside(dist, script)[0].split() == ["12", "0", "1", "12", "2", "3"]


def test_everybody_gets_an_own_answer(dist: Path) -> None:
    names = [SECOND, MISSING, FQRN, THIRD, "no/name", "second", "absent.example.org"]
    script = "\n".join(
        f"{{ $CVMFSMOUNT {names[number % 7]} 2>&1 | cat >&2; "
        f"echo {names[number % 7]} ${{PIPESTATUS[0]}}; }} &"
        for number in range(21)
    )
    output, _, status = inside(dist, f"{script}\nwait", FQRN)
    statuses = {MISSING: 16, "absent.example.org": 16, "no/name": 2}
    wanted = sorted(f"{name} {statuses.get(name, 0)}" for name in names * 3)
    assert (sorted(output.splitlines()), status) == (wanted, 0)


ATTACK = """
import os, socket, sys, array
channel = socket.socket(fileno=int(os.environ["CVMFSEXEC_CMDFD"]))
def rights(*descriptors):
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
bad = [b"", b"MOUNTREPO", b"MOUNTREPO ../../etc", b"\\0" * 100, b"x" * 4000,
       b"UMOUNTALL", b"PID 1", b"MOUNTREPO a.b\\nMOUNTREPO c.d", b"MOUNTREPO \\xff.b"]
for data in bad:
    channel.send(data)
    channel.sendmsg([data], rights(*[0] * 10))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    channel.sendmsg([data], rights(theirs.fileno()))
    theirs.close()
    assert b"not a request" in ours.recv(4096), data
    reading, writing = os.pipe()
    channel.sendmsg([b"MOUNTREPO second.example.org"], rights(writing))
    os.close(writing)
    assert os.read(reading, 1) == b""
for number in range(1000):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    name = b"x%d.invalid" % (number % 50)
    channel.sendmsg([b"MOUNTREPO " + name], rights(theirs.fileno()))
    ours.close(); theirs.close()
"""


def test_hostile_requests_do_no_harm(dist: Path) -> None:
    attack = f"{SYSTEM_PYTHON} -c '{ATTACK}'"
    script = f"{attack} && $CVMFSMOUNT {SECOND} && {SHOW}"
    output, complaint, status = inside(dist, script, FQRN)
    assert (output, status) == (f"{SECOND}\n", 0), complaint


def test_a_requester_that_is_killed_disturbs_nobody(dist: Path) -> None:
    script = f"$CVMFSMOUNT {MISSING} & kill -9 $!; wait; $CVMFSMOUNT {SECOND} && {SHOW}"
    assert inside(dist, script)[0::2] == (f"{SECOND}\n", 0)


@places
@pytest.mark.parametrize("option", [(), ("-N",)], ids=["plain", "N"])
def test_sessions_nest(dist: Path, place: Place, option: tuple[str, ...]) -> None:
    words = " ".join((EXEC, "--dist", str(dist), *option))
    files = " ".join(f"/cvmfs/{name}/who" for name in (FQRN, SECOND, THIRD))
    script = f"{words} {SECOND} -- {words} {THIRD} -- cat {files}"
    told = f"{FQRN}\n{SECOND}\n{THIRD}\n"
    assert inside(dist, script, *option, FQRN, place=place) == (told, "", 0)


def test_an_inner_session_is_asked_and_not_the_outer_one(dist: Path) -> None:
    inner = f"{EXEC} --dist {dist} -- sh -c '$CVMFSMOUNT {SECOND}; {SHOW}'"
    assert inside(dist, f"{inner}; ls -A /cvmfs") == (f"{SECOND}\n", "", 0)
    inner = (
        f"{EXEC} --dist {dist} -N -- sh -c 'echo $CVMFSEXEC_CMDFD; ls /proc/self/fd'"
    )
    assert inside(dist, inner)[0].split() == ["0", "1", "2", "3"]


def test_the_repository_that_configures_is_mounted_first(tmp_path: Path) -> None:
    conf = {"etc": {"cvmfs": {"default.conf": b"CVMFS_WHICH=who\n"}}}
    publish_tree(tmp_path, conf, CONFIG)
    one = publish_tree(tmp_path, {"link": "$(CVMFS_WHICH:-none)", "who": b"me\n"})
    script = (
        f"$CVMFSUMOUNT {CONFIG}; ls -A /cvmfs; $CVMFSMOUNT {FQRN} && ls /cvmfs "
        f"&& cat /cvmfs/{FQRN}/link"
    )
    with (
        serve(one.output) as base_url,
        client_dist(base_url, one.master_key_pem) as dist,
    ):
        configure(dist)
        told = f"Unmounting {CONFIG}\n{CONFIG}\n{FQRN}\nme\n"
        assert inside(dist, script) == (told, "", 0)


def test_without_a_configuration_nothing_can_be_mounted() -> None:
    script = "$CVMFSMOUNT absent.example.org; ls -A /cvmfs; $CVMFSMOUNT a"
    done = subprocess.run(
        wrap((EXEC, "--", "bash", "-c", script), Caller.ORDINARY),
        env={**plain_environment(), "CVMFSEXEC_DIST": "", "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    if not (ROOT / "dist").exists():
        assert (done.stdout, done.returncode) == ("", 2)
        assert "there is no configuration" in done.stderr


@places
def test_the_end_of_a_later_file_server_is_that_of_the_session(
    dist: Path, place: Place
) -> None:
    script = f"$CVMFSMOUNT {SECOND} && echo up; sleep 60 & wait"
    words = ("--", "bash", "-c", script)
    with started_exec(dist, *words, place=place) as session:
        assert session.process.stdout is not None
        assert session.process.stdout.readline() == "up\n"
        os.kill(session.pid_of(f"cvmfs:{SECOND}"[:15]), signal.SIGKILL)
        assert session.finish() == 6


@places
@pytest.mark.parametrize("name", ["supervisor", "cvmfsexec-init"])
def test_nothing_is_left_of_pending_requests(
    dist: Path, name: str, place: Place
) -> None:
    many = f"for i in 1 2 3 4; do $CVMFSMOUNT x$i.{MISSING} & done"
    script = f"$CVMFSMOUNT {SECOND}; {many}; echo up; wait"
    with started_exec(dist, FQRN, "--", "bash", "-c", script, place=place) as session:
        assert session.process.stdout is not None
        assert session.process.stdout.readline() == "up\n"
        os.kill(session.pid_of(name), signal.SIGKILL)
        session.finish()
        wait_until(session.is_gone, "no process is left")
