"""Sessions that share one cache and want the same: each object is downloaded once.

They start on an empty cache at the same moment, as the jobs of a node do; what they
ask for is counted by a real nginx.
"""

import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from cvmfsexec.cache import claims
from tests.support.commands import client_dist, give_to_ordinary_user, started_exec
from tests.support.nginx import Nginx
from tests.support.published import FQRN, PublishedRepository, publish_tree
from tests.support.tree_reader import TreeReader, large_tree, started_reader

pytestmark = pytest.mark.kernel

OK = {"ok"}
SESSIONS = 16
FILES = 600


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> PublishedRepository:
    return publish_tree(tmp_path_factory.mktemp("published"), large_tree())


@contextlib.contextmanager
def node(
    origin: Nginx, repository: PublishedRepository, settings: str = ""
) -> Iterator[Path]:
    """Make a client with an empty cache, which counts from zero."""
    place = Path(tempfile.mkdtemp(prefix="cvmfsexec-test-"))
    place.chmod(0o755)
    give_to_ordinary_user(place)
    keys, settings = repository.master_key_pem, settings.format(place=place)
    with client_dist(origin.url, keys, settings=settings) as dist:
        origin.forget_requests()
        yield dist
    shutil.rmtree(place)


def requests_of_readers(
    origin: Nginx, repository: PublishedRepository, count: int, settings: str
) -> list[str]:
    """Let sessions do the same work; return the objects that were asked for."""
    with node(origin, repository, settings) as dist, contextlib.ExitStack() as stack:
        sessions = [stack.enter_context(started_reader(dist)) for _ in range(count)]
        for session in sessions:
            session.begin(FILES)
        assert [session.finish() for session in sessions] == [OK] * count
        return origin.objects()


def requests_of_archivers(
    origin: Nginx, repository: PublishedRepository, count: int, settings: str
) -> list[str]:
    """Likewise for sessions that read all files in order, so that many come ahead."""
    # tar itself would look through /dev/null and read nothing.
    archive = ("sh", "-c", f"tar -cf - -C /cvmfs/{FQRN} . | cat >/dev/null")
    with node(origin, repository, settings) as dist, contextlib.ExitStack() as stack:
        sessions = [
            stack.enter_context(started_exec(dist, FQRN, "--", *archive))
            for _ in range(count)
        ]
        assert [session.finish() for session in sessions] == [0] * count
        return origin.objects()


KINDS = {
    "posix": "",
    "packed": "CVMFS_CACHE_TYPE=packed\n",
    "alien": "CVMFS_ALIEN_CACHE={place}/alien\nCVMFS_QUOTA_LIMIT=-1\n"
    "CVMFS_ALIEN_CACHE_LIMIT=1000\n",
}


every_kind = pytest.mark.parametrize("settings", KINDS.values(), ids=list(KINDS))


@every_kind
@pytest.mark.parametrize("requests_of", [requests_of_readers, requests_of_archivers])
def test_sessions_that_start_at_once_download_each_object_once(
    origin: Nginx,
    repository: PublishedRepository,
    requests_of: Callable[[Nginx, PublishedRepository, int, str], list[str]],
    settings: str,
) -> None:
    by_one = requests_of(origin, repository, 1, settings)
    assert len(by_one) > FILES
    by_all = requests_of(origin, repository, SESSIONS, settings)
    assert set(by_all) >= set(by_one)
    assert len(by_all) <= 1.1 * len(by_one)


def begun_reader(dist: Path, stack: contextlib.ExitStack) -> TreeReader:
    """Return a session that has begun to read, and ends with the stack."""
    reader = stack.enter_context(started_reader(dist))
    reader.begin(FILES)
    return reader


@every_kind
def test_nobody_waits_for_those_who_were_killed(
    origin: Nginx, repository: PublishedRepository, settings: str
) -> None:
    with node(origin, repository, settings) as dist, contextlib.ExitStack() as stack:
        start = partial(begun_reader, dist, stack)
        survivors = [start() for _ in range(2)]
        for number in range(4):
            victim = start()
            victim.wait_for_reads(20 * (number + 1))
            os.kill(victim.file_server_pid(), signal.SIGKILL)
        assert [reader.finish() for reader in survivors] == [OK] * 2
        cache = dist / "var/lib/cvmfs" / FQRN
        assert {path.read_bytes() for path in cache.glob(claims.FILE_NAME)} <= {b""}
        assert list(cache.glob("txn/*")) == []
        # What they had fetched is there: the next one fetches little.
        origin.forget_requests()
        last = start()
        assert last.finish() == OK
        assert origin.objects() == []


@every_kind
def test_the_stopped_delay_others_and_do_no_harm(
    origin: Nginx, repository: PublishedRepository, settings: str
) -> None:
    """Stopped wherever they are; and going on when all others have ended."""
    with node(origin, repository, settings) as dist, contextlib.ExitStack() as stack:
        start = partial(begun_reader, dist, stack)
        stopped = [start() for _ in range(2)]
        for number, reader in enumerate(stopped):
            reader.wait_for_reads(50 * (number + 1))
            os.kill(reader.file_server_pid(), signal.SIGSTOP)
        assert [reader.finish() for reader in [start(), start()]] == [OK] * 2
        for reader in stopped:
            os.kill(reader.file_server_pid(), signal.SIGCONT)
        assert [reader.finish() for reader in stopped] == [OK] * 2
        origin.forget_requests()
        assert start().finish() == OK
        assert origin.objects() == []
