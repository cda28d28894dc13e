"""Whatever is killed, with any signal, in any order: nothing is left of a session."""

import contextlib
import itertools
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from cvmfsexec.namespaces.init import GRACE_S
from tests.support.session_command import SESSION_STATUS
from tests.support.sessions import (
    Caller,
    Place,
    Started,
    callers,
    command,
    environment,
    mount_table,
    places,
    run,
    started,
    wait_until,
)

SERVICES = ("--service", "a.org=serve", "--service", "b.org=serve")
PAYLOAD = ("sleep", "600")
ROLES = {
    "supervisor": "supervisor",
    "init": "cvmfsexec-init",
    "service": "cvmfs:a.org",
    "payload": "sleep",
}

DAEMONS = """
    sleep 601 &
    (sleep 602 &) &
    setsid sh -c 'trap "" TERM HUP INT; sleep 603 & wait; sleep 604' &
    setsid -f setsid -f sleep 605
"""


def is_up(session: Started) -> bool:
    """Wait until services and payload run."""
    return all(session.pid_of(name) for name in ROLES.values())


# -- one process at a time ----------------------------------------------------------


@callers
@places
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGINT"])
def test_nothing_is_left_when_one_process_is_killed(
    name: str, role: str, caller: Caller, place: Place
) -> None:
    number = signal.Signals[name]
    before = mount_table()
    options = {"options": SERVICES, "caller": caller, "place": place}
    with started(*PAYLOAD, **options) as session:  # type: ignore[arg-type]
        assert is_up(session)
        os.kill(session.pid_of(ROLES[role]), number)
        status = session.finish()
        wait_until(session.is_gone, "nothing is left")
        told = session.process.stderr.read() if session.process.stderr else ""
    assert mount_table() == before
    if name != "SIGKILL" or role == "payload":
        assert (status, told) == (128 + number, "")
    elif role == "supervisor":
        assert status == -number
    else:
        lost = "session's init process" if role == "init" else "file server of a.org"
        sentence = f"the {lost} was killed by SIGKILL; the session has ended"
        assert status == SESSION_STATUS
        assert told == f"SessionError: {sentence} ()\n"


@callers
@places
@pytest.mark.parametrize("victim", ["none", *ROLES])
def test_background_children_end_with_the_session(
    victim: str, caller: Caller, place: Place
) -> None:
    script = f"{DAEMONS} echo up; {'exit 3' if victim == 'none' else 'sleep 600'}"
    options = {"options": SERVICES, "caller": caller, "place": place}
    with started("sh", "-c", script, **options) as session:  # type: ignore[arg-type]
        assert session.process.stdout is not None
        assert session.process.stdout.readline() == "up\n"
        if victim != "none":
            roles = {**ROLES, "payload": "sh"}
            os.kill(session.pid_of(roles[victim]), signal.SIGKILL)
        status = session.finish()
        if victim != "supervisor":
            # All is over before the supervisor says so.
            assert session.is_gone()
        wait_until(session.is_gone, "nothing is left")
    assert victim != "none" or status == 3


@places
def test_stopped_processes_are_ended_too(place: Place) -> None:
    with started(*PAYLOAD, options=SERVICES, place=place) as session:
        assert is_up(session)
        for name in ("sleep", "cvmfs:b.org"):
            os.kill(session.pid_of(name), signal.SIGSTOP)
        os.kill(session.pid_of("cvmfs:a.org"), signal.SIGKILL)
        assert session.finish() == SESSION_STATUS
        wait_until(session.is_gone, "nothing is left")


def test_payload_that_kills_all_it_can_ends_the_session() -> None:
    # "-1" is everything that it may signal: in a pid namespace, init is spared.
    done = run("sh", "-c", "trap '' TERM; kill -KILL -1; sleep 600", options=SERVICES)
    assert done.returncode == SESSION_STATUS
    assert "was killed by SIGKILL; the session has ended" in done.stderr


# -- several, and at bad times ------------------------------------------------------


@places
@pytest.mark.parametrize("pair", list(itertools.permutations(ROLES, 2)), ids="-".join)
def test_nothing_is_left_when_two_are_killed_at_once(
    pair: tuple[str, str], place: Place
) -> None:
    with started(*PAYLOAD, options=SERVICES, place=place) as session:
        assert is_up(session)
        victims = [session.pid_of(ROLES[role]) for role in pair]
        for pid in victims:
            with contextlib.suppress(ProcessLookupError):  # it has followed the first
                os.kill(pid, signal.SIGKILL)
        status = session.finish()
        wait_until(session.is_gone, "nothing is left")
        supervisors_end = {-signal.SIGKILL} if "supervisor" in pair else set()
        assert status in {137, SESSION_STATUS, *supervisors_end}


@places
@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM"])
def test_nothing_is_left_when_the_start_is_interrupted(name: str, place: Place) -> None:
    randomness = random.Random(7)  # noqa: S311 -- moments, not secrets
    for _ in range(12):
        with started(*PAYLOAD, options=SERVICES, place=place) as session:
            time.sleep(randomness.uniform(0.0, 0.15))
            pids = sorted(session.pids())
            victim = randomness.choice(pids) if pids else session.process.pid
            try:
                os.kill(victim, signal.Signals[name])
            except ProcessLookupError:
                continue
            time.sleep(randomness.uniform(0.0, 0.02))


@places
def test_no_other_session_is_disturbed(place: Place) -> None:
    with started(*PAYLOAD, options=SERVICES, place=place) as undisturbed:
        assert is_up(undisturbed)
        for role in ROLES.values():
            with started(*PAYLOAD, options=SERVICES, place=place) as session:
                assert is_up(session)
                os.kill(session.pid_of(role), signal.SIGKILL)
                session.finish()
        pid = undisturbed.pid_of("sleep")
        assert set(os.listdir(f"/proc/{pid}/root/cvmfs")) == {"a.org", "b.org"}
        assert len(undisturbed.pids()) == 5
        os.kill(pid, signal.SIGTERM)
        assert undisturbed.finish() == 143


@places
def test_fifty_sessions_run_at_once(place: Place) -> None:
    before = mount_table()
    script = "ls -d /cvmfs/a.org && exit $0"
    processes = []
    for number in range(50):
        words = ("sh", "-c", script, str(number))
        line = command(*SERVICES, payload=words, caller=Caller.ORDINARY, place=place)
        processes.append(
            subprocess.Popen(
                line,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    told = [process.communicate(timeout=120)[0] for process in processes]
    assert told == ["/cvmfs/a.org\n"] * 50
    assert [process.returncode for process in processes] == list(range(50))
    assert mount_table() == before


# -- a lost file server -------------------------------------------------------------


@places
def test_payload_is_told_of_a_lost_file_server_by_term(
    place: Place, tmp_path: Path
) -> None:
    script = "trap 'echo told; exit 5' TERM; echo up; while :; do sleep .02; done"
    touched = tmp_path / "touched"
    open_to_all(tmp_path)
    options = {
        "options": (*SERVICES, "--service", "c.org=quit"),
        "place": place,
        "env": {**environment(), "TOUCH": str(touched)},
    }
    with started("sh", "-c", script, **options) as session:  # type: ignore[arg-type]
        assert session.process.stdout is not None
        assert session.process.stderr is not None
        assert session.process.stdout.readline() == "up\n"
        touched.touch()
        assert session.process.stdout.readline() == "told\n"
        assert session.finish() == SESSION_STATUS
        assert session.process.stderr.read() == (
            "SessionError: the file server of c.org ended with status 0; "
            "the session has ended ()\n"
        )


@places
def test_payload_that_does_not_listen_is_killed_after_a_while(place: Place) -> None:
    script = "trap '' TERM; echo up; while :; do sleep .02; done"
    with started("sh", "-c", script, options=SERVICES, place=place) as session:
        assert session.process.stdout is not None
        session.process.stdout.readline()
        start_s = time.monotonic()
        os.kill(session.pid_of("cvmfs:b.org"), signal.SIGKILL)
        assert session.finish() == SESSION_STATUS
        assert GRACE_S <= time.monotonic() - start_s < 10 * GRACE_S


def open_to_all(directory: Path) -> None:
    for parent in (directory, *directory.parents):
        if parent.is_relative_to("/tmp") and parent != Path("/tmp"):
            parent.chmod(0o755)


# -- on disk ------------------------------------------------------------------------


def test_nothing_is_created_on_disk() -> None:
    if not any(os.access(f"{path}/strace", os.X_OK) for path in os.get_exec_path()):
        pytest.skip("strace is not installed")
    report = Path(f"/tmp/session trace {os.getpid()}")
    calls = "trace=open,openat,creat,mkdir,mkdirat,mknod,mknodat,symlink,rename,link"
    inner = command(*SERVICES, payload=("true",), caller=Caller.ORDINARY)
    line = ("strace", "-f", "-qq", "-e", calls, "-o", str(report), *inner)
    try:
        subprocess.run(line, env=environment(), check=True, timeout=60)
        trace = report.read_text().splitlines()
    finally:
        report.unlink(missing_ok=True)
    assert any("mkdir" in call for call in trace)  # it does trace
    # What is created in the private root is given by a relative path.
    created = [
        call
        for call in trace
        if "O_CREAT" in call or any(f" {name}" in call for name in ("mk", "sym", "re"))
        if '("/' in call or 'AT_FDCWD, "/' in call
    ]
    assert created == []
