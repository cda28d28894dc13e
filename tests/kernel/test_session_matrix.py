"""Each mode, with each set of repositories, ended in each way, on each kind of host.

A test run takes as many cells of this matrix as it needs for all pairs of values to
meet. ``SESSION_MATRIX=complete`` in the environment takes all 357, in two minutes.

Mode 1 has no processes that belong together: there, a reader is killed for the payload,
and the keepers for the supervisor; it has no init.
"""

import contextlib
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from enum import Enum
from itertools import product
from typing import NamedTuple

import pytest

from cvmfsexec.namespaces.mount_table import Mount
from tests.support.host_mounts import (
    CONFIG,
    DIST_NAME,
    REPOSITORIES,
    skip_without_fusermount,
)
from tests.support.installs import (
    Host,
    Installation,
    abstract_sockets,
    host_with,
    host_with_native,
    installation,
    ordinary_uid,
)
from tests.support.pairs import cover_pairs
from tests.support.published import Tree, publish_tree, serve
from tests.support.sessions import Caller, Started, skip_unless_possible, wait_until

pytestmark = pytest.mark.kernel

KEEPER = "cvmfs-keeper"
INIT = "cvmfsexec-init"
NATIVE = "native.example.org"
SLOWEST_COUNT = 8


class Repositories(Enum):
    ONE = REPOSITORIES[:1]
    THREE = REPOSITORIES
    CONFIGURED = (REPOSITORIES[0], CONFIG)

    @property
    def asked_for(self) -> tuple[str, ...]:
        return tuple(one for one in self.value if one != CONFIG)

    @property
    def victim(self) -> str:
        """Whose file server is killed."""
        last: str = self.value[-1]
        return last


class End(Enum):
    NORMAL = "normal end"
    PAYLOAD_KILLED = "payload killed"
    OUTER_TERM = "outer TERM"
    OUTER_KILL = "outer KILL"
    SERVER_KILL = "file server KILL"
    INIT_KILL = "init KILL"


class Surroundings(Enum):
    PLAIN = "plain"
    MASKED = "masked /proc"
    NO_CVMFS = "no /cvmfs on the host"
    NATIVE = "native /cvmfs"
    READ_ONLY = "read-only install"
    ODD_PATH = "install path with blanks and UTF-8"
    TMPDIR = "TMPDIR set"


class Cell(NamedTuple):
    mode: int
    repositories: Repositories
    end: End
    surroundings: Surroundings

    def __str__(self) -> str:
        names = (one.name.lower() for one in self[1:])
        return "-".join((f"mode{self.mode}", *names)).replace("_", "")


CELLS = [
    Cell(*values)
    for values in product((1, 2, 3), Repositories, End, Surroundings)
    if not (values[0] == 1 and values[2] is End.INIT_KILL)
]
IS_COMPLETE = os.environ.get("SESSION_MATRIX") == "complete"

STATUSES = {
    End.NORMAL: 7,
    End.PAYLOAD_KILLED: 137,
    End.OUTER_TERM: 143,
    End.OUTER_KILL: -signal.SIGKILL,
    End.SERVER_KILL: 6,
    End.INIT_KILL: 6,
}
MASKED_FILE = next(
    (one for one in ("/proc/keys", "/proc/timer_list") if os.path.exists(one)), ""
)
HOSTS: dict[Surroundings, Callable[[Installation], AbstractContextManager[Host]]] = {
    Surroundings.MASKED: lambda _: host_with(
        'mount --bind /dev/null "$1"', MASKED_FILE or pytest.skip("nothing to cover")
    ),
    Surroundings.NO_CVMFS: lambda _: host_with_native("absent", name=NATIVE),
    Surroundings.NATIVE: lambda _: host_with_native("plain", "mounted", name=NATIVE),
    Surroundings.READ_ONLY: lambda install: host_with(
        'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1"',
        str(install.directory),
    ),
}


class Stage:
    """What the cells have in common: installations, hosts, and how long all took."""

    def __init__(self, stack: contextlib.ExitStack, base_url: str, key: bytes) -> None:
        self._stack = stack
        self._hosts: dict[Surroundings, Host] = {}
        patient = "CVMFS_TIMEOUT_DIRECT=60\n"
        plain, odd = (
            stack.enter_context(
                installation(base_url, key, name=name, settings=patient)
            )
            for name in ("install", DIST_NAME)
        )
        self._installs = {False: plain, True: odd}
        self.times_s: list[tuple[float, float, Cell]] = []

    def install(self, cell: Cell) -> Installation:
        found = self._installs[cell.surroundings is Surroundings.ODD_PATH]
        settings = found.directory / "dist/etc/cvmfs/default.d"
        settings.mkdir(exist_ok=True)
        is_configured = cell.repositories is Repositories.CONFIGURED
        text = f"CVMFS_CONFIG_REPOSITORY={CONFIG}\n" if is_configured else ""
        (settings / "50.conf").write_text(text)
        return found

    def host(self, cell: Cell) -> Host:
        where = cell.surroundings
        if where not in self._hosts:
            make = HOSTS.get(where)
            made = make(self.install(cell)) if make else contextlib.nullcontext(Host())
            self._hosts[where] = self._stack.enter_context(made)
        return self._hosts[where]


@pytest.fixture(scope="module")
def stage(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Stage]:
    home = tmp_path_factory.mktemp("published")
    for fqrn in REPOSITORIES:
        publish_tree(home, {"hello": f"{fqrn}\n".encode()}, fqrn)
    tree: Tree = {"hello": f"{CONFIG}\n".encode(), "etc": {"cvmfs": {}}}
    made = publish_tree(home, tree, CONFIG)
    with contextlib.ExitStack() as stack:
        base_url = stack.enter_context(serve(made.output))
        built = Stage(stack, base_url, made.master_key_pem)
        yield built
        report(built.times_s, request.config)


def report(times_s: list[tuple[float, float, Cell]], config: pytest.Config) -> None:
    """Print how long the slowest cells took."""
    plugins = config.pluginmanager
    terminal = plugins.get_plugin("terminalreporter")
    capture = plugins.get_plugin("capturemanager")
    is_wanted = IS_COMPLETE or config.get_verbosity() >= 0
    if terminal is None or capture is None or not is_wanted:
        return
    with capture.global_and_fixture_disabled():
        terminal.write_line("")
        terminal.write_line(f"of {len(times_s)} cells, until up, until all is gone:")
        for up_s, gone_s, cell in sorted(times_s, key=sum_of_times)[-SLOWEST_COUNT:]:
            terminal.write_line(f"  {up_s:5.2f} s  {gone_s:5.2f} s  {cell}")


def sum_of_times(row: tuple[float, float, Cell]) -> float:
    return row[0] + row[1]


@pytest.mark.parametrize("cell", CELLS if IS_COMPLETE else cover_pairs(CELLS), ids=str)
def test_cell_ends_as_it_should_and_leaves_nothing(
    stage: Stage, cell: Cell, record_property: Callable[[str, object], None]
) -> None:
    if cell.mode != 3:
        skip_without_fusermount()
    if cell.mode != 1:
        skip_unless_possible(Caller.ORDINARY)
    play = Play(cell, stage.install(cell), stage.host(cell))
    if cell.mode == 1:
        play.mounts_of_the_host()
    else:
        play.session()
    for name, value in zip(("up_s", "gone_s"), play.times_s, strict=True):
        record_property(name, round(value, 3))
    stage.times_s.append((*play.times_s, cell))


class Play:
    """One cell, played."""

    def __init__(self, cell: Cell, install: Installation, host: Host) -> None:
        self._cell = cell
        self._install = install
        self._host = host
        self._variables = {"SESSION_MARK": uuid.uuid4().hex}
        if cell.surroundings is Surroundings.TMPDIR:
            self._variables["TMPDIR"] = str(install.temporary)
            self._variables["XDG_RUNTIME_DIR"] = ""
        self._before = self._mounts()
        self._started_s = time.monotonic()
        self._up_s = 0.0
        self.times_s: tuple[float, float] = (0.0, 0.0)

    def session(self) -> None:
        """Play mode 2 or 3."""
        names = self._cell.repositories.asked_for
        options = ("--mode", str(self._cell.mode), *names, "--")
        line = self._install.line("cvmfsexec", *options)
        places = [f"/cvmfs/{fqrn}" for fqrn in self._cell.repositories.value]
        with self._started(line, places) as session:
            self._greet(session)
            self._end_session(session)
            status = session.finish()
            self._expect_nothing(session)
            assert rest_of(session) == ("", self._complaint())
        assert status == STATUSES[self._cell.end]

    def _end_session(self, session: Started) -> None:
        if self._cell.end is End.NORMAL:
            tell(session)
        elif self._cell.end is End.PAYLOAD_KILLED:
            os.kill(session.pid_of("sh"), signal.SIGKILL)
        elif self._cell.end is End.OUTER_TERM:
            session.process.terminate()
        elif self._cell.end is End.OUTER_KILL:
            session.process.kill()
        elif self._cell.end is End.SERVER_KILL:
            os.kill(session.pid_of(self._server), signal.SIGKILL)
        else:
            os.kill(session.pid_of(INIT), signal.SIGKILL)

    def _complaint(self) -> str:
        if self._cell.end is End.SERVER_KILL:
            what = f"the file server of {self._cell.repositories.victim}"
        elif self._cell.end is End.INIT_KILL:
            what = "the session's init process"
        else:
            return ""
        return f"cvmfsexec: {what} was killed by SIGKILL; the session has ended\n"

    def mounts_of_the_host(self) -> None:
        """Play mode 1."""
        for fqrn in self._cell.repositories.asked_for:
            done = self._run("mountrepo", fqrn)
            assert (done.returncode, done.stdout) == (0, ""), done.stderr
            is_elsewhere = self._cell.surroundings is Surroundings.READ_ONLY
            assert ("mounting below" in done.stderr) is is_elsewhere
        places = [self._mountpoint(fqrn) for fqrn in self._cell.repositories.value]
        with self._started((), places) as reader:
            self._greet(reader)
            self._end_one_of_the_host(reader)
            done = self._run("umountrepo", "-a")
            assert (done.returncode, done.stderr) == (0, "")
            self._expect_nothing(reader)

    def _end_one_of_the_host(self, reader: Started) -> None:
        status = STATUSES[End.NORMAL]
        if self._cell.end is End.PAYLOAD_KILLED:
            reader.process.kill()
            status = -signal.SIGKILL
        elif self._cell.end is End.SERVER_KILL:
            count = len(self._mounts())
            os.kill(reader.pid_of(self._server), signal.SIGKILL)
            wait_until(lambda: len(self._mounts()) < count, "the keeper has unmounted")
        elif self._cell.end is not End.NORMAL:
            is_kill = self._cell.end is End.OUTER_KILL
            number = signal.SIGKILL if is_kill else signal.SIGTERM
            for pid in reader.pids_of(KEEPER):
                os.kill(pid, number)
        if reader.process.poll() is None:
            tell(reader)
        assert reader.finish() == status

    def _mountpoint(self, fqrn: str) -> str:
        (found,) = [
            one.mountpoint
            for one in self._mounts()
            if os.path.basename(one.mountpoint) == fqrn
        ]
        return found

    @property
    def _server(self) -> str:
        return f"cvmfs:{self._cell.repositories.victim}"[:15]

    def _mounts(self) -> list[Mount]:
        return self._host.mounts_below(self._install.top, "/cvmfs")

    def _run(self, name: str, *words: str) -> subprocess.CompletedProcess[str]:
        line = self._install.line(name, *words)
        return self._install.run(*line, host=self._host, **self._variables)

    def _started(
        self, line: tuple[str, ...], places: list[str]
    ) -> AbstractContextManager[Started]:
        """Start a command that shows what it finds, and ends when it is told to."""
        script = (
            'for one; do cat "$one/hello" || exit; done; echo "${TMPDIR-unset}"; '
            f"cat /cvmfs/{NATIVE}/who 2>/dev/null; echo up; read -r _; exit 7"
        )
        words = (*line, "sh", "-c", script, "payload", *places)
        return self._install.started(*words, host=self._host, **self._variables)

    def _greet(self, started: Started) -> None:
        assert started.process.stdout is not None
        told: list[str] = []
        while (line := started.process.stdout.readline()) != "up\n":
            assert line, (told, rest_of(started))
            told.append(line)
        self._up_s = time.monotonic()
        expected = [*self._cell.repositories.value]
        expected.append(self._variables.get("TMPDIR", "unset"))
        if self._cell.surroundings is Surroundings.NATIVE:
            expected.append("host")
        assert told == [f"{one}\n" for one in expected]
        new_count = len(self._mounts()) - len(self._before)
        is_on_host = self._cell.mode != 3
        assert new_count == is_on_host * len(self._cell.repositories.value)

    def _expect_nothing(self, started: Started) -> None:
        wait_until(started.is_gone, "no process is left")
        wait_until(lambda: self._mounts() == self._before, "no mount is left")
        gone_s = time.monotonic()
        assert self._install.leftovers() == []
        name = f"@cvmfsexec/{ordinary_uid()}/+{started.process.pid}"
        assert name not in abstract_sockets(ordinary_uid())
        self.times_s = (self._up_s - self._started_s, gone_s - self._up_s)


def tell(started: Started) -> None:
    """Tell the command to go on to its end."""
    assert started.process.stdin is not None
    started.process.stdin.write("\n")
    started.process.stdin.flush()


def rest_of(session: Started) -> tuple[str, str]:
    """Return what else it has said, on both streams."""
    assert session.process.stdout is not None
    assert session.process.stderr is not None
    return session.process.stdout.read(), session.process.stderr.read()
