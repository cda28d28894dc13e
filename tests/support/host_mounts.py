"""Mounts that the real ``fusermount`` makes on this host, and who serves them.

A *site* has a configuration repository and three others, on the machine's loopback. Its
dist has a blank and a letter in its path that ASCII lacks.
"""

import contextlib
import functools
import os
import signal
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from cvmfsexec.namespaces.fusermount import find_helper
from cvmfsexec.namespaces.mount_table import Mount, read_mount_table
from tests.support.commands import (
    COMMAND_PATIENCE_S,
    client_dist,
    plain_environment,
)
from tests.support.published import Tree, publish_tree, serve
from tests.support.sessions import PATIENCE_S, ROOT, Caller, Place, wait_until, wrap

CONFIG = "config.example.org"
REPOSITORIES = ("one.example.org", "two.example.org", "three.example.org")
DIST_NAME = "my dist é"
_MARK = "SESSION_MARK"


class Site(NamedTuple):
    """Repositories, and a dist to mount them with.

    Attributes:
        dist: Of the client.
        base_url: Of the server.
        master_key: Of all repositories, PEM.
        mark: In the environment of all that is started here.
    """

    dist: Path
    base_url: str
    master_key: bytes
    mark: str

    def command(
        self,
        *words: str,
        caller: Caller = Caller.ORDINARY,
        place: Place = Place.PLAIN,
        inside: tuple[str, ...] = (),
        environment: dict[str, str] | None = None,
    ) -> tuple[tuple[str, ...], dict[str, str]]:
        """Return a command of ours as it is executed, and its environment.

        Args:
            words: The command's name, and arguments; of others the path.
            caller: Who executes it.
            place: Where.
            inside: A command line that executes what follows it, somewhere else.
            environment: Additions.
        """
        name, *rest = words
        line = wrap((str(ROOT / name), *rest), caller, place)
        added = {
            "CVMFSEXEC_DIST": str(self.dist),
            "TMPDIR": str(self.temporary),
            _MARK: self.mark,
        }
        return (*inside, *line), {
            **plain_environment(),
            **added,
            **(environment or {}),
        }

    def run(
        self,
        *words: str,
        caller: Caller = Caller.ORDINARY,
        place: Place = Place.PLAIN,
        inside: tuple[str, ...] = (),
        environment: dict[str, str] | None = None,
        stdin: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of ours to its end; see ``command``."""
        line, variables = self.command(
            *words,
            caller=caller,
            place=place,
            inside=inside,
            environment=environment,
        )
        return subprocess.run(
            line,
            env=variables,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            timeout=COMMAND_PATIENCE_S,
        )

    @property
    def temporary(self) -> Path:
        """``$TMPDIR`` of all that is started here."""
        return self.dist.parent / "tmp"

    def mountpoint(self, fqrn: str) -> Path:
        """Return where ``mountrepo`` mounts."""
        return self.dist / "cvmfs" / fqrn

    def mounts(self) -> list[Mount]:
        """Return what is mounted below the dist and beside it, in order."""
        top = str(self.dist.parent)
        return [one for one in read_mount_table() if one.is_below(top)]

    def pids(self, name: str) -> list[int]:
        """Return the processes started here that ``ps`` calls so."""
        wanted = f"{_MARK}={self.mark}".encode()
        return [
            pid
            for pid in map(int, filter(str.isdecimal, os.listdir("/proc")))
            if wanted in _read(pid, "environ")
            and _read(pid, "comm").decode().strip() == name
        ]

    def server_pid(self, fqrn: str) -> int:
        """Return the process that serves a repository."""
        (pid,) = self.pids(f"cvmfs:{fqrn}"[:15])
        return pid

    def has_process(self) -> bool:
        """Whether anything is left of what was started here."""
        wanted = f"{_MARK}={self.mark}".encode()
        pids = map(int, filter(str.isdecimal, os.listdir("/proc")))
        return any(wanted in _read(pid, "environ") for pid in pids)

    def clean(self) -> None:
        """Take away all that a test has left."""
        for one in reversed(self.mounts()):
            subprocess.run(("umount", "-l", one.mountpoint), check=False)
        wait_until(lambda: not self.mounts(), "nothing is mounted")
        wait_until(lambda: not self.has_process(), "no process is left")


@contextlib.contextmanager
def site(directory: Path) -> Iterator[Site]:
    """Publish and serve the repositories; skips where ``fusermount`` cannot mount."""
    skip_without_fusermount()
    settings = f"CVMFS_WHICH={CONFIG}\n".encode()
    made = publish_tree(
        directory, {"etc": {"cvmfs": {"default.conf": settings}}}, CONFIG
    )
    for fqrn in REPOSITORIES:
        tree: Tree = {"hello": fqrn.encode(), "which": "$(CVMFS_WHICH)"}
        publish_tree(directory, tree, fqrn)
    with (
        serve(made.output) as base_url,
        client_dist(
            base_url,
            made.master_key_pem,
            settings=f"CVMFS_TIMEOUT_DIRECT={PATIENCE_S:.0f}\n",  # for busy machines
            name=DIST_NAME,
        ) as dist,
    ):
        one = Site(dist, base_url, made.master_key_pem, uuid.uuid4().hex)
        try:
            yield one
        finally:
            one.clean()


def configure(dist: Path) -> None:
    """Let the configuration repository configure the others."""
    directory = dist / "etc/cvmfs/default.d"
    directory.mkdir(exist_ok=True)
    (directory / "50.conf").write_text(f"CVMFS_CONFIG_REPOSITORY={CONFIG}\n")


@functools.cache
def skip_without_fusermount() -> None:
    """Skip if the real helper cannot mount for an ordinary user: found by trying."""
    helper = find_helper("/usr/bin:/bin")
    if not helper:
        pytest.skip("no fusermount here")
    script = (
        "import os, tempfile, sys\n"
        "from cvmfsexec.namespaces.fusermount import Fusermount\n"
        "with tempfile.TemporaryDirectory() as directory:\n"
        "    helper = Fusermount('')\n"
        "    os.close(helper.mount(directory, source='test'))\n"
        "    helper.unmount(directory, is_lazy=True)\n"
    )
    python = str(ROOT / ".venv/bin/python")
    tried = subprocess.run(
        wrap((python, "-c", script), Caller.ORDINARY),
        env={"PYTHONPATH": str(ROOT / "src"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=COMMAND_PATIENCE_S,
    )
    if tried.returncode != 0:
        pytest.skip(f"{helper} cannot mount here: {tried.stderr.strip()[-200:]}")


def kill(*pids: int) -> None:
    """End processes that a test has started."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""
