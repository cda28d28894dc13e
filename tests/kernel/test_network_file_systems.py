"""Caches on a real network file system, GlusterFS, which two nodes have mounted.

Each node has a client of the file system, and a network namespace, of its own; what
sessions ask for is counted by a real nginx.
"""

import contextlib
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import NamedTuple

import pytest

from cvmfsexec.cache.alien_layout import open_layout
from cvmfsexec.cache.breadcrumb import Breadcrumb, write_breadcrumb
from cvmfsexec.cache.lease import DURATION_S, FILE_NAME, Lease
from cvmfsexec.cache.private_directory import open_private_directory
from cvmfsexec.cache.tidying import LOOKS_PER_LIMIT
from cvmfsexec.format.digest import ContentHash
from tests.support.commands import client_dist, run_cvmfs, run_exec
from tests.support.gluster import GlusterMount, GlusterVolume
from tests.support.metadata_operations import OBJECTS, PACKED_MAX, metadata_operations
from tests.support.nginx import Nginx
from tests.support.other_node import OtherNode
from tests.support.published import FQRN, PublishedRepository, publish_tree
from tests.support.relay import Relay
from tests.support.sessions import ORDINARY_UID, PATIENCE_S, wait_until
from tests.support.tree_reader import TreeReader, large_tree, started_reader

pytestmark = pytest.mark.kernel

OK = {"ok"}
FILES = 60
HANG_S = 2.0
SEEN = Breadcrumb(ContentHash.of(b"a root catalog"), 1795371178, 7)
NOT_KEPT = "what does not fit is read without being kept"
KINDS = {
    "posix": "CVMFS_CACHE_BASE={shared}/posix\n",
    "packed": "CVMFS_CACHE_TYPE=packed\nCVMFS_CACHE_BASE={shared}/packed\n",
    "alien": "CVMFS_ALIEN_CACHE={shared}/alien\nCVMFS_QUOTA_LIMIT=-1\n"
    "CVMFS_ALIEN_CACHE_LIMIT=1000\n",
}


class Node(NamedTuple):
    """A node with a client of ours.

    Attributes:
        dist: Of that.
        mount: Its view of the file system.
        enter: What to put before a command that is to run there.
    """

    dist: Path
    mount: GlusterMount
    enter: tuple[str, ...] = ()


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> PublishedRepository:
    return publish_tree(tmp_path_factory.mktemp("published"), large_tree())


@contextlib.contextmanager
def made_volume(*, has_locks: bool) -> Iterator[GlusterVolume]:
    top = Path(tempfile.mkdtemp(prefix="cvmfsexec-test-"))
    top.chmod(0o755)
    try:
        with GlusterVolume(top, ORDINARY_UID, has_locks=has_locks) as volume:
            yield volume
    finally:
        shutil.rmtree(top, ignore_errors=True)


@pytest.fixture
def volume() -> Iterator[GlusterVolume]:
    with made_volume(has_locks=True) as volume:
        yield volume


@contextlib.contextmanager
def two_nodes(
    origin: Nginx, repository: PublishedRepository, volume: GlusterVolume, settings: str
) -> Iterator[tuple[Node, Node]]:
    one, other = volume.mount("one"), volume.mount("other")
    key = repository.master_key_pem
    with (
        OtherNode() as there,
        Relay(origin.port, there.listener()) as relay,
        client_dist(
            origin.url, key, settings=settings.format(shared=one.path)
        ) as dist_of_one,
        client_dist(
            relay.url, key, settings=settings.format(shared=other.path)
        ) as dist_of_other,
    ):
        yield Node(dist_of_one, one), Node(dist_of_other, other, there.enter)


def start(node: Node, stack: contextlib.ExitStack) -> TreeReader:
    return stack.enter_context(started_reader(node.dist, node.enter))


def sizes(directory: Path) -> dict[str, int]:
    """Return the sizes of all files; what goes meanwhile is left out."""
    found = {}
    for path in directory.rglob("*"):
        with contextlib.suppress(OSError):
            if path.is_file():
                found[str(path.relative_to(directory))] = path.stat().st_size
    return found


def said_of_faults(reader: TreeReader) -> list[str]:
    """Let a session end well; return what it said but for what it says at its start."""
    status, said = reader.end()
    assert status == 0, said
    return [
        line
        for line in said
        if "lies on fuse.glusterfs, a network file system" not in line
        and "its file system (fuse.glusterfs) has no locks" not in line
    ]


def said_by(readers: Iterable[TreeReader]) -> list[str]:
    """Let sessions end well; return what all of them said of faults."""
    return [line for reader in readers for line in said_of_faults(reader)]


@pytest.mark.parametrize(
    ("kind", "has_locks"),
    [*((kind, True) for kind in KINDS), ("posix", False), ("alien", False)],
)
def test_two_nodes_share_a_cache(
    origin: Nginx, repository: PublishedRepository, kind: str, *, has_locks: bool
) -> None:
    with (
        made_volume(has_locks=has_locks) as volume,
        two_nodes(origin, repository, volume, KINDS[kind]) as nodes,
    ):
        with contextlib.ExitStack() as stack:
            readers = [start(node, stack) for node in (*nodes, *nodes)]
            for reader in readers:
                reader.begin(FILES)
            assert [reader.finish() for reader in readers] == [OK] * 4
            assert said_by(readers) == []
        assert len(origin.objects()) >= FILES
        one, other = (node.mount.path for node in nodes)
        # What files are like, clients of the file system remember for a second.
        wait_until(lambda: sizes(one) == sizes(other), "both nodes see the same")
        # An object that one node has fetched is not fetched again by the other.
        origin.forget_requests()
        with contextlib.ExitStack() as stack:
            readers = [start(node, stack) for node in nodes]
            for reader in readers:
                reader.begin(FILES)
            assert [reader.finish() for reader in readers] == [OK] * 2
            assert said_by(readers) == []
        assert origin.objects() == []


def remember(top: Path) -> None:
    os.close(open_private_directory(str(top)))
    write_breadcrumb(str(top), FQRN, SEEN)


def begin_alien_cache(top: Path) -> None:
    os.close(open_layout(str(top)))


def again_and_again(
    begin: Callable[[Path], object],
    top: Path,
    rounds: int,
    start: Barrier,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Begin many caches as an ordinary user, each when all others do."""
    os.setresgid(ORDINARY_UID, ORDINARY_UID, ORDINARY_UID)
    os.setresuid(ORDINARY_UID, ORDINARY_UID, ORDINARY_UID)
    for number in range(rounds):
        start.wait(PATIENCE_S)
        begin(top / str(number))
        assert not caplog.text


@pytest.mark.parametrize(
    ("begin", "rounds"), [(remember, 200), (begin_alien_cache, 30)]
)
def test_two_nodes_begin_a_cache_in_the_same_moment(
    volume: GlusterVolume,
    begin: Callable[[Path], object],
    rounds: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """GlusterFS lets one of them see what the other makes before it is handed over."""
    fork = multiprocessing.get_context("fork")
    start = fork.Barrier(2)
    nodes = [
        fork.Process(
            target=again_and_again, args=(begin, mount.path, rounds, start, caplog)
        )
        for mount in (volume.mount("one"), volume.mount("other"))
    ]
    for node in nodes:
        node.start()
    for node in nodes:
        node.join()
    assert [node.exitcode for node in nodes] == [0, 0]


def is_told(said: list[str]) -> bool:
    """Whether the loss of a file system is told once, as it should be.

    Of objects that were open, each may be told of as well.
    """
    refused = [line for line in said if NOT_KEPT in line]
    others = [line for line in said if "it is fetched again" in line]
    return len(refused) == 1 and len(refused) + len(others) == len(said)


@pytest.mark.parametrize("kind", KINDS)
def test_a_node_that_loses_the_file_system_goes_on(
    origin: Nginx, repository: PublishedRepository, volume: GlusterVolume, kind: str
) -> None:
    with (
        two_nodes(origin, repository, volume, KINDS[kind]) as (one, other),
        contextlib.ExitStack() as stack,
    ):
        undisturbed, disturbed = start(one, stack), start(other, stack)
        for reader in (undisturbed, disturbed):
            assert reader.read(20) == OK
        other.mount.kill()
        for reader in (undisturbed, disturbed):
            reader.enter_next_area()
            reader.begin(FILES)
        assert [undisturbed.finish(), disturbed.finish()] == [OK] * 2
        assert said_of_faults(undisturbed) == []
        said = said_of_faults(disturbed)
        assert is_told(said), said


@pytest.mark.parametrize("kind", KINDS)
def test_sessions_outlive_the_server_of_files(
    origin: Nginx, repository: PublishedRepository, volume: GlusterVolume, kind: str
) -> None:
    """While it is away, and when it is back."""
    with (
        two_nodes(origin, repository, volume, KINDS[kind]) as nodes,
        contextlib.ExitStack() as stack,
    ):
        readers = [start(node, stack) for node in nodes]
        for reader in readers:
            assert reader.read(20) == OK
        volume.server.kill()
        for reader in readers:
            reader.enter_next_area()
            reader.begin(FILES)
        assert [reader.finish() for reader in readers] == [OK] * 2
        volume.start()
        for node in nodes:
            node.mount.wait()
        for reader in readers:
            reader.begin(FILES)
        assert [reader.finish() for reader in readers] == [OK] * 2
        for reader in readers:
            said = said_of_faults(reader)
            assert is_told(said), said


@pytest.mark.parametrize("kind", ["posix", "packed"])
def test_a_file_system_that_hangs_delays_and_does_no_harm(
    origin: Nginx, repository: PublishedRepository, volume: GlusterVolume, kind: str
) -> None:
    with (
        two_nodes(origin, repository, volume, KINDS[kind]) as nodes,
        contextlib.ExitStack() as stack,
    ):
        readers = [start(node, stack) for node in nodes]
        for reader in readers:
            reader.begin(FILES)
        readers[0].wait_for_reads(10)
        volume.server.stall()
        time.sleep(HANG_S)
        volume.server.resume()
        assert [reader.finish() for reader in readers] == [OK] * 2
        assert said_by(readers) == []
        assert run_exec(nodes[0].dist, FQRN, "--", "true").returncode == 0
        assert run_cvmfs(nodes[0].dist, "fsck").returncode == 0


LIMIT_MB = 4
LIMITED = {
    "packed": f"CVMFS_QUOTA_LIMIT={LIMIT_MB}\n{KINDS['packed']}",
    "alien": KINDS["alien"].replace("LIMIT=1000", f"LIMIT={LIMIT_MB}"),
}


@pytest.mark.parametrize("kind", LIMITED)
def test_the_limit_holds_though_who_had_the_lease_was_killed(
    origin: Nginx, repository: PublishedRepository, volume: GlusterVolume, kind: str
) -> None:
    limit_bytes = LIMIT_MB << 20
    with (
        two_nodes(origin, repository, volume, LIMITED[kind]) as nodes,
        contextlib.ExitStack() as stack,
    ):
        readers = [start(node, stack) for node in nodes]
        for reader in readers:
            assert reader.read(10) == OK
        one, other = (node.mount.path / kind for node in nodes)
        cache = one / FQRN if kind == "packed" else one
        lease = cache / FILE_NAME
        directory = os.open(cache, os.O_RDONLY | os.O_DIRECTORY)
        wait_until(lambda: Lease(directory).acquire(), "no session has the lease")
        os.close(directory)
        killed_s = time.time() - 2 * DURATION_S
        os.utime(lease, (killed_s, killed_s))
        for reader in readers:
            reader.begin_all()
        assert [reader.finish() for reader in readers] == [OK] * 2
        # Each may exceed it by a thirty-second part, until it looks again.
        most_bytes = limit_bytes + 2 * limit_bytes // LOOKS_PER_LIMIT
        wait_until(
            lambda: sum(sizes(other).values()) <= most_bytes and not lease.exists(),
            "the limit holds, and the lease is given back",
        )
        assert all(len(said_of_faults(reader)) <= 1 for reader in readers)


def test_a_packed_cache_asks_little_of_a_network_file_system(
    volume: GlusterVolume, tmp_path: Path
) -> None:
    cache = volume.mount("one").path / "packed"
    cache.mkdir(mode=0o700)
    fetched, count = metadata_operations("packed", cache, tmp_path / "trace")
    assert fetched == OBJECTS
    assert count <= PACKED_MAX
