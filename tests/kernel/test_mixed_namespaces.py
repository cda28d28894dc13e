"""One cache that sessions of all kinds use at once: each sees other pids, uids, mounts.

Mode 1 has its file server on the host; mode 2 as well, and shows the mount in a
namespace; mode 3 has all of it in namespaces of its own. One is the root of its user
namespace, one is nested in another, one runs in a container.
"""

import contextlib
import hashlib
import json
import os
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.commands import client_dist, plain_environment, run_cvmfs
from tests.support.containers import container, skip_without_containers
from tests.support.filled_cache import bytes_at_one_moment
from tests.support.host_mounts import skip_without_fusermount
from tests.support.nginx import Nginx
from tests.support.published import FQRN, PublishedRepository, publish_tree
from tests.support.sessions import (
    ROOT,
    Caller,
    Started,
    skip_unless_possible,
    wait_until,
    wrap,
)

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(600)]

DIRECTORIES, FILES, SIZE = 6, 80, 30_000
LIMIT_MB = 4
PATIENCE_S = 300
MARK = "SESSION_MARK"
NAMES = [f"d{number}" for number in range(DIRECTORIES)]
CONTENT = {name: [os.urandom(SIZE) for _ in range(FILES)] for name in NAMES}
NEW_ROOT = ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> PublishedRepository:
    skip_unless_possible(Caller.ORDINARY)
    skip_without_fusermount()
    skip_without_containers()
    tree = {
        name: {
            ".cvmfscatalog": b"",
            **{f"f{number:03}": content for number, content in enumerate(contents)},
        }
        for name, contents in CONTENT.items()
    }
    return publish_tree(tmp_path_factory.mktemp("published"), tree)


def order_of(number: int) -> list[str]:
    """Return in which order a session reads: each begins somewhere else."""
    return NAMES[number % DIRECTORIES :] + NAMES[: number % DIRECTORIES]


def payload(number: int, top: str) -> str:
    """Return a script that tells the sum of all that a session reads, twice."""
    paths = " ".join(f"{top}/{name}/f*" for name in order_of(number))
    return f"cat {paths} | md5sum; cat {paths} | md5sum"


def said_by(number: int) -> str:
    contents = [content for name in order_of(number) for content in CONTENT[name]]
    digest = hashlib.md5(b"".join(contents)).hexdigest()  # noqa: S324 -- a sum
    return f"{digest}  -\n" * 2


class Node:
    """A node with one cache; sessions are started together, and awaited."""

    def __init__(self, dist: Path, stack: contextlib.ExitStack) -> None:
        self._dist = dist
        self._stack = stack
        self._mark = uuid.uuid4().hex
        self._processes: list[subprocess.Popen[str]] = []

    def start_all(self) -> None:
        """Start a session of each kind, twice."""
        kinds = (self._mode_1, self._mode_2, self._mode_3)
        others = (self._new_root, self._nested, self._in_container)
        self._stack.callback(self._clean)
        for start in (*kinds, *others, *kinds[1:], *others):
            self._processes.append(start(len(self._processes)))

    def wait(self) -> None:
        """Wait until all have read everything, and see that it was right."""
        for number, process in enumerate(self._processes):
            out, err = process.communicate(timeout=PATIENCE_S)
            assert (process.returncode, err, out) == (0, "", said_by(number)), number

    def _exec(self, *words: str) -> tuple[str, ...]:
        return (str(ROOT / "cvmfsexec"), "--dist", str(self._dist), *words)

    def _reading(self, number: int, *options: str) -> tuple[str, ...]:
        script = payload(number, f"/cvmfs/{FQRN}")
        return self._exec(*options, FQRN, "--", "sh", "-c", script)

    def _start(self, *line: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            wrap(line, Caller.ORDINARY),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd="/",
            env=self._environment(),
        )

    def _environment(self) -> dict[str, str]:
        return {
            **plain_environment(),
            MARK: self._mark,
            "TMPDIR": str(self._dist.parent / "tmp"),
            "CVMFSEXEC_DIST": str(self._dist),
        }

    def _mode_1(self, number: int) -> subprocess.Popen[str]:
        mount, umount = ROOT / "mountrepo", ROOT / "umountrepo"
        reads = payload(number, str(self._dist / "cvmfs" / FQRN))
        script = (
            f"{mount} {FQRN} >/dev/null && {{ {reads}; {umount} {FQRN} >/dev/null; }}"
        )
        return self._start("sh", "-c", script)

    def _mode_2(self, number: int) -> subprocess.Popen[str]:
        return self._start(*self._reading(number, "--mode", "2"))

    def _mode_3(self, number: int) -> subprocess.Popen[str]:
        return self._start(*self._reading(number, "--mode", "3"))

    def _new_root(self, number: int) -> subprocess.Popen[str]:
        return self._start(*NEW_ROOT, *self._reading(number))

    def _nested(self, number: int) -> subprocess.Popen[str]:
        return self._start(*self._exec(FQRN, "--", *self._reading(number)))

    def _in_container(self, number: int) -> subprocess.Popen[str]:
        made = container(self._dist.parent, environment={MARK: self._mark})
        return self._stack.enter_context(made).start(*self._reading(number))

    def _clean(self) -> None:
        """Let nothing be left, whatever has happened."""
        unmount = wrap((str(ROOT / "umountrepo"), FQRN), Caller.ORDINARY)
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.communicate()
        if os.path.ismount(self._dist / "cvmfs" / FQRN):
            subprocess.run(unmount, env=self._environment(), check=False)
        session = Started(self._processes[0], self._mark)
        wait_until(session.is_gone, "no process is left")


@contextlib.contextmanager
def node(
    origin: Nginx, repository: PublishedRepository, settings: str
) -> Iterator[tuple[Path, Node]]:
    """Make a node with an empty cache, whose requests are counted from zero."""
    with (
        client_dist(origin.url, repository.master_key_pem, settings=settings) as dist,
        contextlib.ExitStack() as stack,
    ):
        origin.forget_requests()
        yield dist, Node(dist, stack)


@contextlib.contextmanager
def sampling(sample: Callable[[], object]) -> Iterator[None]:
    """Call something all the time, in the background."""
    is_over = threading.Event()

    def run() -> None:
        while not is_over.wait(0.05):
            sample()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def test_each_object_is_fetched_once_for_all_of_them(
    origin: Nginx, repository: PublishedRepository
) -> None:
    with node(origin, repository, "CVMFS_QUOTA_LIMIT=4000\n") as (dist, sessions):
        sessions.start_all()
        sessions.wait()
        asked_for = origin.objects()
        assert len(set(asked_for)) >= DIRECTORIES * FILES
        assert len(asked_for) <= 1.1 * len(set(asked_for))
        assert run_cvmfs(dist, "fsck").returncode == 0


def test_a_small_limit_holds_for_all_of_them(
    origin: Nginx, repository: PublishedRepository
) -> None:
    limit_bytes = LIMIT_MB << 20
    seen: list[int] = []
    settings = f"CVMFS_QUOTA_LIMIT={LIMIT_MB}\n"
    with node(origin, repository, settings) as (dist, sessions):
        cache = dist / "var/lib/cvmfs" / FQRN
        with sampling(lambda: seen.append(bytes_at_one_moment(cache, lambda: 0)[0])):
            sessions.start_all()
            sessions.wait()
        assert limit_bytes // 2 < max(seen) <= limit_bytes
        (usage,) = json.loads(run_cvmfs(dist, "cache", "usage", "--json").stdout)
        assert usage["cleanings_24h"] > 0
        assert usage["used_bytes"] <= limit_bytes
        assert usage["limit_in_force_bytes"] == usage["pinned_bytes"] == 0
        assert list(cache.glob("txn/*")) == []
        assert run_cvmfs(dist, "fsck").returncode == 0
