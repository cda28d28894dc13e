"""Sessions on the real kernel, started as different callers in different places.

A session is a process of its own, ``session_command.py``. Each carries a mark in its
environment, by which every process that belongs to it can be found, whoever became its
parent.
"""

import functools
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DRIVER = (sys.executable, str(ROOT / "tests/support/session_command.py"))

ORDINARY_UID = 1001  # scripts/prepare-machine gives it a name
PATIENCE_S = 60.0

_MARK = "SESSION_MARK"
_MASKED_FILES = ("/proc/keys", "/proc/timer_list", "/proc/kcore")


class Caller(Enum):
    """Who starts a session."""

    ROOT = "root"
    ORDINARY = "ordinary user"


class Place(Enum):
    """Where a session is started; ``MASKED_PROC`` allows no pid namespace."""

    PLAIN = "plain"
    MASKED_PROC = "masked /proc"


callers = pytest.mark.parametrize("caller", list(Caller), ids=lambda one: one.name)
places = pytest.mark.parametrize("place", list(Place), ids=lambda one: one.name)


class Started:
    """A session that runs, and the processes that belong to it."""

    def __init__(self, process: subprocess.Popen[str], mark: str) -> None:
        self.process = process
        self._mark = mark

    def pids(self) -> set[int]:
        """Return all processes of the session, payload and supervisor included."""
        wanted = f"{_MARK}={self._mark}".encode()
        return {pid for pid in _all_pids() if wanted in _read(pid, "environ")}

    def pids_of(self, name: str) -> list[int]:
        """Return the processes that ``ps`` calls so."""
        return [
            pid for pid in self.pids() if _read(pid, "comm").decode().strip() == name
        ]

    def pid_of(self, name: str) -> int:
        """Return the oldest process that ``ps`` calls so, as soon as there is one.

        ``supervisor`` is the one that was started.
        """
        if name == "supervisor":
            return self.process.pid
        found: list[int] = []

        def look() -> bool:
            found[:] = self.pids_of(name)
            return bool(found)

        wait_until(look, f"there is a process {name}")
        return min(found)

    def finish(self) -> int:
        """Wait for the session's end, and return its exit status."""
        return self.process.wait(PATIENCE_S)

    def is_gone(self) -> bool:
        """Whether no process of the session is left."""
        return not self.pids()


def wrap(
    words: tuple[str, ...], caller: Caller, place: Place = Place.PLAIN
) -> tuple[str, ...]:
    """Return a command that runs ``words`` as a caller in a place; skip if impossible.

    The command is executed in the end, so its pid is that of the started process.
    """
    if place is Place.MASKED_PROC:
        words = (*_masking(), *words) if caller is Caller.ROOT else words
    if caller is Caller.ROOT:
        if os.geteuid() != 0:
            pytest.skip("only root can start a session as root")
        return words
    if os.geteuid() == 0:
        words = (*_as_ordinary_user(), *words)
        if place is Place.MASKED_PROC:
            words = (*_masking(), *words)
    elif place is Place.MASKED_PROC:
        words = (*_masking_without_root(), *words)
    return words


def command(
    *options: str, payload: tuple[str, ...], caller: Caller, place: Place = Place.PLAIN
) -> tuple[str, ...]:
    """Return the command line of a session."""
    skip_unless_possible(caller)
    return wrap((*DRIVER, *options, "--", *payload), caller, place)


def run(
    *words: str,
    options: tuple[str, ...] = (),
    caller: Caller = Caller.ORDINARY,
    place: Place = Place.PLAIN,
    **settings: object,
) -> subprocess.CompletedProcess[str]:
    """Run a session to its end; output is captured."""
    arguments = {
        "cwd": "/",
        "env": environment(),
        "capture_output": True,
        "timeout": PATIENCE_S,
        "stdin": subprocess.DEVNULL,
        **settings,
    }
    line = command(*options, payload=words, caller=caller, place=place)
    return subprocess.run(line, text=True, check=False, **arguments)  # type: ignore[call-overload,no-any-return]


@contextmanager
def started(
    *words: str,
    options: tuple[str, ...] = (),
    caller: Caller = Caller.ORDINARY,
    place: Place = Place.PLAIN,
    **settings: object,
) -> Iterator[Started]:
    """Start a session; at the end it is killed, and checked to leave no process."""
    mark = uuid.uuid4().hex
    arguments = {
        "cwd": "/",
        "env": environment(),
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "stdin": subprocess.DEVNULL,
        **settings,
    }
    arguments["env"] = {**arguments["env"], _MARK: mark}  # type: ignore[dict-item]
    line = command(*options, payload=words, caller=caller, place=place)
    process = subprocess.Popen(line, text=True, **arguments)  # type: ignore[call-overload]
    session = Started(process, mark)
    try:
        yield session
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()
        try:
            wait_until(session.is_gone, "the session has left no process")
        finally:
            for pid in session.pids():
                os.kill(pid, signal.SIGKILL)


def environment() -> dict[str, str]:
    """Return what the driver needs, and little else."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "LC_ALL": "C.UTF-8",
    }


def wait_until(condition: Callable[[], bool], claim: str) -> None:
    """Wait for a condition to hold.

    Raises:
        AssertionError: It does not hold in time; the message is the claim.
    """
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s, f"not so: {claim}"
        time.sleep(0.005)


@functools.cache
def skip_unless_possible(caller: Caller) -> None:
    """Skip the test if this caller cannot have a session here: found by trying."""
    line = wrap((*DRIVER, "--", "true"), caller)
    tried = subprocess.run(
        line,
        cwd="/",
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    if tried.returncode != 0:
        pytest.skip(f"no session as {caller.value} here: {tried.stderr.strip()}")


def mount_table() -> list[str]:
    """Return the mounts of the host, as this process sees them."""
    return Path("/proc/self/mounts").read_text().splitlines()


def _as_ordinary_user() -> tuple[str, ...]:
    uid = str(ORDINARY_UID)
    return ("setpriv", "--reuid", uid, "--regid", uid, "--clear-groups")


def _masking() -> tuple[str, ...]:
    """Cover a file of /proc, as container runtimes do; needs root."""
    script = 'mount --bind /dev/null "$0" && exec "$@"'
    return ("unshare", "-m", "sh", "-c", script, _masked_file())


def _masking_without_root() -> tuple[str, ...]:
    script = 'mount --bind /dev/null "$0" && exec "$@"'
    return ("unshare", "-rm", "sh", "-c", script, _masked_file())


def _masked_file() -> str:
    for path in _MASKED_FILES:
        if os.path.exists(path):
            return path
    pytest.skip("nothing in /proc to cover")


def _all_pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""
