"""The limit of the cache as a user of mounts sees it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvmfsexec.cache.directory import DirectoryStore
from cvmfsexec.format.digest import ContentHash
from tests.support.commands import client_dist, run_exec, started_exec
from tests.support.nginx import Nginx
from tests.support.published import FQRN, PublishedRepository, publish_tree
from tests.support.sessions import wait_until

pytestmark = pytest.mark.kernel

LIMIT_MB = 4
FILES = 60
SIZE = 150_000
MOUNT = f"/cvmfs/{FQRN}"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> PublishedRepository:
    files = {f"f{number}": os.urandom(SIZE) for number in range(FILES)}
    return publish_tree(
        tmp_path_factory.mktemp("published"), {"d": files, "hello": b"hi"}
    )


@pytest.fixture
def dist(repository: PublishedRepository) -> Iterator[Path]:
    settings = f"CVMFS_QUOTA_LIMIT={LIMIT_MB}\n"
    with (
        Nginx(repository.output) as origin,
        client_dist(origin.url, repository.master_key_pem, settings=settings) as dist,
    ):
        yield dist


def true_bytes(dist: Path) -> int:
    return sum(path.stat().st_size for path in cache_of(dist).glob("??/*"))


def cache_of(dist: Path) -> Path:
    return dist / "var/lib/cvmfs" / FQRN


def test_reading_more_than_the_limit_keeps_to_it(dist: Path) -> None:
    script = (
        f"cat {MOUNT}/d/* | wc -c; stat -f -c '%b %f %S' {MOUNT};"
        f"getfattr --only-values -n user.ncleanup24 {MOUNT}"
    )
    done = run_exec(dist, FQRN, "--", "sh", "-c", script)
    assert done.returncode == 0, done.stderr
    read, sizes, cleanings = done.stdout.splitlines()
    assert int(read) == FILES * SIZE > 2 * LIMIT_MB << 20
    blocks, free_blocks, block_bytes = map(int, sizes.split())
    assert blocks * block_bytes == LIMIT_MB << 20
    used_bytes = (blocks - free_blocks) * block_bytes
    assert true_bytes(dist) - block_bytes < used_bytes <= true_bytes(dist) + block_bytes
    assert true_bytes(dist) <= LIMIT_MB << 20
    assert int(cleanings) >= 2


def test_the_catalogs_of_a_mount_are_not_evicted(
    dist: Path, repository: PublishedRepository
) -> None:
    root_catalog = repository.manifest.root_catalog
    script = f"cat {MOUNT}/hello && echo && exec sleep 60"
    with started_exec(dist, FQRN, "--", "sh", "-c", script) as session:
        assert session.process.stdout is not None
        assert session.process.stdout.readline() == "hi\n"
        assert evict_everything(dist) == {root_catalog}
    wait_until(session.is_gone, "the session has ended")
    assert evict_everything(dist) == set()


def evict_everything(dist: Path) -> set[ContentHash]:
    """Clean a cache as its user would; return what is left."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            uid, gid = owner_of(dist)
            if os.geteuid() == 0:
                os.setgid(gid)
                os.setuid(uid)
            store = DirectoryStore.open(str(cache_of(dist)))
            store.quota.clean(0)
            store.close()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    left = cache_of(dist).glob("??/*")
    return {ContentHash.parse(path.parent.name + path.name) for path in left}


def owner_of(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_uid, status.st_gid
