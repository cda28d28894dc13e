"""An installation as a user has it, and hosts of different kinds to use it on.

An installation is a directory with the commands and a dist beside them; ``home``,
``run`` and ``tmp`` of the user lie beside it. A host is the machine itself, or a mount
namespace that an *anchor* process keeps, and that processes enter.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from cvmfsexec.client.talk_socket import SOCKET_PREFIX
from cvmfsexec.namespaces.mount_table import Mount, parse_mount_table
from tests.support.commands import (
    COMMAND_PATIENCE_S,
    client_dist,
    give_to_ordinary_user,
    plain_environment,
)
from tests.support.sessions import ORDINARY_UID, ROOT, Caller, Started, wait_until, wrap

_COMMANDS = (
    "cvmfs",
    "cvmfsexec",
    "mountrepo",
    "singcvmfs",
    "umountrepo",
    "scripts/launch",
)
_LINKS = (".venv", "src")
_MARK = "SESSION_MARK"
_STAY = "echo up; exec cat >/dev/null"


class Host(NamedTuple):
    """Where processes are started.

    Attributes:
        anchor: Process whose mounts they see; 0 for those of the machine.
    """

    anchor: int = 0

    @property
    def entrance(self) -> tuple[str, ...]:
        """What to write before a command line."""
        return ("nsenter", "-m", "-t", str(self.anchor)) if self.anchor else ()

    def mounts_below(self, *directories: str | Path) -> list[Mount]:
        """Return what is mounted there; other programs may mount elsewhere any time."""
        name = str(self.anchor or "self")
        table = parse_mount_table(Path(f"/proc/{name}/mountinfo").read_text())
        return [
            one for one in table if any(one.is_below(str(top)) for top in directories)
        ]


class Installation(NamedTuple):
    """Commands and a dist.

    Attributes:
        directory: Where they are.
    """

    directory: Path

    @property
    def top(self) -> Path:
        """Directory of all that belongs to the test."""
        return self.directory.parent

    @property
    def temporary(self) -> Path:
        """Empty, and for the user's temporary files; ``$TMPDIR`` if a test says so."""
        return self.top / "tmp"

    def line(self, name: str, *words: str) -> tuple[str, ...]:
        """Return a command line."""
        return (str(self.directory / name), *words)

    def run(
        self, *line: str, host: Host | None = None, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command line as an ordinary user to its end; output is captured."""
        return subprocess.run(
            self._on_host(line, host),
            env={**self._environment(), **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            timeout=COMMAND_PATIENCE_S,
        )

    def start(
        self,
        *line: str,
        host: Host | None = None,
        stdin: int,
        **variables: str,
    ) -> subprocess.Popen[str]:
        """Start a command line as an ordinary user; its other streams are pipes."""
        return subprocess.Popen(
            self._on_host(line, host),
            env={**self._environment(), **variables},
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd="/",
        )

    @contextlib.contextmanager
    def started(
        self, *line: str, host: Host | None = None, **variables: str
    ) -> Iterator[Started]:
        """Start a command line as an ordinary user; see that no process is left."""
        mark = variables.setdefault(_MARK, uuid.uuid4().hex)
        process = self.start(*line, host=host, stdin=subprocess.PIPE, **variables)
        session = Started(process, mark)
        try:
            yield session
        finally:
            process.kill()
            with contextlib.suppress(ValueError):  # the test has done so
                process.communicate()
            wait_until(session.is_gone, "no process is left")

    def leftovers(self) -> list[str]:
        """Return what is there and should not be, when nothing runs.

        Sockets for talking to mounts may be: the next mount takes their places.
        """
        mine = {*(name.partition("/")[0] for name in (*_COMMANDS, *_LINKS))}
        found = [
            *(self.top.rglob("session-*")),
            *(self.top.rglob("txn/*")),
            *(self.top.glob("*/dist/cvmfs/*")),
            *(self.top.glob("home/.cache/cvmfsexec/mounts-*/cvmfs/*")),
            *(
                path
                for path in self.top.rglob("*")
                if path.is_socket() and not path.name.startswith(SOCKET_PREFIX)
            ),
            *(one for one in self.directory.iterdir() if one.name not in mine | _OURS),
            *self.temporary.iterdir(),
            *(self.top / "run").iterdir(),
        ]
        return [str(path) for path in found]

    def _on_host(self, line: tuple[str, ...], host: Host | None) -> tuple[str, ...]:
        return (*(host or Host()).entrance, *wrap(line, Caller.ORDINARY))

    def _environment(self) -> dict[str, str]:
        return {
            **plain_environment(),
            "HOME": str(self.top / "home"),
            "XDG_RUNTIME_DIR": str(self.top / "run"),
        }


_OURS = {"dist", "log"}


@contextlib.contextmanager
def installation(
    base_url: str, *keys: bytes, name: str = "install", settings: str = ""
) -> Iterator[Installation]:
    """Install the commands of this checkout, for an ordinary user.

    Args:
        base_url: What comes before the name of a repository.
        keys: Master public keys, PEM.
        name: Of the directory.
        settings: More lines for ``default.local``.
    """
    full_name = f"{name}/dist"
    with client_dist(base_url, *keys, settings=settings, name=full_name) as dist:
        made = Installation(dist.parent)
        for command in _COMMANDS:
            (made.directory / command).parent.mkdir(exist_ok=True)
            shutil.copy(ROOT / command, made.directory / command)
        for link in _LINKS:
            (made.directory / link).symlink_to(ROOT / link)
        for directory in ("home", "run"):
            (made.top / directory).mkdir()
        give_to_ordinary_user(made.top)
        yield made


@contextlib.contextmanager
def anchored(*line: str, **variables: str) -> Iterator[Host]:
    """Keep a host that a command line makes and then executes what follows it in."""
    if os.geteuid() != 0:
        pytest.skip("only root can make such a host")
    with subprocess.Popen(
        (*line, "sh", "-c", _STAY),
        env={**plain_environment(), **variables},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd="/",
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        yield Host(process.pid)


def host_with(script: str, *words: str) -> contextlib.AbstractContextManager[Host]:
    """Make a host by a script of root's that sees the words as its arguments."""
    whole = f'{script} && shift {len(words)} && exec "$@"'
    return anchored("unshare", "-m", "sh", "-c", whole, "sh", *words)


def host_with_native(
    *scenes: str, name: str
) -> contextlib.AbstractContextManager[Host]:
    """Make a host with a ``/cvmfs`` of its own, see ``native_host.py``."""
    line = (sys.executable, str(ROOT / "tests/support/native_host.py"))
    path = f"{ROOT / 'src'}:{ROOT}"
    return anchored(*line, *scenes, "--", NATIVE_NAME=name, PYTHONPATH=path)


def ordinary_uid() -> int:
    """Return whose sessions are."""
    return ORDINARY_UID if os.geteuid() == 0 else os.geteuid()


def abstract_sockets(uid: int) -> set[str]:
    """Return the names at which sessions of a user can be met."""
    prefix = f"@cvmfsexec/{uid}/"
    words = (line.split() for line in Path("/proc/net/unix").read_text().splitlines())
    return {line[-1] for line in words if line[-1].startswith(prefix)}
