"""Caches on a file system that refuses locks: they work, and one warning says so."""

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.support.commands import client_dist, run_exec
from tests.support.lockless import mounted_without_locks
from tests.support.nginx import Nginx
from tests.support.published import FQRN, PublishedRepository, publish_tree
from tests.support.sessions import ORDINARY_UID
from tests.support.tree_reader import large_tree, started_reader

pytestmark = pytest.mark.kernel

OK = {"ok"}
SESSIONS = 4
FILES = 100


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> PublishedRepository:
    return publish_tree(tmp_path_factory.mktemp("published"), large_tree())


@pytest.fixture(scope="module")
def lockless() -> Iterator[Path]:
    top = Path(tempfile.mkdtemp(prefix="cvmfsexec-test-"))
    top.chmod(0o755)
    with mounted_without_locks(top, ORDINARY_UID) as directory:
        yield directory
    shutil.rmtree(top, ignore_errors=True)


@pytest.fixture
def origin(repository: PublishedRepository) -> Iterator[Nginx]:
    with Nginx(repository.output) as nginx:
        yield nginx


def test_there_are_no_locks(lockless: Path) -> None:
    with (lockless / "file").open("wb") as file:
        for take in (
            lambda: fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB),
            lambda: fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB),
        ):
            with pytest.raises(OSError, match="not implemented") as refused:
                take()
            assert refused.value.errno == errno.ENOSYS


def settings_for(kind: str, lockless: Path) -> str:
    base = lockless / kind
    return {
        "posix": f"CVMFS_CACHE_BASE={base}\n",
        "packed": f"CVMFS_CACHE_TYPE=packed\nCVMFS_CACHE_BASE={base}\n",
        "alien": f"CVMFS_ALIEN_CACHE={base}\nCVMFS_QUOTA_LIMIT=-1\n"
        f"CVMFS_ALIEN_CACHE_LIMIT=100\nCVMFS_WORKSPACE={base}.own\n",
    }[kind]


def make_old(paths: Iterable[Path]) -> None:
    """Let files look as if nobody had written to them for longer than anybody does."""
    written_s = time.time() - 2 * 86_400
    for path in paths:
        os.utime(path, (written_s, written_s))


@pytest.mark.parametrize(
    ("kind", "warnings"), [("posix", 1), ("packed", 0), ("alien", 1)]
)
def test_sessions_share_a_cache_without_locks(
    origin: Nginx,
    repository: PublishedRepository,
    lockless: Path,
    kind: str,
    warnings: int,
) -> None:
    settings = settings_for(kind, lockless)
    keys = repository.master_key_pem
    with client_dist(origin.url, keys, settings=settings) as dist:
        with contextlib.ExitStack() as stack:
            readers = [
                stack.enter_context(started_reader(dist)) for _ in range(SESSIONS)
            ]
            for reader in readers:
                reader.begin(FILES)
            assert [reader.finish() for reader in readers] == [OK] * SESSIONS
        # Without locks, nothing tells at once that who left a file was killed.
        make_old(lockless.rglob("txn/cvmfsexec.*"))
        origin.forget_requests()
        done = run_exec(dist, FQRN, "--", "ls", f"/cvmfs/{FQRN}")
        assert done.returncode == 0, done.stderr
        assert origin.objects() == []
        said = [line for line in done.stderr.splitlines() if line]
        assert len(said) == warnings, said
        assert all("has no locks" in line and "fuse" in line for line in said)
    assert not list(lockless.rglob("txn/cvmfsexec.*"))
