"""Objects that the disk has damaged since they were stored, in real sessions.

The payload reads what was published, and is told nothing; the object is fetched again.
"""

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest

from cvmfsexec.publish.chunker import ChunkSizes
from tests.support.commands import (
    client_dist,
    run_cvmfs,
    run_exec,
    started_exec,
)
from tests.support.failing_disk import FailingDisk
from tests.support.nginx import Nginx
from tests.support.published import FQRN, PublishedRepository, Tree, publish_tree
from tests.support.refusing_disk import RefusingDisk
from tests.support.sessions import PATIENCE_S, Started

pytestmark = pytest.mark.kernel

TEXT = b"".join(b"line %d of what was published\n" % number for number in range(9_000))
MANY = 4_000  # names: a catalog of many pages
LARGE = os.urandom(3_000_000)
CHUNKS = ChunkSizes(400_000, 800_000, 1_600_000)
TREE: Tree = {
    "file": TEXT,
    "large": LARGE,
    "sub": {".cvmfscatalog": b"", **{f"name{n:05}": b"x" for n in range(MANY)}},
}

NOTHING: Mapping[str, str] = {}

Damage = Callable[[Path], object]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> PublishedRepository:
    directory = tmp_path_factory.mktemp("published")
    return publish_tree(directory, TREE, chunk_sizes=CHUNKS, tag="first")


class Node:
    """A client and its server.

    Attributes:
        dist: Of the client.
        origin: The server, which counts.
    """

    def __init__(self, dist: Path, origin: Nginx) -> None:
        self.dist = dist
        self.origin = origin

    @property
    def cache(self) -> Path:
        """Where objects lie."""
        return self.dist / "var/lib/cvmfs" / FQRN

    def object_like(self, is_it: Callable[[bytes], bool]) -> Path:
        """Return the cached object whose content is so."""
        found = [p for p in self.cache.glob("??/*") if is_it(p.read_bytes())]
        assert len(found) == 1, found
        return found[0]


@pytest.fixture
def node(repository: PublishedRepository) -> Iterator[Node]:
    with (
        Nginx(repository.output) as origin,
        client_dist(origin.url, repository.master_key_pem) as dist,
    ):
        done = run_exec(dist, FQRN, "--", "sh", "-c", f"{READ_ALL}; {READ_LARGE}")
        assert done.stdout == SOUND + SOUND_LARGE, done.stderr
        origin.forget_requests()
        yield Node(dist, origin)


READ_ALL = f"cd /cvmfs/{FQRN}; cat file | md5sum; ls sub | wc -l; cat sub/name03999"
SOUND = (
    subprocess.run(["md5sum"], input=TEXT, capture_output=True, check=True)
).stdout.decode() + f"{MANY}\nx"


def is_file(content: bytes) -> bool:
    return content == TEXT


def is_large_catalog(content: bytes) -> bool:
    return content.startswith(b"SQLite") and len(content) > 200_000


def is_certificate(content: bytes) -> bool:
    return content.startswith(b"-----BEGIN CERTIFICATE")


def empty(path: Path) -> None:
    os.truncate(path, 0)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def lengthen(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def garble_end(path: Path) -> None:
    """Overwrite all but the first pages, in place."""
    with path.open("r+b") as file:
        file.seek(16_384)
        file.write(b"\xa5" * (path.stat().st_size - 16_384))


def garble_key(path: Path) -> None:
    """Let a certificate be one that signs for somebody else, or none at all."""
    content = path.read_bytes()
    path.write_bytes(content[:300] + content[300:310][::-1] + content[310:])


@pytest.mark.parametrize(
    ("which", "damage"),
    [
        (is_file, empty),
        (is_file, cut),
        (is_file, lengthen),
        (is_large_catalog, empty),
        (is_large_catalog, cut),
        (is_large_catalog, garble_end),
        (is_certificate, empty),
        (is_certificate, cut),
        (is_certificate, garble_key),
    ],
    ids=lambda one: one.__name__,
)
def test_damage_before_a_session_is_fetched_again(
    node: Node, which: Callable[[bytes], bool], damage: Damage
) -> None:
    path = node.object_like(which)
    sound = path.read_bytes()
    damage(path)
    if which is is_certificate:  # it is not asked for while nothing is new
        (node.cache / f"cvmfschecksum.{FQRN}").unlink()
    done = run_exec(node.dist, FQRN, "--", "sh", "-c", READ_ALL)
    assert (done.returncode, done.stdout) == (0, SOUND), done.stderr
    assert len(node.origin.objects()) == 1
    assert path.read_bytes() == sound


@contextlib.contextmanager
def waiting_session(
    node: Node, first: str, environment: Mapping[str, str] = NOTHING
) -> Iterator[Started]:
    """Start a session that does something, and reads everything when it is told to."""
    script = f"cd /cvmfs/{FQRN}; {first}; echo ready; read line; {READ_ALL}"
    line = (FQRN, "--", "sh", "-c", script)
    with started_exec(
        node.dist, *line, takes_input=True, environment=environment
    ) as session:
        assert session.process.stdout is not None
        while session.process.stdout.readline() != "ready\n":
            assert session.process.poll() is None
        yield session


def read_all(session: Started) -> str:
    out, _ = session.process.communicate("go\n", timeout=PATIENCE_S)
    return str(out)


@pytest.mark.parametrize(
    ("which", "damage", "first"),
    [
        (is_file, cut, "head -c 1000 file >/dev/null"),
        (is_large_catalog, cut, "stat sub/name00001 >/dev/null"),
        (is_large_catalog, garble_end, "stat sub/name00001 >/dev/null"),
    ],
    ids=lambda one: getattr(one, "__name__", "first"),
)
def test_damage_to_what_is_open_is_fetched_again(
    node: Node, which: Callable[[bytes], bool], damage: Damage, first: str
) -> None:
    path = node.object_like(which)
    sound = path.read_bytes()
    with waiting_session(node, first) as session:
        damage(path)
        assert read_all(session) == SOUND
    assert len(node.origin.objects()) == 1
    assert path.read_bytes() == sound


@pytest.fixture
def disk(node: Node) -> Iterator[FailingDisk]:
    with closing(FailingDisk(node.dist)) as disk:
        yield disk


@pytest.mark.parametrize(
    ("which", "first"),
    [(is_file, ":"), (is_large_catalog, "stat sub/name00001 >/dev/null")],
    ids=["file", "catalog"],
)
def test_what_the_disk_does_not_give_back_is_fetched_again(
    node: Node, disk: FailingDisk, which: Callable[[bytes], bool], first: str
) -> None:
    path = node.object_like(which)
    sound, inode = path.read_bytes(), path.stat().st_ino
    with waiting_session(node, first, disk.environment) as session:
        disk.lose(path)
        assert read_all(session) == SOUND
    assert len(node.origin.objects()) == 1
    assert path.stat().st_ino != inode
    assert path.read_bytes() == sound


def test_a_session_begins_on_a_disk_that_has_lost_a_catalog(
    node: Node, disk: FailingDisk
) -> None:
    path = node.object_like(is_large_catalog)
    disk.lose(path)
    with waiting_session(node, ":", disk.environment) as session:
        assert read_all(session) == SOUND
    assert len(node.origin.objects()) == 1


# What is not a file in one piece, and where there is no way to fetch it again


def is_first_chunk(content: bytes) -> bool:
    return len(content) > 1000 and LARGE.startswith(content)


def is_history(content: bytes) -> bool:
    return content.startswith(b"SQLite") and b"CREATE TABLE tags" in content


READ_LARGE = f"md5sum < /cvmfs/{FQRN}/large"
SOUND_LARGE = subprocess.run(
    ["md5sum"], input=LARGE, capture_output=True, check=True, text=False
).stdout.decode()


@pytest.mark.parametrize("damage", [empty, cut, lengthen], ids=lambda one: one.__name__)
def test_a_damaged_chunk_is_fetched_again(node: Node, damage: Damage) -> None:
    path = node.object_like(is_first_chunk)
    sound = path.read_bytes()
    damage(path)
    done = run_exec(node.dist, FQRN, "--", "sh", "-c", READ_LARGE)
    assert (done.returncode, done.stdout) == (0, SOUND_LARGE), done.stderr
    assert len(node.origin.objects()) == 1
    assert path.read_bytes() == sound


@pytest.mark.parametrize("damage", [empty, cut], ids=lambda one: one.__name__)
def test_a_damaged_history_is_fetched_again(node: Node, damage: Damage) -> None:
    told = run_cvmfs(node.dist, "tags", FQRN)
    assert told.returncode == 0, told
    path = node.object_like(is_history)
    sound = path.read_bytes()
    damage(path)
    assert run_cvmfs(node.dist, "tags", FQRN).stdout == told.stdout
    assert path.read_bytes() == sound


@pytest.mark.parametrize("which", [is_file, is_first_chunk], ids=["file", "chunk"])
def test_what_is_pinned_and_damaged_is_fetched_and_pinned_again(
    node: Node, which: Callable[[bytes], bool]
) -> None:
    assert run_cvmfs(node.dist, "cache", "pin", FQRN, "/file", "/large").returncode == 0
    pinned = run_cvmfs(node.dist, "cache", "pinned").stdout
    path = node.object_like(which)
    sound = path.read_bytes()
    cut(path)
    script = f"{READ_ALL}; {READ_LARGE}"
    done = run_exec(node.dist, FQRN, "--", "sh", "-c", script)
    assert (done.returncode, done.stdout) == (0, SOUND + SOUND_LARGE), done.stderr
    assert path.read_bytes() == sound
    assert run_cvmfs(node.dist, "cache", "pinned").stdout == pinned
    assert run_cvmfs(node.dist, "cache", "cleanup").returncode == 0
    assert path.read_bytes() == sound
    assert run_cvmfs(node.dist, "fsck").returncode == 0


@pytest.mark.parametrize(
    ("which", "name", "content"),
    [(is_file, "file", TEXT), (is_first_chunk, "large", LARGE)],
    ids=["file", "chunk"],
)
def test_without_a_network_damage_is_an_error_and_no_wrong_byte(
    node: Node, which: Callable[[bytes], bool], name: str, content: bytes
) -> None:
    cut(node.object_like(which))
    with (node.dist / "etc/cvmfs/default.local").open("a") as settings:
        settings.write("CVMFS_SERVER_URL=http://127.0.0.1:1/@fqrn@\n")
    got = node.dist.parent / "tmp/got"
    script = f"cat /cvmfs/{FQRN}/{name} > {got}"
    done = run_exec(node.dist, FQRN, "--", "sh", "-c", script)
    assert done.returncode == 1
    assert len(got.read_bytes()) < len(content)
    assert content.startswith(got.read_bytes())
    assert f"/{name}: Input/output error" in done.stderr
    assert run_cvmfs(node.dist, "fsck").returncode in (0, 4)  # it may have been kept


def test_damage_in_a_cache_that_is_full_is_read_past_it(node: Node) -> None:
    cut(node.object_like(is_file))
    cut(node.object_like(is_first_chunk))
    disk = RefusingDisk(node.cache, quota_bytes=0)
    line = (FQRN, "--", "sh", "-c", f"{READ_ALL}; {READ_LARGE}")
    done = run_exec(node.dist, *line, environment=disk.environment)
    assert (done.returncode, done.stdout) == (0, SOUND + SOUND_LARGE), done.stderr
    assert done.stderr.count("what does not fit is read without being kept") == 1
    assert run_cvmfs(node.dist, "fsck").returncode == 0
