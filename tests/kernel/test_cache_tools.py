"""Tools for caches while sessions run on them."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.commands import (
    client_dist,
    plain_environment,
    run_cvmfs,
    run_exec,
    started_exec,
)
from tests.support.nginx import Nginx
from tests.support.published import FQRN, PublishedRepository, Tree, publish_tree
from tests.support.sessions import PATIENCE_S, ROOT, Caller, Started, wait_until, wrap

pytestmark = pytest.mark.kernel

FILES = {f"f{number}": b"%d\n" % number * 9999 for number in range(60)}
TREE: Tree = {"sub": {".cvmfscatalog": b"", **FILES}}
SUM = f"cd /cvmfs/{FQRN} && cat sub/* | md5sum"
FIXED, NOT_FIXED = 1, 4


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> PublishedRepository:
    return publish_tree(tmp_path_factory.mktemp("published"), TREE)


@pytest.fixture
def origin(repository: PublishedRepository) -> Iterator[Nginx]:
    with Nginx(repository.output) as origin:
        yield origin


@pytest.fixture
def dist(origin: Nginx, repository: PublishedRepository) -> Iterator[Path]:
    with client_dist(origin.url, repository.master_key_pem) as dist:
        yield dist


@pytest.fixture
def session(dist: Path) -> Iterator[Started]:
    """Return a session that has read everything, and will once more at a word."""
    script = f"({SUM}); read line; ({SUM})"
    line = ("--name", "tools", FQRN, "--", "sh", "-c", script)
    with started_exec(dist, *line, takes_input=True) as session:
        assert session.process.stdout is not None
        assert session.process.stdout.readline()
        yield session


def cache_of(dist: Path) -> Path:
    return dist / "var/lib/cvmfs" / FQRN


def spoil_files(dist: Path) -> int:
    """Flip a byte of every file in the cache; return how many there are."""
    count = 0
    for path in cache_of(dist).glob("??/*"):
        content = path.read_bytes()
        if len(content) > 9999 and not content.startswith(b"SQLite"):
            path.write_bytes(content[:-1] + b"?")
            count += 1
    return count


def test_a_cache_in_use_is_checked_and_repaired(
    dist: Path, session: Started, origin: Nginx
) -> None:
    assert run_cvmfs(dist, "fsck").returncode == 0
    count = spoil_files(dist)
    assert count == len(FILES)
    checked = run_cvmfs(dist, "fsck", "-j2", "--json")
    assert checked.returncode == NOT_FIXED, checked
    assert len(json.loads(checked.stdout)[0]["faults"]) == count
    assert run_cvmfs(dist, "fsck", "-p", "-j2").returncode == FIXED
    origin.forget_requests()
    out, err = session.process.communicate("go\n", timeout=PATIENCE_S)
    assert session.process.returncode == 0, err
    again = run_exec(dist, FQRN, "--", "sh", "-c", SUM)
    assert again.stdout == out
    assert len(origin.objects()) == count
    assert run_cvmfs(dist, "fsck").returncode == 0


def test_a_corrupt_catalog_in_use_is_told_to_be(dist: Path, session: Started) -> None:
    for path in cache_of(dist).glob("??/*"):
        content = path.read_bytes()
        if content.startswith(b"SQLite"):
            path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    repaired = run_cvmfs(dist, "fsck", "-p")
    assert repaired.returncode == FIXED
    assert repaired.stdout.count(b"a session has it open") == 2
    out, err = session.process.communicate("go\n", timeout=PATIENCE_S)
    assert (session.process.returncode, len(out)) == (0, len("d41d  -\n") + 28), err


def test_catalogs_in_use_survive_a_cleanup(dist: Path, session: Started) -> None:
    cleaned = run_cvmfs(dist, "cache", "cleanup")
    assert cleaned.returncode == 0, cleaned
    left = [path.read_bytes() for path in cache_of(dist).glob("??/*")]
    assert left
    assert all(content.startswith(b"SQLite") for content in left)
    usage = run_cvmfs(dist, "cache", "usage", "--json")
    (report,) = json.loads(usage.stdout)
    assert report["pinned_bytes"] == report["used_bytes"] > 0
    assert report["limit_in_force_bytes"] > 0
    session.process.communicate("go\n", timeout=PATIENCE_S)
    assert session.process.returncode == 0
    ended = run_cvmfs(dist, "cache", "usage", "--json")
    assert json.loads(ended.stdout)[0]["pinned_bytes"] == 0


def test_mounts_tell_how_well_the_cache_serves(dist: Path, session: Started) -> None:
    told = run_cvmfs(dist, "cache", "hit-rate", "--json")
    assert told.returncode == 0, told
    (rate,) = json.loads(told.stdout)
    assert rate["repository"] == FQRN
    assert rate["pid"] in session.pids()
    assert 0 <= rate["percent"] < 100
    assert rate["downloads"] >= len(FILES)


def test_mounts_go_by_another_limit(dist: Path, session: Started) -> None:
    assert run_cvmfs(dist, "cache", "limit", "1500").returncode == 0
    limit = run_cvmfs(dist, "cache", "limit", "--json")
    assert json.loads(limit.stdout)[0]["limit_in_force_bytes"] == 1500 << 20
    assert run_cvmfs(dist, "cache", "limit", "1").returncode == 1  # too low
    session.process.communicate("go\n", timeout=PATIENCE_S)
    ended = run_cvmfs(dist, "cache", "limit", "2000")
    assert (ended.returncode, ended.stdout) == (1, b"")
    assert b"nothing is mounted" in ended.stderr


def test_a_killed_prefetch_goes_on_where_it_was(dist: Path, origin: Nginx) -> None:
    line = (str(ROOT / "cvmfs"), "prefetch", "--connections", "1", FQRN, "/")
    origin.forget_requests()
    environment = {**plain_environment(), "CVMFSEXEC_DIST": str(dist)}
    with subprocess.Popen(wrap(line, Caller.ORDINARY), env=environment) as process:
        wait_until(lambda: len(origin.objects()) > 10, "some objects were fetched")
        process.kill()
    done = run_cvmfs(dist, "prefetch", "--json", FQRN, "/")
    (report,) = json.loads(done.stdout)
    assert (report["present"] + report["fetched"], report["failed"]) == (
        report["objects"],
        [],
    )
    fetched = origin.objects()
    assert len(fetched) <= len(set(fetched)) + 1  # the one that was under way
    assert run_cvmfs(dist, "fsck").returncode == 0
