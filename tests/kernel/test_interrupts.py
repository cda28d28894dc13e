"""Those who wait for a server that stalls can be ended, and nobody else is disturbed.

The server stalls until the test lets it go on, and no timeout would end the wait: what
returns while the gate is shut has not waited for the server.
"""

import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.apptainer import busybox_image, skip_without
from tests.support.commands import client_dist, run_exec, started_exec
from tests.support.host_mounts import Site as HostSite
from tests.support.host_mounts import skip_without_fusermount
from tests.support.http_server import Hold, HttpServer
from tests.support.published import FQRN, PublishedRepository, publish_tree
from tests.support.sessions import (
    PATIENCE_S,
    ROOT,
    Caller,
    Started,
    skip_unless_possible,
    wait_until,
    wrap,
)
from tests.support.singcvmfs import container_site
from tests.support.terminal import Terminal

pytestmark = pytest.mark.kernel

TOP = f"/cvmfs/{FQRN}"
READERS = 50
ROUNDS = 3
THREADS_MAX = 17 + 4  # of requests; main, ahead, landing, and one that resolves
KEPT_MAX = 16 * 2 + 8  # two for each handle of libcurl, and what is opened once
CONTENT = os.urandom(300_000)
LISTED = "part/name"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> PublishedRepository:
    skip_unless_possible(Caller.ORDINARY)
    return publish_tree(
        tmp_path_factory.mktemp("published"),
        {
            "file": CONTENT,
            "cached": b"from the cache",
            "other": b"not in the cache",
            "part": {".cvmfscatalog": b"", "name": b"nested"},
            **{f"f{number}": b"%d" % number for number in range(ROUNDS * READERS)},
        },
    )


class Site(NamedTuple):
    """A dist, and its server.

    Attributes:
        gate: Opens when the server is to go on.
    """

    dist: Path
    server: HttpServer
    gate: threading.Event

    def stall(self, path: str = "/data/") -> None:
        """Let the server stall from now on."""
        self.server.misbehave(Hold(self.gate), path)

    def wait_for_requests(self, count: int, since: int = 0) -> None:
        """Wait until so many requests for objects have come."""
        wait_until(
            lambda: self.server.count("/data/") >= since + count,
            "somebody waits for the server",
        )


@pytest.fixture
def site(
    repository: PublishedRepository, request: pytest.FixtureRequest
) -> Iterator[Site]:
    settings = f"CVMFS_TIMEOUT_DIRECT=3600\n{getattr(request, 'param', '')}"
    with (
        HttpServer(str(repository.output)) as server,
        client_dist(server.url, repository.master_key_pem, settings=settings) as dist,
    ):
        yield Site(dist, server, threading.Event())


class Inside:
    """A shell in a session, which is told what to do line by line."""

    def __init__(self, session: Started) -> None:
        self.session = session

    def tell(self, line: str) -> None:
        stdin = self.session.process.stdin
        assert stdin is not None
        stdin.write(line + "\n")
        stdin.flush()

    def hear(self) -> str:
        stdout = self.session.process.stdout
        assert stdout is not None
        return stdout.readline().strip()

    def ask(self, line: str) -> str:
        self.tell(line)
        return self.hear()

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.server_pid()}/fd"))

    def threads(self) -> int:
        return len(os.listdir(f"/proc/{self.server_pid()}/task"))

    def server_pid(self) -> int:
        return self.session.pid_of(f"cvmfs:{FQRN}"[:15])


@contextmanager
def shell(site: Site, *options: str) -> Iterator[Inside]:
    """Start a shell that has seen the directory; then the server stalls."""
    words = (*options, FQRN, "--", "sh")
    with started_exec(site.dist, *words, takes_input=True) as session:
        inside = Inside(session)
        assert inside.ask(f"cd {TOP}; cat cached; echo") == "from the cache"
        site.stall()
        yield inside


WAITS = {
    "a name below a catalog": f"stat {LISTED}",
    "a listing": "ls part",
    "content": "cat file",
}
waits = pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)


@waits
@pytest.mark.parametrize("kind", ["KILL", "TERM", "HUP", "ABRT"])
def test_who_waits_is_ended_by_a_signal(site: Site, wait: str, kind: str) -> None:
    with shell(site) as inside:
        before = site.server.count("/data/")
        pid_inside = inside.ask(f"{wait} >/dev/null & echo $!")
        site.wait_for_requests(1, since=before)
        assert inside.ask(f"kill -{kind} {pid_inside}; wait {pid_inside}; echo $?") == (
            str(128 + getattr(signal, f"SIG{kind}"))
        )
        assert not site.gate.is_set(), "the server still stalls"
        assert inside.ask("cat cached; echo") == "from the cache"


def test_in_mode_two_likewise(site: Site) -> None:
    skip_without_fusermount()
    with shell(site, "--mode", "2") as inside:
        for wait in WAITS.values():
            assert inside.ask(f"timeout 0.5 {wait} >/dev/null; echo $?") == "124"
        assert not site.gate.is_set(), "the server still stalls"


def test_in_mode_one_likewise(site: Site, here: HostSite) -> None:
    words = ("--dist", str(site.dist))
    assert here.run("mountrepo", *words, FQRN).returncode == 0
    try:
        site.stall()
        for wait in ("stat part/name", "ls part", "cat file"):
            line = f"cd {site.dist}/cvmfs/{FQRN} && exec timeout 0.5 {wait}"
            done = subprocess.run(
                wrap(("sh", "-c", line), Caller.ORDINARY),
                capture_output=True,
                check=False,
                timeout=PATIENCE_S,
            )
            assert done.returncode == 124
        assert not site.gate.is_set(), "the server still stalls"
    finally:
        assert here.run("umountrepo", *words, "-a").returncode == 0


def test_in_mode_four_likewise(repository: PublishedRepository) -> None:
    skip_without("machine")
    gate = threading.Event()
    with (
        HttpServer(str(repository.output)) as server,
        container_site(server.url, repository.master_key_pem, fqrn=FQRN) as site,
    ):
        inside = partial(site.run, "exec", str(busybox_image()))
        assert inside("cat", f"{TOP}/cached").stdout == "from the cache"
        server.misbehave(Hold(gate), "/data/")
        for wait in (f"stat {TOP}/{LISTED}", f"ls {TOP}/part", f"cat {TOP}/file"):
            words = ("timeout", "0.5", *wait.split())
            assert inside(*words).returncode == 128 + signal.SIGTERM
        assert not gate.is_set(), "the server still stalls"
        site.wait_until_gone()


def test_timeout_gives_back_the_terminal(site: Site) -> None:
    with shell(site) as inside:
        for wait in WAITS.values():
            assert inside.ask(f"timeout 0.5 {wait} >/dev/null; echo $?") == "124"
        assert not site.gate.is_set(), "the server still stalls"


def test_control_c_ends_a_pipeline(site: Site) -> None:
    line = (
        *(str(ROOT / "cvmfsexec"), "--dist", str(site.dist), FQRN, "--"),
        *("sh", "-i"),
    )
    with Terminal(wrap(line, Caller.ORDINARY)) as terminal:
        terminal.type(f"cd {TOP}; cat cached\n")
        terminal.expect("from the cache")
        site.stall()
        before = site.server.count("/data/")
        terminal.type(f"stat {LISTED} | cat | wc -l; echo 'never' said\n")
        site.wait_for_requests(1, since=before)
        terminal.type("\x03")
        terminal.type("echo 'again' here\n")
        terminal.expect("again here")
        assert not site.gate.is_set(), "the server still stalls"
        terminal.type("exit 0\n")
        terminal.finish()


BUSY_READER = """
import os, signal, sys
for number in (signal.SIGALRM, signal.SIGCHLD, signal.SIGURG):
    signal.signal(number, lambda *_: None)
    signal.siginterrupt(number, False)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
if not os.fork():
    os._exit(0)
print("begun", flush=True)
print(os.stat(sys.argv[1]).st_size, os.listdir(sys.argv[2]), flush=True)
"""


READER_WITH_HANDLER = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # of a background
print("begun", flush=True)
try:
    os.stat(sys.argv[1])
except KeyboardInterrupt:
    print("handled", flush=True)
"""


def test_signals_that_end_nobody_are_not_heard(site: Site) -> None:
    """Go's switching between goroutines, timers, ended children: no EINTR."""
    with shell(site) as inside:
        before = site.server.count("/data/")
        script = shlex.quote(BUSY_READER)
        words = f"{sys.executable} -c {script} {LISTED} part"
        assert inside.ask(f"({words}) 2>&1") == "begun"
        site.wait_for_requests(1, since=before)
        assert inside.server_pid()
        site.gate.set()
        assert inside.hear() == "6 ['.cvmfscatalog', 'name']"


def test_what_comes_after_a_harmless_signal_ends_it(site: Site) -> None:
    """The kernel tells of the first signal only."""
    with shell(site) as inside:
        before = site.server.count("/data/")
        script = shlex.quote(BUSY_READER)
        words = f"{sys.executable} -c {script} {LISTED} part"
        assert inside.ask(f"{words} 2>&1 & echo $!").isdigit()
        assert inside.hear() == "begun"
        site.wait_for_requests(1, since=before)
        assert inside.ask("kill -KILL $!; wait $!; echo $?") == "137"
        assert not site.gate.is_set(), "the server still stalls"


def test_a_handler_for_control_c_is_run(site: Site) -> None:
    with shell(site) as inside:
        before = site.server.count("/data/")
        words = f"{sys.executable} -c {shlex.quote(READER_WITH_HANDLER)} {LISTED}"
        assert inside.ask(f"{words} 2>&1 &") == "begun"
        site.wait_for_requests(1, since=before)
        assert inside.ask("kill -INT $!") == "handled"
        assert not site.gate.is_set(), "the server still stalls"


@pytest.mark.parametrize("victim", [0, 1], ids=["the first", "the second"])
def test_who_was_not_interrupted_gets_it_right(site: Site, victim: int) -> None:
    with shell(site) as inside:
        before = site.server.count("/data/")
        pids = []
        for number in range(2):
            line = (
                f"sh -c 'wc -c <file; cat {LISTED}; echo' >/tmp/$$.{number} & echo $!"
            )
            pids.append(inside.ask(line))
            site.wait_for_requests(1, since=before)
        inside.ask(f"kill -KILL {pids[victim]}; wait {pids[victim]}; echo $?")
        assert not site.gate.is_set(), "the server still stalls"
        site.gate.set()
        other = 1 - victim
        assert inside.ask(f"wait {pids[other]}; cat /tmp/$$.{other}") == str(
            len(CONTENT)
        )
        assert inside.hear() == "nested"


# What is fetched ahead is for nobody in particular, and goes on.
@pytest.mark.parametrize(
    "site", ["CVMFS_READ_AHEAD=no\n"], indirect=True, ids=["alone"]
)
def test_killed_readers_leave_nothing(site: Site) -> None:
    with shell(site) as inside:
        descriptors = inside.descriptors()
        for first in range(0, ROUNDS * READERS, READERS):
            before = site.server.count("/data/")
            names = " ".join(f"f{number}" for number in range(first, first + READERS))
            started = f'for f in {names}; do cat $f & pids="$pids $!"; done; echo up'
            assert inside.ask(f"pids=; {started}") == "up"
            site.wait_for_requests(10, since=before)
            assert inside.ask("cat cached; echo") == "from the cache", "they all wait"
            assert inside.ask("kill -KILL $pids; wait $pids; echo gone") == "gone"
            assert not site.gate.is_set(), "the server still stalls"
            wait_until(lambda: _is_idle(inside), "nobody waits for the server")
            assert inside.threads() <= THREADS_MAX
        wait_until(
            lambda: inside.descriptors() <= descriptors + KEPT_MAX,
            "nothing is left open",
        )
        site.server.behave()
        assert inside.ask("cat other; echo") == "not in the cache"
        assert inside.ask(f"cat f{READERS}; echo") == str(READERS)


def _is_idle(inside: Inside) -> bool:
    """Whether no connection of the file server is left that waits for an answer."""
    return not _connections(inside.server_pid())


def _connections(pid: int) -> list[str]:
    """Return the established connections of a process."""
    with open(f"/proc/{pid}/net/tcp", encoding="ascii") as table:
        rows = [line.split() for line in table][1:]
    established = {row[9] for row in rows if row[3] == "01"}
    found = []
    for entry in os.scandir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(entry.path)
        except OSError:
            continue
        if target.startswith("socket:[") and target[8:-1] in established:
            found.append(target)
    return found


@waits
def test_the_session_ends_with_those_who_wait(site: Site, wait: str) -> None:
    with shell(site) as inside:
        before = site.server.count("/data/")
        inside.tell(f"{wait} & {wait} &")
        site.wait_for_requests(1, since=before)
        inside.tell("exit 7")
        assert inside.session.finish() == 7
        wait_until(inside.session.is_gone, "no process is left")
        assert not site.gate.is_set(), "the server still stalls"


def test_nothing_wrong_was_stored(site: Site) -> None:
    with shell(site) as inside:
        inside.tell(f"timeout 0.3 cat file; timeout 0.3 stat {LISTED}; echo over")
        assert inside.hear() == "over"
    site.gate.set()
    script = f"wc -c <{TOP}/file; cat {TOP}/{LISTED}"
    done = run_exec(site.dist, FQRN, "--", "sh", "-c", script)
    assert done.stdout == f"{len(CONTENT)}\nnested"
