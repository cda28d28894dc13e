"""Caches that come to a real disk quota, or whose disk has no inodes left.

The payload reads what was published; the user is told once why not all of it is kept,
and what helps. What we manage makes room instead.
"""

import hashlib
import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cvmfsexec.cache.alien import AlienStore
from cvmfsexec.cache.directory import DirectoryStore
from cvmfsexec.cache.packed import PackedStore
from cvmfsexec.cache.refusals import REST_S
from cvmfsexec.cache.store import ObjectStore
from cvmfsexec.format.digest import ContentHash
from tests.support.clock import Clock
from tests.support.commands import client_dist, run_cvmfs, run_exec
from tests.support.disk_images import (
    QuotaDisk,
    mounted_with_inodes,
    mounted_with_quota,
)
from tests.support.nginx import Nginx
from tests.support.published import FQRN, PublishedRepository, Tree, publish_tree
from tests.support.sessions import ORDINARY_UID
from tests.support.store_contract import content_of, put

pytestmark = pytest.mark.kernel

QUOTA_BYTES = 16 << 20
SMALL_FILES, LARGE_FILES = 600, 240
INODES = 64
READ_ALL = f"cd /cvmfs/{FQRN} && find . -type f -print0 | xargs -0 -n 50 -P 4 sha1sum"
NOT_KEPT = "what does not fit is read without being kept"
QUOTA_WARNING = (
    f"Disk quota exceeded; {NOT_KEPT} (remove something of yours from the disk, "
    "or choose another place for the cache)"
)
KINDS = {
    "posix": "CVMFS_CACHE_BASE={cache}\n",
    "packed": "CVMFS_CACHE_TYPE=packed\nCVMFS_CACHE_BASE={cache}\n",
    "alien": "CVMFS_ALIEN_CACHE={cache}\nCVMFS_QUOTA_LIMIT=-1\n"
    "CVMFS_ALIEN_CACHE_LIMIT=1000\nCVMFS_WORKSPACE={workspace}\n",
}


def tree() -> Tree:
    """Return 34 MB that do not compress."""
    chance = random.Random(5)  # noqa: S311 -- bytes to be stored
    small = {f"s{number}": chance.randbytes(3_000) for number in range(SMALL_FILES)}
    large = {f"l{number}": chance.randbytes(110_000) for number in range(LARGE_FILES)}
    huge = {".cvmfscatalog": b"", "huge": chance.randbytes(6_000_000)}
    return {**small, **large, "nested": huge}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> PublishedRepository:
    return publish_tree(tmp_path_factory.mktemp("published"), tree())


@pytest.fixture(scope="module")
def sums(repository: PublishedRepository) -> list[str]:
    """Return what ``sha1sum`` says of the files."""
    files = (path for path in repository.source.rglob("*") if path.is_file())
    return sorted(
        f"{hashlib.sha1(path.read_bytes()).hexdigest()}"  # noqa: S324
        f"  ./{path.relative_to(repository.source)}"
        for path in files
    )


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    top = Path(tempfile.mkdtemp(prefix="cvmfsexec-test-"))
    top.chmod(0o755)
    yield top
    shutil.rmtree(top, ignore_errors=True)


@pytest.fixture(scope="module")
def quota_disk(place: Path) -> Iterator[QuotaDisk]:
    with mounted_with_quota(place, ORDINARY_UID) as disk:
        yield disk


@pytest.fixture
def disk(quota_disk: QuotaDisk) -> Iterator[QuotaDisk]:
    yield quota_disk
    quota_disk.clear()


def read_all(dist: Path, sums: list[str]) -> list[str]:
    """Read everything in a session, which must succeed; return what it said."""
    done = run_exec(dist, FQRN, "--", "sh", "-c", READ_ALL)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == sums
    return done.stderr.splitlines()


# -- sessions -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_session_at_its_disk_quota_reads_everything(
    origin: Nginx,
    repository: PublishedRepository,
    sums: list[str],
    disk: QuotaDisk,
    kind: str,
) -> None:
    cache = disk.directory / kind
    with client_dist(origin.url, repository.master_key_pem) as dist:
        workspace = dist.parent / "tmp"
        with (dist / "etc/cvmfs/default.local").open("a") as settings:
            settings.write(KINDS[kind].format(cache=cache, workspace=workspace))
        disk.limit(QUOTA_BYTES)
        said = read_all(dist, sums)
        # Where we manage the directory room is made, as often as need be.
        assert len(said) <= 1 if kind == "posix" else len(said) == 1, said
        assert all(str(cache) in line and QUOTA_WARNING in line for line in said)
        if kind != "alien":
            assert run_cvmfs(dist, "fsck", str(cache / FQRN)).returncode == 0
        # Those who begin at the quota, too.
        assert len(read_all(dist, sums)) <= 1
        disk.limit(None)
        assert read_all(dist, sums) == []
        origin.forget_requests()
        assert read_all(dist, sums) == []
        assert origin.objects() == []


def test_a_workspace_at_its_quota_is_done_without(
    origin: Nginx, repository: PublishedRepository, sums: list[str], disk: QuotaDisk
) -> None:
    """Copies of catalogs, what was verified, and the record of the revision."""
    cache, workspace = disk.directory / "alien", disk.directory / "own"
    settings = KINDS["alien"].format(cache=cache, workspace=workspace)
    with client_dist(origin.url, repository.master_key_pem, settings=settings) as dist:
        assert read_all(dist, sums) == []
        disk.limit(1 << 20)
        said = read_all(dist, sums)
        assert len(said) <= 2, said
        disk.limit(None)
        origin.forget_requests()
        assert read_all(dist, sums) == []
        assert origin.objects() == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_session_on_a_disk_without_inodes_reads_everything(
    origin: Nginx,
    repository: PublishedRepository,
    sums: list[str],
    place: Path,
    kind: str,
) -> None:
    with (
        mounted_with_inodes(place, ORDINARY_UID, INODES) as directory,
        client_dist(origin.url, repository.master_key_pem) as dist,
    ):
        cache, workspace = directory / kind, dist.parent / "tmp"
        with (dist / "etc/cvmfs/default.local").open("a") as settings:
            settings.write(KINDS[kind].format(cache=cache, workspace=workspace))
        for _ in range(2):
            said = read_all(dist, sums)
            assert len(said) <= 1, said
            assert all(f"No space left on device; {NOT_KEPT} (" in one for one in said)


# -- stores ---------------------------------------------------------------------------


OBJECT_BYTES = 200_000
ENOUGH = QUOTA_BYTES // OBJECT_BYTES + 1


def name(number: int) -> ContentHash:
    return ContentHash.of(b"%d" % number)


def stores_next(store: ObjectStore, number: int) -> bool:
    """Store an object, which can be read in any case; return whether it was kept."""
    content = b"%d" % number * (OBJECT_BYTES // len(b"%d" % number))
    assert content_of(put(store, name(number), content)) == content
    return store.has(name(number))


@pytest.fixture(params=KINDS)
def store(
    request: pytest.FixtureRequest, disk: QuotaDisk, tmp_path: Path
) -> Iterator[DirectoryStore | PackedStore | AlienStore]:
    """A store without a limit, which makes no room by itself."""
    path = str(disk.directory / "cache")
    made: DirectoryStore | PackedStore | AlienStore
    if request.param == "posix":
        made = DirectoryStore.open(path)
    elif request.param == "packed":
        made = PackedStore.open(path)
    else:
        made = AlienStore.open(path, str(tmp_path / "workspace"))
    with closing(made) as store:
        yield store


def test_a_minute_after_the_quota_was_lifted_objects_are_kept_again(
    store: DirectoryStore | PackedStore | AlienStore,
    disk: QuotaDisk,
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()
    if isinstance(store, DirectoryStore):
        store.refusals._clock = clock
    else:
        store._refusals._clock = clock
    disk.limit(QUOTA_BYTES)
    kept = [stores_next(store, number) for number in range(ENOUGH)]
    assert kept[0]
    assert not kept[-1]
    disk.limit(None)
    assert not stores_next(store, ENOUGH), "it is not asked all the time"
    clock.sleep(REST_S)
    assert stores_next(store, ENOUGH)
    (warning,) = caplog.messages
    assert warning.startswith(f"{store.path}: {QUOTA_WARNING}", warning.index("/"))


def test_what_was_used_least_goes_at_the_quota(
    disk: QuotaDisk, caplog: pytest.LogCaptureFixture
) -> None:
    """The limit of the cache is far away; the newest is kept, nobody is warned."""
    disk.limit(QUOTA_BYTES)
    with closing(DirectoryStore.open(str(disk.directory / "cache"), 1 << 30)) as store:
        for number in range(2 * ENOUGH):
            assert stores_next(store, number)
        assert not store.has(name(0))
        assert store.quota.cleanings_within(60) > 0
        used_bytes = store.used_bytes()
        assert used_bytes is not None
        assert QUOTA_BYTES // 2 < used_bytes < QUOTA_BYTES
    assert caplog.messages == []


def test_what_no_disk_takes_is_read_from_memory(disk: QuotaDisk) -> None:
    """The cache and the place for what it refuses are at one quota."""
    path = disk.directory / "cache"
    scratch = disk.directory / "scratch"
    path.mkdir(mode=0o700)
    scratch.mkdir()
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    store = DirectoryStore(str(path), descriptor, scratch_directory=str(scratch))
    with closing(store):
        disk.limit(1 << 20)
        content = os.urandom(8_000_000)
        assert content_of(put(store, name(0), content)) == content
        assert not store.has(name(0))
