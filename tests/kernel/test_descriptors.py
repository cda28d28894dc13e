"""Few descriptors, however many files the payload holds open.

Twenty repositories in one session, with the soft limit of 1,024 open files that most
machines have, while processes of the payload hold 50,000.
"""

import os
import resource
import select
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.commands import SYSTEM_PYTHON, client_dist, started_exec
from tests.support.published import Tree, publish_tree, serve
from tests.support.sessions import ROOT, Started

pytestmark = pytest.mark.kernel

REPOSITORIES = 20
FILES = 125
PROCESSES = 20
HELD = 50_000
SOFT_LIMIT = 1024
OURS_MAX = 400

NAMES = [f"r{number:02}.example.org" for number in range(REPOSITORIES)]
TREE: Tree = {f"file{number:03}": b"file%03d" % number for number in range(FILES)}
CATALOGS = 62  # nested ones; each directory holds two files
TREE_OF_CATALOGS: Tree = {
    "file000": b"file000",
    **{
        f"d{number}": {".cvmfscatalog": b"", f"f{number}": b"f%d" % number}
        for number in range(CATALOGS)
    },
}
PAYLOAD = str(ROOT / "tests/support/holding_payload.py")


class Holding(NamedTuple):
    """A session whose payload holds files.

    Attributes:
        session: It.
        limit: The limit of open files that the payload has found.
        held: How many files it holds.
        most: How many descriptors a file server had at most until then.
    """

    session: Started
    limit: int
    held: int
    most: int


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "observed"])
def holding(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Holding]:
    """Start a session; one that is observed writes a report and a trace."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < REPOSITORIES * FILES + 64:
        pytest.skip(f"a process may not have more than {hard} open files")
    top = tmp_path_factory.mktemp("published")
    published = [publish_tree(top, TREE, name) for name in NAMES[1:]]
    publish_tree(top, TREE_OF_CATALOGS, NAMES[0])
    with ExitStack() as stack:
        url = stack.enter_context(serve(published[0].output))
        key = published[0].master_key_pem
        dist = stack.enter_context(client_dist(url, key))
        directories = [f"/cvmfs/{name}" for name in NAMES]
        payload = (SYSTEM_PYTHON, PAYLOAD, str(PROCESSES), *directories)
        places = {name: str(dist.parent / "tmp" / name) for name in ("report", "trace")}
        options = [f"--{name}={place}" for name, place in places.items()]
        line = (*(options if request.param else ()), *NAMES, "--", *payload)
        session = stack.enter_context(started(dist, line))
        assert session.process.stdout is not None
        most = 0
        while not select.select([session.process.stdout], [], [], 0.2)[0]:
            most = max(most, *(descriptors_of(pid) for pid in servers_of(session)), 0)
        words = session.process.stdout.readline().split()
        assert len(words) == 2, session.process.communicate()[1]
        yield Holding(session, int(words[0]), int(words[1]), most)
        if request.param:
            session.finish()
            assert all(os.path.getsize(place) for place in places.values())


@contextmanager
def started(dist: Path, words: tuple[str, ...]) -> Iterator[Started]:
    """Start the session with the soft limit."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (SOFT_LIMIT, limits[1]))
    try:
        with started_exec(dist, *words, takes_input=True) as session:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            yield session
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def servers_of(session: Started) -> list[int]:
    """Return the file servers of a session."""
    return [pid for name in NAMES for pid in session.pids_of(f"cvmfs:{name}"[:15])]


def descriptors_of(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except FileNotFoundError:
        return 0  # it has ended
    except PermissionError:
        pytest.skip("descriptors of the session's processes cannot be seen")


def test_the_payload_holds_as_many_files_as_it_likes(holding: Holding) -> None:
    assert holding.held == HELD


def test_the_payload_has_the_limits_of_its_user(holding: Holding) -> None:
    assert holding.limit == SOFT_LIMIT


def test_file_servers_need_few_descriptors(holding: Holding) -> None:
    servers = servers_of(holding.session)
    assert len(servers) == REPOSITORIES
    counts = [descriptors_of(pid) for pid in servers]
    assert max(*counts, holding.most) < OURS_MAX, (counts, holding.most)
    assert holding.most > 0, "they were looked at while they were busy"


def test_nobody_else_of_ours_needs_many(holding: Holding) -> None:
    init = holding.session.pids_of("cvmfsexec-init")
    for pid in (*init, holding.session.process.pid):
        assert descriptors_of(pid) < OURS_MAX // 4


def test_what_was_read_was_right(holding: Holding) -> None:
    _, err = holding.session.process.communicate("", timeout=60)
    assert holding.session.process.returncode == 0, err
