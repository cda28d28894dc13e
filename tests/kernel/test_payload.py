"""The command itself: its exit status, arguments, streams, descriptors, environment."""

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.sessions import (
    Caller,
    Place,
    callers,
    command,
    environment,
    places,
    run,
    started,
    wait_until,
)

IDLE = ("--service", "a.example.org=idle")

OF_LIBRARY = 1 << 31 | 1 << 32
"""Signals 32 and 33, the C library's own: ``make`` leaves them ignored."""


# -- exit status --------------------------------------------------------------------


@places
@pytest.mark.parametrize(
    ("script", "status"),
    [
        ("exit 0", 0),
        ("exit 7", 7),
        ("exit 255", 255),
        ("kill -TERM $$", 143),
        ("kill -KILL $$", 137),
        ("kill -SEGV $$", 139),
        ("kill -INT $$", 130),
    ],
)
def test_exit_status_is_the_commands_own(
    script: str, status: int, place: Place
) -> None:
    done = run("sh", "-c", script, place=place)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", "")


@pytest.mark.parametrize("name", ["no-such-command", "/no/such/command", "./nothing"])
def test_command_that_is_not_found_is_127(name: str) -> None:
    done = run(name)
    assert done.returncode == 127
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"cvmfsexec: {name}: ")
    assert "not found" in done.stderr or "No such file" in done.stderr


def test_empty_command_is_127() -> None:
    done = run("", "argument")
    assert done.returncode == 127
    assert done.stderr == "cvmfsexec: '': command not found\n"


def make(path: Path, text: str, mode: int) -> str:
    path.write_text(text)
    path.chmod(mode)
    for parent in path.parents:
        if parent.is_relative_to("/tmp") and parent != Path("/tmp"):
            parent.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("text", "mode", "words"),
    [
        ("#!/bin/sh\n", 0o644, "Permission denied"),
        ("#!/no/such/shell\n", 0o755, "its interpreter is missing"),
    ],
)
def test_command_that_cannot_be_executed_is_126(
    tmp_path: Path, text: str, mode: int, words: str
) -> None:
    path = make(tmp_path / "tool", text, mode)
    done = run(path)
    assert (done.returncode, done.stderr.count("\n")) == (126, 1)
    assert words in done.stderr


def test_directory_cannot_be_executed() -> None:
    assert run("/usr").returncode == 126


def test_script_without_interpreter_line_is_the_shells(tmp_path: Path) -> None:
    path = make(tmp_path / "tool", 'echo "$0 $1"; exit 5\n', 0o755)
    done = run(path, "a b")
    assert (done.returncode, done.stdout) == (5, f"{path} a b\n")


def test_command_is_looked_up_in_the_path_of_its_environment(tmp_path: Path) -> None:
    make(tmp_path / "my-tool", "#!/bin/sh\necho mine\n", 0o755)
    paths = f"{tmp_path}:{environment()['PATH']}"
    done = run("my-tool", env={**environment(), "PATH": paths})
    assert done.stdout == "mine\n"


# -- arguments, environment, limits -------------------------------------------------


def test_arguments_arrive_as_they_were() -> None:
    words = ("", " ", "a  b", "new\nline", "*", "$HOME", "'\"", "ünï", "--", "-x")
    script = "import sys; print(sys.argv[1:])"
    done = run(sys.executable, "-c", script, *words)
    assert done.stdout == f"{list(words)}\n"


def test_environment_arrives_as_it_was() -> None:
    given = {**environment(), "EMPTY": "", "SPACED": "a  b\nc", "TMPDIR": "/nowhere"}
    script = "import os; print(sorted(os.environ.items()))"
    done = run(sys.executable, "-c", script, env=given)
    assert done.stdout == f"{sorted(given.items())}\n"


def test_umask_arrives_as_it_was() -> None:
    done = run("sh", "-c", "umask", options=IDLE, preexec_fn=lambda: os.umask(0o027))
    assert done.stdout == "0027\n"


def test_limits_arrive_as_they_were() -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (123, 456))

    done = run("sh", "-c", "ulimit -Sn; ulimit -Hn", options=IDLE, preexec_fn=limit)
    assert done.stdout.split() == ["123", "456"]


@pytest.mark.parametrize("what", ["nohup", "blocked", "children"])
def test_signals_arrive_as_they_were(what: str) -> None:
    def prepare() -> None:
        if what == "nohup":
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        elif what == "blocked":
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
        else:
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)

    expected = {
        "nohup": ("SigIgn", signal.SIGHUP),
        "blocked": ("SigBlk", signal.SIGUSR2),
        "children": ("SigIgn", signal.SIGCHLD),
    }
    name, number = expected[what]
    line = ("grep", "-E", "Sig(Blk|Ign)", "/proc/self/status")
    done = run(*line, options=IDLE, preexec_fn=prepare)
    masks = dict(line.split(":\t") for line in done.stdout.splitlines())
    found = {key: int(value, 16) & ~OF_LIBRARY for key, value in masks.items()}
    wanted = dict.fromkeys(("SigBlk", "SigIgn"), 0)
    wanted[name] = 1 << (number - 1)
    assert found == wanted


def test_no_signal_is_ignored_that_was_not() -> None:
    done = run("grep", "-E", "Sig(Blk|Ign|Cgt)", "/proc/self/status", options=IDLE)
    for line in done.stdout.splitlines():
        name, mask = line.split(":\t")
        handled = 1 << (signal.SIGURG - 1) if name == "SigCgt" else 0
        assert int(mask, 16) & ~handled & ~OF_LIBRARY in (
            0,
            1 << (signal.SIGSEGV - 1),
        ), line


def test_broken_pipe_ends_the_payload_as_usual() -> None:
    done = run("bash", "-c", "yes | head -1; echo ${PIPESTATUS[0]}")
    assert done.stdout == "y\n141\n"


# -- streams and descriptors --------------------------------------------------------


@callers
def test_standard_streams_are_the_payloads(caller: Caller) -> None:
    done = run("sh", "-c", "cat; echo err >&2", stdin=None, input="in\n", caller=caller)
    assert (done.stdout, done.stderr) == ("in\n", "err\n")


def test_large_input_goes_through() -> None:
    text = "line\n" * 200_000
    done = run("cat", stdin=None, input=text)
    assert done.stdout == text


def test_nothing_is_said_on_standard_output() -> None:
    done = run("true", options=IDLE)
    assert (done.stdout, done.stderr) == ("", "")


LIST_DESCRIPTORS = """
import os
listed = map(int, os.listdir("/proc/self/fd"))
print(sorted(one for one in listed if os.path.exists(f"/proc/self/fd/{one}")))
"""


@places
def test_no_descriptor_of_ours_reaches_the_payload(place) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    done = run(sys.executable, "-c", LIST_DESCRIPTORS, options=IDLE, place=place)
    assert done.stdout == "[0, 1, 2]\n"


def test_inherited_descriptors_reach_the_payload_under_their_numbers() -> None:
    reading, writing = os.pipe()
    os.dup2(writing, 200)
    try:
        done = run(
            sys.executable,
            "-c",
            LIST_DESCRIPTORS + "os.write(200, b'hello')",
            options=IDLE,
            pass_fds=(200,),
        )
        assert done.stdout == "[0, 1, 2, 200]\n"
        assert os.read(reading, 9) == b"hello"
    finally:
        for descriptor in (reading, writing, 200):
            os.close(descriptor)


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1), (0, 1, 2)])
def test_closed_streams_stay_closed(closed: tuple[int, ...], tmp_path: Path) -> None:
    report = tmp_path / "report"
    report.touch()
    report.chmod(0o666)
    make(tmp_path / "x", "", 0o644)  # opens the way for the ordinary user

    def close() -> None:
        for descriptor in closed:
            os.close(descriptor)

    script = f"""
        exec 5>'{report}'
        for n in 0 1 2; do test -e /proc/self/fd/$n && echo $n >&5; done
    """
    run("bash", "-c", script, options=IDLE, preexec_fn=close)
    left = [number for number in (0, 1, 2) if number not in closed]
    assert report.read_text().split() == [str(number) for number in left]


@places
def test_reader_sees_the_end_when_the_payload_closes_its_output(place) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    script = "echo last; exec >&-; sleep 60"
    with started("sh", "-c", script, options=IDLE, place=place) as session:
        assert session.process.stdout is not None
        assert session.process.stdout.read() == "last\n"
        assert session.process.poll() is None


@places
def test_writer_sees_the_end_when_the_payload_closes_its_input(place) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    settings = {"options": IDLE, "place": place, "stdin": subprocess.PIPE}
    with started("sh", "-c", "exec <&-; echo; sleep 60", **settings) as session:
        assert session.process.stdout is not None
        assert session.process.stdin is not None
        session.process.stdout.readline()
        descriptor = session.process.stdin.fileno()

        def is_broken() -> bool:
            try:
                os.write(descriptor, b"x")
            except BrokenPipeError:
                return True
            return False

        wait_until(is_broken, "nobody holds the reading end")


@places
def test_inherited_pipe_ends_when_the_payload_closes_it(place) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    reading, writing = os.pipe()
    script = f"exec {writing}>&-; sleep 60"
    line = command(
        *IDLE, payload=("bash", "-c", script), caller=Caller.ORDINARY, place=place
    )
    process = subprocess.Popen(line, env=environment(), pass_fds=(writing,))
    os.close(writing)
    try:
        assert os.read(reading, 1) == b""
        assert process.poll() is None
    finally:
        os.close(reading)
        process.kill()
        process.wait()
