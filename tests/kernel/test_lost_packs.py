"""Packed and alien caches that are lost or damaged under a session.

The session reads what was published, says one sentence at most, and goes on to store:
what it has read since is there for the next one, as a real nginx tells.
"""

import hashlib
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from cvmfsexec.cache.pack_writer import DIRECTORY, INDEX, PACK
from cvmfsexec.format.pack_index import has_header
from tests.support.commands import (
    client_dist,
    give_to_ordinary_user,
    run_cvmfs,
    run_exec,
    started_exec,
)
from tests.support.nginx import Nginx
from tests.support.published import FQRN, PublishedRepository, Tree, publish_tree
from tests.support.sessions import PATIENCE_S, Started, wait_until

pytestmark = pytest.mark.kernel

COUNT, PROBES = 15, 600
FILES = {
    f"{part}{number:03}": b"%s %d\n" % (part.encode(), number) * 300
    for part, count in (("seen", COUNT), ("stored", COUNT), ("new", COUNT))
    for number in range(count)
}
PROBE_FILES = {f"probe{number:03}": b"probe %d\n" % number for number in range(PROBES)}
TREE: Tree = {"sub": {".cvmfscatalog": b"", **FILES, **PROBE_FILES}}
READ_LINES = f"cd /cvmfs/{FQRN}/sub && while read -r name; do md5sum $name; done"
NOT_FILES = ("C", "X", "H", "M")  # how names of what is not a file's content end

SETTINGS = {
    "packed": "CVMFS_CACHE_TYPE=packed\nCVMFS_CACHE_DIR={cache}\n",
    "alien": "CVMFS_ALIEN_CACHE={cache}\nCVMFS_QUOTA_LIMIT=-1\n",
}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> PublishedRepository:
    return publish_tree(tmp_path_factory.mktemp("published"), TREE)


class Node(NamedTuple):
    """A client, the cache that it has, and what it asks."""

    dist: Path
    cache: Path
    origin: Nginx

    def packs(self, suffix: str) -> list[Path]:
        return sorted((self.cache / DIRECTORY).glob(f"*{suffix}"))

    def stored_bytes(self) -> int:
        """Return how much content lies there; the catalogs are not counted."""
        alien = [path for path in self.cache.glob("??/*") if path.stat().st_size < 9999]
        return sum(path.stat().st_size for path in [*self.packs(PACK), *alien])

    def indexes(self) -> dict[str, int]:
        """Return how large the indexes of the packs are that can be read."""
        return {
            path.stem: path.stat().st_size
            for path in self.packs(INDEX)
            if has_header(path.read_bytes())
            and (pack := path.with_suffix(PACK)).exists()
            and pack.stat().st_mode & stat.S_IRUSR
        }

    def fetched_by(self, part: str) -> list[str]:
        """Let a new session read files; return which contents it has fetched."""
        self.origin.forget_requests()
        command = f"cd /cvmfs/{FQRN}/sub && cat {part}*"
        done = run_exec(self.dist, FQRN, "--", "sh", "-c", command)
        right = b"".join(FILES[name] for name in sorted(FILES) if name.startswith(part))
        assert (done.returncode, done.stdout) == (0, right.decode()), done.stderr
        return [path for path in self.origin.objects() if path[-1] not in NOT_FILES]


@contextmanager
def node_with(
    kind: str, origin: Nginx, repository: PublishedRepository
) -> Iterator[Node]:
    with client_dist(
        origin.url, repository.master_key_pem, settings="CVMFS_READ_AHEAD=no\n"
    ) as dist:
        cache = dist.parent / "cache/of/jobs"
        cache.parent.mkdir(parents=True)
        with (dist / "etc/cvmfs/default.local").open("a") as settings:
            settings.write(SETTINGS[kind].format(cache=cache))
        give_to_ordinary_user(dist.parent)
        yield Node(dist, cache, origin)


@pytest.fixture
def node(origin: Nginx, repository: PublishedRepository) -> Iterator[Node]:
    with node_with("packed", origin, repository) as made:
        yield made


class Reading:
    """A session that reads the files it is told to."""

    def __init__(self, session: Started) -> None:
        self._process = session.process
        self._probes = iter(PROBE_FILES)

    def read(self, name: str) -> None:
        """Read a file, and see that it is right."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{name}\n")
        self._process.stdin.flush()
        content = (FILES | PROBE_FILES)[name]
        right = hashlib.md5(content, usedforsecurity=False).hexdigest()
        assert self._process.stdout.readline() == f"{right}  {name}\n"

    def read_all(self, part: str) -> None:
        for name in sorted(FILES):
            if name.startswith(part):
                self.read(name)

    def read_until(self, condition: Callable[[], bool]) -> None:
        """Read files that nobody has read before, until something has happened."""

        next_s = 0.0

        def read_and_look() -> bool:
            nonlocal next_s
            if time.monotonic() >= next_s:  # they have to last as long as patience
                self.read(next(self._probes))
                next_s = time.monotonic() + PATIENCE_S / PROBES
            return condition()

        wait_until(read_and_look, "the session stores what it reads")

    def end(self) -> list[str]:
        """Return what was said, but for what concerns the revision's record."""
        _, said = self._process.communicate(timeout=PATIENCE_S)
        return [line for line in said.splitlines() if "cannot remember" not in line]


@contextmanager
def reading(node: Node) -> Iterator[Reading]:
    with started_exec(
        node.dist, FQRN, "--", "sh", "-c", READ_LINES, takes_input=True
    ) as session:
        yield Reading(session)


def remove_whole(path: Path) -> None:
    """Remove a directory in which others are at work."""
    away = path.with_name("away")

    def is_gone() -> bool:
        shutil.rmtree(away, ignore_errors=True)
        return not away.exists()

    path.rename(away)
    wait_until(is_gone, "the directory is removed")


def remove_the_cache(node: Node) -> None:
    remove_whole(node.cache)


def remove_it_with_its_parents(node: Node) -> None:
    remove_whole(node.cache.parent.parent)


def put_another_in_its_place(node: Node) -> None:
    node.cache.rename(node.cache.with_name("away"))
    node.cache.mkdir(mode=0o700)
    give_to_ordinary_user(node.cache)


@pytest.mark.parametrize(
    ("kind", "lose"),
    [
        ("packed", remove_the_cache),
        ("packed", remove_it_with_its_parents),
        ("packed", put_another_in_its_place),
        ("alien", remove_it_with_its_parents),
        ("alien", put_another_in_its_place),
    ],
)
def test_a_cache_that_is_lost_under_a_session_begins_anew(
    origin: Nginx, repository: PublishedRepository, kind: str, lose: Callable[..., None]
) -> None:
    with node_with(kind, origin, repository) as node, reading(node) as session:
        session.read_all("seen")
        lose(node)
        session.read_until(lambda: node.stored_bytes() > 0)
        session.read_all("new")
        (sentence,) = session.end()
        text = f"{kind} cache {node.cache} was removed, and begins anew"
        assert sentence.endswith(text)
        assert node.fetched_by("new") == []
        fsck = run_cvmfs(node.dist, "fsck", "--repository", FQRN)
        assert fsck.returncode == 0, fsck.stdout


def remove_packs(node: Node) -> None:
    remove_whole(node.cache / DIRECTORY)


def cut_off_packs(node: Node) -> None:
    for path in node.packs(PACK):
        os.truncate(path, 100)


def replace_packs(node: Node) -> None:
    for path in node.packs(PACK):
        other = path.with_suffix(".new")
        other.write_bytes(bytes(path.stat().st_size))
        give_to_ordinary_user(node.cache)
        other.rename(path)
        os.chown(path, (owner := node.cache.stat()).st_uid, owner.st_gid)


def lock_packs_up(node: Node) -> None:
    for path in node.packs(PACK):
        path.chmod(0)


def damage_indexes(node: Node) -> None:
    for path in node.packs(INDEX):
        path.write_bytes(b"x" * path.stat().st_size)


def empty_indexes(node: Node) -> None:
    for path in node.packs(INDEX):
        os.truncate(path, 0)


def remove_indexes(node: Node) -> None:
    for path in node.packs(INDEX):
        path.unlink()


DAMAGES = (
    *(remove_packs, cut_off_packs, replace_packs, lock_packs_up),
    *(damage_indexes, empty_indexes, remove_indexes),
)
OF_OTHERS = (cut_off_packs, replace_packs, damage_indexes)


@pytest.mark.parametrize(
    ("damage", "has_written"),
    [*((one, True) for one in DAMAGES), *((one, False) for one in OF_OTHERS)],
)
def test_packs_that_are_damaged_under_a_session_are_made_good(
    node: Node, damage: Callable[[Node], None], *, has_written: bool
) -> None:
    node.fetched_by("s")
    with reading(node) as session:
        session.read_all("seen")
        if has_written:  # it goes on with the pack that is damaged
            before = node.stored_bytes()
            session.read_until(lambda: node.stored_bytes() > before)
        damage(node)
        damaged = node.indexes()
        session.read_all("stored")

        def goes_on() -> bool:
            found = node.indexes()
            if has_written and damage is not cut_off_packs:
                return bool(found.keys() - damaged.keys())
            return found != damaged

        session.read_until(goes_on)
        session.read_all("new")
        assert session.end() == []
    assert node.fetched_by("new") == []
    node.fetched_by("s")
    assert node.fetched_by("s") == []
    fsck = run_cvmfs(node.dist, "fsck", "--repair", str(node.cache))
    assert fsck.returncode in (0, 1), fsck.stdout
    assert run_cvmfs(node.dist, "fsck", str(node.cache)).returncode == 0


def test_a_cache_that_cannot_be_made_again_is_told_once(node: Node) -> None:
    with reading(node) as session:
        session.read_all("seen")
        os.rename(node.cache, node.dist.parent / "away")
        node.cache.parent.chmod(0o555)
        shutil.rmtree(node.dist.parent / "away")
        session.read_until(lambda: not os.path.exists(node.dist.parent / "away"))
        session.read_all("seen")
        session.read_all("new")
        said = session.end()
        node.cache.parent.chmod(0o755)
    assert len(said) <= 1, said
    assert not node.cache.exists()
