"""The real commands, run as a user would: a checkout's launchers, a dist, a server.

``cvmfsexec`` runs as an ordinary user even when the tests run as root.
"""

import contextlib
import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.support.sessions import (
    ORDINARY_UID,
    PATIENCE_S,
    ROOT,
    Caller,
    Place,
    Started,
    skip_unless_possible,
    wait_until,
    wrap,
)

SYSTEM_PYTHON = shutil.which("python3", path="/usr/bin:/bin") or "python3"
COMMAND_PATIENCE_S = 6 * PATIENCE_S


@contextlib.contextmanager
def client_dist(
    base_url: str, *keys: bytes, settings: str = "", name: str = "dist"
) -> Iterator[Path]:
    """Make a dist that an ordinary user owns and that nobody shares.

    Beside it lies an empty directory ``tmp``, which is ``$TMPDIR`` of started sessions.

    Args:
        base_url: What comes before the name of a repository.
        keys: Master public keys, PEM.
        settings: More lines for ``default.local``.
        name: Of the directory.
    """
    top = Path(tempfile.mkdtemp(prefix="cvmfsexec-test-"))
    try:
        etc = top / name / "etc/cvmfs"
        (etc / "keys").mkdir(parents=True)
        for number, key in enumerate(keys):
            (etc / f"keys/key{number}.pub").write_bytes(key)
        (etc / "default.local").write_text(
            f"CVMFS_SERVER_URL={base_url}/@fqrn@\nCVMFS_HTTP_PROXY=DIRECT\n"
            "CVMFS_MAX_RETRIES=0\nCVMFS_TIMEOUT_DIRECT=3\n" + settings
        )
        (top / "tmp").mkdir()
        give_to_ordinary_user(top)
        yield top / name
    finally:
        shutil.rmtree(top, ignore_errors=True)


def give_to_ordinary_user(top: Path) -> None:
    """Let the ordinary user own a tree, if we are root."""
    if os.geteuid() != 0:
        return
    for directory, _, files in os.walk(top):
        os.chown(directory, ORDINARY_UID, ORDINARY_UID)
        for file in files:
            os.lchown(os.path.join(directory, file), ORDINARY_UID, ORDINARY_UID)


def run_exec(
    dist: Path,
    *words: str,
    caller: Caller = Caller.ORDINARY,
    place: Place = Place.PLAIN,
    stdin: str | None = None,
    environment: dict[str, str] | None = None,
    before: tuple[str, ...] = (),
) -> subprocess.CompletedProcess[str]:
    """Run ``cvmfsexec --dist DIST WORDS...`` to its end; output is captured.

    What is in ``before`` comes before the command, and executes it.
    """
    return subprocess.run(
        (*before, *_exec_line(dist, words, caller, place)),
        input=stdin,
        capture_output=True,
        text=True,
        errors="surrogateescape",
        check=False,
        cwd="/",
        env=environment or plain_environment(),
        timeout=COMMAND_PATIENCE_S,
    )


@contextlib.contextmanager
def started_exec(
    dist: Path,
    *words: str,
    caller: Caller = Caller.ORDINARY,
    place: Place = Place.PLAIN,
    takes_input: bool = False,
    environment: Mapping[str, str] | None = None,
    before: tuple[str, ...] = (),
) -> Iterator[Started]:
    """Start ``cvmfsexec``; at the end it is killed, and checked to leave nothing.

    What is in ``environment`` comes on top of a plain one; what is in ``before`` comes
    before the command, and executes it.
    """
    mark = uuid.uuid4().hex
    process = subprocess.Popen(
        (*before, *_exec_line(dist, words, caller, place)),
        stdin=subprocess.PIPE if takes_input else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd="/",
        env={
            **plain_environment(),
            "SESSION_MARK": mark,
            "TMPDIR": str(dist.parent / "tmp"),
            **(environment or {}),
        },
    )
    session = Started(process, mark)
    try:
        yield session
    finally:
        process.kill()
        process.communicate()
        wait_until(session.is_gone, "the session has left no process")


def run_cvmfs(dist: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
    """Run ``cvmfs WORDS...`` with a dist; output is captured."""
    return subprocess.run(
        wrap((str(ROOT / "cvmfs"), *words), Caller.ORDINARY),
        capture_output=True,
        check=False,
        cwd="/",
        env={**plain_environment(), "CVMFSEXEC_DIST": str(dist)},
        timeout=COMMAND_PATIENCE_S,
    )


def plain_environment() -> dict[str, str]:
    """Return a small environment, the same on every machine."""
    return {"PATH": "/usr/bin:/bin", "HOME": "/root", "LC_ALL": "C.UTF-8"}


def _exec_line(
    dist: Path, words: tuple[str, ...], caller: Caller, place: Place
) -> tuple[str, ...]:
    skip_unless_possible(caller)
    line = (str(ROOT / "cvmfsexec"), "--dist", str(dist), *words)
    return wrap(line, caller, place)
