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

from tests.support.commands import client_dist, run_exec, started_exec
from tests.support.failing_disk import FailingDisk
from tests.support.nginx import Nginx
from tests.support.published import FQRN, PublishedRepository, Tree, publish_tree
from tests.support.sessions import PATIENCE_S, Started

pytestmark = pytest.mark.kernel

TEXT = b"".join(b"line %d of what was published\n" % number for number in range(9_000))
MANY = 4_000  # names: a catalog of many pages
TREE: Tree = {
    "file": TEXT,
    "sub": {".cvmfscatalog": b"", **{f"name{n:05}": b"x" for n in range(MANY)}},
}

NOTHING: Mapping[str, str] = {}

Damage = Callable[[Path], object]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> PublishedRepository:
    return publish_tree(tmp_path_factory.mktemp("published"), TREE)


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
        done = run_exec(dist, FQRN, "--", "sh", "-c", READ_ALL)
        assert done.stdout == SOUND, done.stderr
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
