"""What sessions have open stays, whatever kind of cache it is in and however small.

A session reads more than its cache may hold. Then the cache is cleaned and the web
server ends. What the session has not looked at yet, but has the catalogs of, it finds.
"""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.commands import client_dist, run_cvmfs, run_exec, started_exec
from tests.support.nginx import Nginx
from tests.support.published import FQRN, PublishedRepository, Tree, publish_tree
from tests.support.sessions import Started

pytestmark = pytest.mark.kernel

AREAS, FILES, SIZE = 4, 40, 40_000
TOP = f"/cvmfs/{FQRN}"
CONTENT = [
    [os.urandom(SIZE) for _ in range(FILES)]
    for _ in range(AREAS)  # in all 6.4 MB
]
SUM = hashlib.md5(b"".join(b"".join(area) for area in CONTENT)).hexdigest()  # noqa: S324
READ = f"cat {TOP}/s*/read/f* | md5sum"
FIND = f"find {TOP}/s*/unseen -name 'g*' | wc -l"

TIERED = """\
CVMFS_CACHE_PRIMARY=node
CVMFS_CACHE_node_TYPE=tiered
CVMFS_CACHE_node_UPPER=memory
CVMFS_CACHE_node_LOWER=disk
CVMFS_CACHE_memory_TYPE=ram
CVMFS_CACHE_memory_SIZE=2
CVMFS_CACHE_disk_TYPE=posix
CVMFS_CACHE_disk_BASE={disk}
"""
KINDS = {
    "one file each": "CVMFS_QUOTA_LIMIT=2\n",
    "ram": "CVMFS_CACHE_TYPE=ram\nCVMFS_CACHE_SIZE=2\n",
    "tiers": f"{TIERED}CVMFS_CACHE_disk_QUOTA_LIMIT=3\n",
}
READ_ONLY = f"{TIERED}CVMFS_CACHE_node_LOWER_READONLY=yes\n"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> PublishedRepository:
    tree: Tree = {
        f"s{number}": {
            ".cvmfscatalog": b"",
            "read": {f"f{name:03}": content for name, content in enumerate(area)},
            "unseen": {f"g{name}": b"%d" % name for name in range(30)},
        }
        for number, area in enumerate(CONTENT)
    }
    return publish_tree(tmp_path_factory.mktemp("published"), tree)


@contextlib.contextmanager
def session_that_reads(dist: Path, then: str) -> Iterator[Started]:
    """Start a session that has read everything, and will do more at a word."""
    script = f"{READ}; read line; {then}"
    line = (FQRN, "--", "sh", "-c", script)
    with started_exec(dist, *line, takes_input=True) as session:
        assert session.process.stdout is not None
        assert session.process.stdout.readline() == f"{SUM}  -\n"
        yield session


def rest_of(session: Started) -> tuple[str, str]:
    """Let it go on to its end; return what it says, and complains of."""
    said, complained = session.process.communicate("go on\n", timeout=60)
    return said, complained


@pytest.mark.usefixtures("memory")
@pytest.mark.parametrize("settings", KINDS.values(), ids=list(KINDS))
def test_catalogs_outlive_whoever_makes_room(
    repository: PublishedRepository, settings: str
) -> None:
    key = repository.master_key_pem
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(contextlib.ExitStack())
        origin = server.enter_context(Nginx(repository.output))
        dist = stack.enter_context(client_dist(origin.url, key))
        with (dist / "etc/cvmfs/default.local").open("a") as file:
            file.write(settings.format(disk=dist.parent / "disk"))
        session = stack.enter_context(session_that_reads(dist, FIND))
        assert run_cvmfs(dist, "cache", "cleanup").returncode == 0
        server.close()
        assert rest_of(session) == (f"{AREAS * 30}\n", "")
        assert session.process.returncode == 0


def test_a_lower_cache_that_is_only_read_stays_as_it_is(
    repository: PublishedRepository, memory: Path
) -> None:
    key = repository.master_key_pem
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(contextlib.ExitStack())
        origin = server.enter_context(Nginx(repository.output))
        dist = stack.enter_context(client_dist(origin.url, key))
        disk = dist.parent / "disk"
        local = dist / "etc/cvmfs/default.local"
        before = local.read_text()
        local.write_text(f"{before}CVMFS_CACHE_BASE={disk}\n")
        filled = run_exec(dist, FQRN, "--", "sh", "-c", READ)
        assert filled.stdout == f"{SUM}  -\n", filled.stderr
        objects = sorted(disk.rglob("??/*"))
        local.write_text(before + READ_ONLY.format(disk=disk))
        origin.forget_requests()
        session = stack.enter_context(session_that_reads(dist, f"{READ}; {FIND}"))
        assert origin.objects() == []
        cleaned = run_cvmfs(dist, "cache", "cleanup", "--dir", str(memory))
        assert cleaned.returncode == 0
        server.close()
        assert rest_of(session) == (f"{SUM}  -\n{AREAS * 30}\n", "")
        assert sorted(disk.rglob("??/*")) == objects
