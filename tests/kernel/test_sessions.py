"""Sessions with a name: joined, listed, ended; and what is bound in them."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.commands import (
    client_dist,
    plain_environment,
    run_cvmfs,
    run_exec,
    started_exec,
)
from tests.support.published import FQRN, Tree, publish_tree, serve
from tests.support.sessions import (
    ORDINARY_UID,
    PATIENCE_S,
    ROOT,
    Caller,
    Place,
    Started,
    places,
    wait_until,
    wrap,
)
from tests.support.terminal import Terminal

TOP = f"/cvmfs/{FQRN}"
NATIVE_HOST = ROOT / "tests/support/native_host.py"
FIRST = ("sh", "-c", "echo up; exec sleep 1000")

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("published")
    tree: Tree = {"hello": b"hello\n", "etc": {"security": {"key": b"secret\n"}}}
    one = publish_tree(home, tree)
    with (
        serve(one.output) as base_url,
        client_dist(base_url, one.master_key_pem) as made,
    ):
        yield made


@pytest.fixture
def name() -> str:
    return f"test-{os.getpid()}-{time.monotonic_ns()}"


@contextmanager
def running(
    dist: Path,
    name: str,
    *words: str,
    place: Place = Place.PLAIN,
    options: tuple[str, ...] = (),
) -> Iterator[Started]:
    line = ("--name", name, *options, FQRN, "--", *(words or FIRST))
    with started_exec(dist, *line, place=place) as session:
        assert session.process.stdout is not None
        assert session.process.stdout.readline() == "up\n"
        yield session


def join_line(
    name: str, *words: str, place: Place = Place.PLAIN, options: tuple[str, ...] = ()
) -> tuple[str, ...]:
    if place is Place.MASKED_PROC and os.geteuid() != 0:
        # Others have a namespace for each; nobody in one may enter what is in another.
        pytest.skip("only root can mask /proc for a session and for who joins it")
    line = (str(ROOT / "cvmfsexec"), "--join", name, *options, "--", *words)
    return wrap(line, Caller.ORDINARY, place)


def join(
    name: str,
    *words: str,
    place: Place = Place.PLAIN,
    options: tuple[str, ...] = (),
    **settings: object,
) -> subprocess.CompletedProcess[str]:
    arguments = {
        "capture_output": True,
        "cwd": "/",
        "env": plain_environment(),
        "stdin": subprocess.DEVNULL,
        "timeout": PATIENCE_S,
        **settings,
    }
    line = join_line(name, *words, place=place, options=options)
    return subprocess.run(line, text=True, check=False, **arguments)  # type: ignore[call-overload,no-any-return]


@contextmanager
def joining(name: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        join_line(name, *words),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd="/",
        env=plain_environment(),
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def told(done: subprocess.CompletedProcess[str]) -> str:
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


# -- what a joined command finds -------------------------------------------------------


@places
def test_joined_command_shares_the_mounts(dist: Path, name: str, place: Place) -> None:
    with running(dist, name, place=place):
        assert told(join(name, "cat", f"{TOP}/hello", place=place)) == "hello\n"


@places
def test_joined_command_is_in_the_same_namespaces(
    dist: Path, name: str, place: Place
) -> None:
    kinds = ("user", "mnt", "pid", "net")
    script = "readlink " + " ".join(f"/proc/self/ns/{kind}" for kind in kinds)
    first = ("sh", "-c", f"{script}; echo up; exec sleep 1000")
    line = ("--name", name, "--", *first)
    with started_exec(dist, *line, place=place) as session:
        assert session.process.stdout is not None
        theirs = [session.process.stdout.readline() for _ in kinds]
        assert session.process.stdout.readline() == "up\n"
        joined = told(join(name, "sh", "-c", script, place=place))
    assert joined.splitlines(keepends=True) == theirs


def test_joined_command_can_do_no_more_than_the_payload(dist: Path, name: str) -> None:
    script = (
        "grep CapEff /proc/self/status; id -u; touch /cvmfs/x || echo no;"
        f"umount {TOP} || echo no; mount -t tmpfs x /mnt || echo no;"
        "kill -9 1; echo alive"
    )
    with running(dist, name):
        done = join(name, "sh", "-c", script)
    uid = ORDINARY_UID if os.geteuid() == 0 else os.geteuid()
    words = ["CapEff:", "0" * 16, str(uid), "no", "no", "no", "alive"]
    assert done.stdout.split() == words


def test_joined_command_keeps_what_its_caller_had(
    dist: Path, name: str, tmp_path: Path
) -> None:
    tmp_path.chmod(0o755)
    for above in tmp_path.parents[:2]:
        above.chmod(0o755)
    inherited, writer = os.pipe()
    os.write(writer, b"from a launcher\n")
    os.close(writer)
    script = f"pwd; echo $MINE; cat; cat <&{inherited}; ulimit -n"
    with running(dist, name):
        done = join(
            name,
            "bash",
            "-c",
            script,
            cwd=tmp_path,
            env={**plain_environment(), "MINE": "my own"},
            stdin=None,
            input="typed\n",
            pass_fds=[inherited],
        )
    os.close(inherited)
    lines = told(done).splitlines()
    assert lines[:4] == [str(tmp_path), "my own", "typed", "from a launcher"]


def test_processes_of_a_session_see_each_other(dist: Path, name: str) -> None:
    first = ("sh", "-c", "echo up; exec sleep 4711")
    script = "tr '\\0' ' ' </proc/2/cmdline; kill -0 2 && readlink /proc/2/exe"
    with running(dist, name, *first):
        pids = told(join(name, "pgrep", "-x", "sleep")).split()
        assert pids
        script = script.replace("/2/", f"/{pids[0]}/").replace("-0 2", f"-0 {pids[0]}")
        # The last needs the rights that MPI libraries need to copy between ranks.
        assert "sleep 4711" in told(join(name, "sh", "-c", script))


@pytest.mark.parametrize("status", [0, 1, 42, 255])
def test_exit_status_is_that_of_the_joined_command(
    dist: Path, name: str, status: int
) -> None:
    with running(dist, name):
        assert join(name, "sh", "-c", f"exit {status}").returncode == status


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("sh", "-c", "kill -9 $$"), 137),
        (("sh", "-c", "kill -TERM $$"), 143),
        (("no-such-command",), 127),
        (("/etc/passwd",), 126),
    ],
)
def test_exit_status_says_what_became_of_it(
    dist: Path, name: str, words: tuple[str, ...], status: int
) -> None:
    with running(dist, name):
        assert join(name, *words).returncode == status


def test_working_directory_must_exist_in_the_session(
    dist: Path, name: str, tmp_path: Path
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can hide a directory from an ordinary user")
    tmp_path.chmod(0o700)
    with running(dist, name):
        done = join(name, "true", cwd=tmp_path)
    assert done.returncode == 4
    assert f"cannot enter {tmp_path} inside the session" in done.stderr


# -- meeting ---------------------------------------------------------------------------


def test_eight_join_at_once(dist: Path, name: str) -> None:
    script = f"cat {TOP}/hello; exit $RANK"
    with running(dist, name):
        ranks = [
            subprocess.Popen(
                join_line(name, "sh", "-c", script),
                env={**plain_environment(), "RANK": str(rank)},
                stdout=subprocess.PIPE,
                text=True,
                cwd="/",
            )
            for rank in range(8)
        ]
        answers = [rank.communicate(timeout=PATIENCE_S)[0] for rank in ranks]
    assert answers == ["hello\n"] * 8
    assert [rank.returncode for rank in ranks] == list(range(8))


def test_who_comes_early_waits(dist: Path, name: str) -> None:
    line = join_line(name, "cat", f"{TOP}/hello", options=("--wait", "20"))
    early = subprocess.Popen(
        line, stdout=subprocess.PIPE, text=True, cwd="/", env=plain_environment()
    )
    with running(dist, name):
        assert early.communicate(timeout=PATIENCE_S)[0] == "hello\n"
    assert early.returncode == 0


@pytest.mark.parametrize("options", [(), ("--wait", "0"), ("--wait=1",)])
def test_session_that_is_not_there_is_an_error(options: tuple[str, ...]) -> None:
    done = join("nobody-has-this-name", "true", options=options)
    assert done.returncode == 2
    assert "there is no session named nobody-has-this-name" in done.stderr


def test_session_that_has_ended_cannot_be_joined(dist: Path, name: str) -> None:
    assert run_exec(dist, "--name", name, "--", "true").returncode == 0
    assert "there is no session named" in join(name, "true").stderr


@pytest.mark.parametrize("name", ["", "a b", "+1", "a/b", "ä", "x" * 65, "\n"])
def test_odd_name_is_refused(dist: Path, name: str) -> None:
    if name:
        done = run_exec(dist, "--name", name, "--", "true")
        assert (done.returncode, done.stdout) == (2, "")
    assert join(name, "true").returncode == 2


def test_name_is_one_sessions_at_a_time(dist: Path, name: str) -> None:
    with running(dist, name):
        done = run_exec(dist, "--name", name, "--", "echo", "ran")
        assert (done.returncode, done.stdout) == (2, "")
        assert f"a session named {name} is running already" in done.stderr
    wait_until(
        lambda: run_exec(dist, "--name", name, "--", "true").returncode == 0,
        "the name is free again",
    )


@pytest.mark.parametrize("victim", ["supervisor", "cvmfsexec-init"])
def test_name_is_free_after_a_hard_kill(dist: Path, name: str, victim: str) -> None:
    with running(dist, name) as session:
        os.kill(session.pid_of(victim), signal.SIGKILL)
        session.finish()
        wait_until(session.is_gone, "no process is left")
        assert run_exec(dist, "--name", name, "--", "true").returncode == 0


def test_other_users_are_refused(dist: Path, name: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can play two users")
    with running(dist, name):
        line = (str(ROOT / "cvmfsexec"), "--join", name, "--", "true")
        other = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
        for who in ((), other):
            done = subprocess.run(
                (*who, *line),
                capture_output=True,
                text=True,
                check=False,
                cwd="/",
                env=plain_environment(),
                timeout=PATIENCE_S,
            )
            assert done.returncode == 2
            assert "there is no session" in done.stderr
        assert rude_call(name, uid=65534) == b""
        assert rude_call(name, uid=ORDINARY_UID) != b""


def rude_call(name: str, uid: int) -> bytes:
    """Call the session of the ordinary user as somebody."""
    script = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET);"
        f"s.settimeout({PATIENCE_S}); s.connect('\\0cvmfsexec/{ORDINARY_UID}/{name}');"
        "sys.stdout.buffer.write(s.recv(9999))"
    )
    line = ("setpriv", "--reuid", str(uid), "--regid", str(uid), "--clear-groups")
    return subprocess.run(
        (*line, "/usr/bin/python3", "-c", script), capture_output=True, check=True
    ).stdout


def test_name_taken_by_somebody_else_is_not_trusted(name: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can play two users")
    import socket

    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as trap:
        trap.bind(f"\0cvmfsexec/{ORDINARY_UID}/{name}")
        trap.listen()
        done = join(name, "true")
    assert done.returncode == 2
    assert "belongs to somebody else" in done.stderr


def test_callers_that_talk_do_no_harm(dist: Path, name: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root knows who the ordinary user is")
    script = (
        "import socket\nfor i in range(300):\n"
        " s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
        f" s.connect('\\0cvmfsexec/{ORDINARY_UID}/{name}')\n"
        " s.send(b'x' * i)\n"
    )
    line = wrap(("/usr/bin/python3", "-c", script), Caller.ORDINARY)
    with running(dist, name):
        subprocess.run(line, check=False, capture_output=True, timeout=PATIENCE_S)
        assert told(join(name, "cat", f"{TOP}/hello")) == "hello\n"


def test_payload_cannot_join_another_session(dist: Path, name: str) -> None:
    inner = " ".join((str(ROOT / "cvmfsexec"), "--join", name, "--", "echo", "in"))
    with running(dist, name):
        done = run_exec(dist, "--", "sh", "-c", inner)
    assert done.returncode == 4
    assert (done.stdout, "enter the session" in done.stderr) == ("", True)


# -- ending ----------------------------------------------------------------------------


def started_join(line: tuple[str, ...]) -> subprocess.Popen[str]:
    """Start a command that joins a session and says ``in`` as soon as it runs."""
    joined = subprocess.Popen(
        line,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd="/",
        env=plain_environment(),
    )
    assert joined.stdout is not None
    assert joined.stdout.readline() == "in\n"
    return joined


@places
def test_joined_command_ends_with_the_session(
    dist: Path, name: str, place: Place
) -> None:
    with running(dist, name, place=place) as session:
        script = "trap 'echo bye; exit 5' TERM; echo in; while :; do sleep 0.05; done"
        line = join_line(name, "sh", "-c", script, place=place)
        joined = started_join(line)
        os.kill(session.process.pid, signal.SIGTERM)
        out, err = joined.communicate(timeout=PATIENCE_S)
        assert (out, joined.returncode) == ("bye\n", 5)
        assert f"the session {name} has ended" in err
        assert session.finish() == 143


@places
def test_stubborn_joined_command_is_killed(dist: Path, name: str, place: Place) -> None:
    with running(dist, name, place=place) as session:
        script = "trap '' TERM; echo in; while :; do sleep 0.05; done"
        line = join_line(name, "sh", "-c", script, place=place)
        joined = started_join(line)
        os.kill(session.process.pid, signal.SIGTERM)
        assert session.finish() == 143
        joined.communicate(timeout=PATIENCE_S)
        assert joined.returncode == 137


@pytest.mark.parametrize("victim", ["supervisor", "cvmfsexec-init"])
@places
def test_joined_command_does_not_outlive_a_killed_session(
    dist: Path, name: str, victim: str, place: Place
) -> None:
    with running(dist, name, place=place) as session:
        line = join_line(name, "sh", "-c", "echo in; exec sleep 1000", place=place)
        joined = started_join(line)
        os.kill(session.pid_of(victim), signal.SIGKILL)
        joined.communicate(timeout=PATIENCE_S)
        assert joined.returncode in (137, 143)


@places
def test_joined_command_does_not_outlive_its_caller(
    dist: Path, name: str, place: Place
) -> None:
    with running(dist, name, place=place):
        read, write = os.pipe()
        line = join_line(
            name, "sh", "-c", f"echo in; exec sleep 1000 9>&{write}", place=place
        )
        joined = subprocess.Popen(
            line,
            stdout=subprocess.PIPE,
            text=True,
            cwd="/",
            env=plain_environment(),
            pass_fds=[write],
        )
        os.close(write)
        assert joined.stdout is not None
        assert joined.stdout.readline() == "in\n"
        joined.kill()
        joined.communicate(timeout=PATIENCE_S)
        assert os.read(read, 1) == b""  # the last who held it has ended
        os.close(read)


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM, signal.SIGHUP])
def test_signals_are_passed_on(dist: Path, name: str, number: int) -> None:
    word = signal.Signals(number).name.removeprefix("SIG")
    script = f"trap 'exit 9' {word}; echo in; while :; do sleep 0.05; done"
    with running(dist, name), joining(name, "sh", "-c", script) as joined:
        assert joined.stdout is not None
        assert joined.stdout.readline() == "in\n"
        joined.send_signal(number)
        assert joined.wait(PATIENCE_S) == 9


def test_session_does_not_end_with_a_joined_command(dist: Path, name: str) -> None:
    with running(dist, name), joining(name, "sh", "-c", "echo in; sleep 9") as joined:
        assert joined.stdout is not None
        joined.stdout.readline()
        joined.kill()
        joined.wait()
        assert told(join(name, "cat", f"{TOP}/hello")) == "hello\n"


def test_joined_shell_has_the_terminal(dist: Path, name: str) -> None:
    shell = ("bash", "--norc", "--noediting", "-i")
    with running(dist, name), Terminal(join_line(name, *shell)) as terminal:
        terminal.type("echo $((40+2))\n")
        terminal.expect("42")
        terminal.type("cat\n")
        terminal.type("typed\n")
        terminal.expect("typed")  # by the terminal
        terminal.expect("typed")
        terminal.type("\x1a")
        terminal.expect("Stopped")
        terminal.expect("$ ")
        terminal.type("fg\n")
        terminal.expect("cat")
        terminal.type("again\n")
        terminal.expect("again")
        terminal.expect("again")  # so it has the terminal
        terminal.type("\x03")
        terminal.expect("^C")
        terminal.expect("$ ")
        terminal.type("exit 7\n")
        assert terminal.finish() == 7


# -- listing ---------------------------------------------------------------------------


def listed(dist: Path) -> list[dict[str, object]]:
    done = run_cvmfs(dist, "sessions", "--json")
    assert done.returncode == 0, done.stderr
    found: list[dict[str, object]] = json.loads(done.stdout)
    return found


def test_sessions_are_listed(dist: Path, name: str) -> None:
    before = time.time()
    with running(dist, name) as session, started_exec(dist, "--", *FIRST) as unnamed:
        number = f"+{unnamed.process.pid}"
        wait_until(
            lambda: any(
                one["name"] == number and one["is_ready"] for one in listed(dist)
            ),
            "both are listed",
        )
        by_name = {one["name"]: one for one in listed(dist)}
        assert by_name[name]["pid"] == session.process.pid
        assert by_name[name]["repositories"] == [FQRN]
        assert by_name[name]["command"] == " ".join(FIRST)
        since = by_name[name]["since"]
        assert isinstance(since, int)
        assert before - 60 < since < time.time() + 60
        text = run_cvmfs(dist, "sessions").stdout.decode()
        assert name in text
        assert number in text
        # A number will do.
        assert told(join(number, "ls", "/cvmfs")) == ""
    wait_until(lambda: name not in {one["name"] for one in listed(dist)}, "it is gone")


# -- binds -----------------------------------------------------------------------------


def test_part_of_a_repository_appears_elsewhere(dist: Path) -> None:
    done = run_exec(
        dist,
        *("--bind", f"{TOP}/etc/security:/etc/security"),
        *(f"--bind={TOP}/hello:/new/place/hello", "--bind", "usr:/cvmfs/usr:ro"),
        *(FQRN, "--", "sh", "-c"),
        "cat /etc/security/key /new/place/hello; test -x /cvmfs/usr/bin/env && echo ok",
    )
    if not os.path.isdir("/etc/security"):
        pytest.skip("no directory to bind on")
    assert told(done).split() == ["secret", "hello", "ok"]


def test_read_only_bind_cannot_be_written_to(dist: Path) -> None:
    script = "touch /there/x && rm /there/x && ! touch /ro/x && echo ok; touch /new"
    binds = ("--bind", "/tmp:/there", "--bind", "/tmp:/ro:ro")
    done = run_exec(dist, *binds, "--", "sh", "-c", script)
    assert done.stdout == "ok\n"
    assert "cannot touch '/ro/x': Read-only file system" in done.stderr
    assert "cannot touch '/new': Read-only file system" in done.stderr


@pytest.mark.parametrize("scene", ["dead", "hung"])
def test_read_only_bind_asks_no_server_below_it(dist: Path, scene: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can mount on the host what nobody serves")
    with tempfile.TemporaryDirectory(prefix="cvmfsexec-test-") as top:
        Path(top).chmod(0o755)
        done = run_exec(
            dist,
            *("--bind", f"{top}:/ro:ro", "--", "sh", "-c"),
            "grep -c ' /ro/mounted fuse ro,' /proc/self/mounts; touch /ro/x",
            before=(sys.executable, str(NATIVE_HOST), scene, "--"),
            environment={**plain_environment(), "NATIVE_NAME": f"{top}/mounted"},
        )
        assert done.stdout == "1\n"
        assert "cannot touch '/ro/x': Read-only file system" in done.stderr


@pytest.mark.parametrize(
    ("bind", "status", "sentence"),
    [
        (f"{TOP}/none:/x", 4, f"there is no {TOP}/none"),
        ("/usr:/etc/none", 4, "there is no /etc/none, and /etc is the host's"),
        ("/usr:relative", 2, "not SOURCE:TARGET"),
        ("/usr", 2, "not SOURCE:TARGET"),
        ("/usr:/", 2, "not SOURCE:TARGET"),
        ("/usr:/x:yes", 2, "not SOURCE:TARGET"),
        (":/x", 2, "not SOURCE:TARGET"),
    ],
)
def test_bind_that_cannot_be_is_an_error(
    dist: Path, bind: str, status: int, sentence: str
) -> None:
    done = run_exec(dist, "--bind", bind, FQRN, "--", "echo", "ran")
    assert (done.returncode, done.stdout) == (status, "")
    assert sentence in done.stderr
