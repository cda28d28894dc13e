"""What a job touches is written down, and warms the cache of the next node."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvmfsexec.cli.traces import read_trace
from cvmfsexec.format.trace import Event
from tests.support.commands import client_dist, run_cvmfs, run_exec
from tests.support.nginx import Nginx
from tests.support.published import FQRN, PublishedRepository, Tree, publish_tree

pytestmark = pytest.mark.kernel

FILES = {f"f{number}": b"%d\n" % number * 999 for number in range(40)}
TREE: Tree = {
    "used": {".cvmfscatalog": b"", "deep": {".cvmfscatalog": b"", **FILES}},
    "unused": {".cvmfscatalog": b"", **{f"u{n}": b"%d" % n for n in range(20)}},
    'quoted "name"\n': b"odd\n",
    "link": "used/deep",
}
JOB = f"""cd /cvmfs/{FQRN} && cat link/f1 link/f2 used/deep/f39 'quoted "name"
' && ls used/deep >/dev/null && ! test -e used/deep/none"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> PublishedRepository:
    return publish_tree(tmp_path_factory.mktemp("published"), TREE)


@pytest.fixture
def origin(repository: PublishedRepository) -> Iterator[Nginx]:
    with Nginx(repository.output) as origin:
        yield origin


@contextlib.contextmanager
def node(origin: Nginx, repository: PublishedRepository) -> Iterator[Path]:
    # What is fetched ahead would be another thing each time.
    settings = "CVMFS_READ_AHEAD=no\n"
    with client_dist(origin.url, repository.master_key_pem, settings=settings) as dist:
        origin.forget_requests()
        yield dist


def test_a_traced_job_warms_the_next_node(
    origin: Nginx, repository: PublishedRepository
) -> None:
    with node(origin, repository) as first, node(origin, repository) as second:
        trace = first.parent / "tmp/trace"
        cold = run_exec(first, "--trace", str(trace), FQRN, "--", "sh", "-c", JOB)
        assert cold.returncode == 0, cold.stderr
        by_cold_job = origin.objects()
        origin.forget_requests()

        replayed = run_cvmfs(second, "prefetch", "--replay", str(trace))
        assert (replayed.returncode, replayed.stderr) == (0, b""), replayed
        assert set(origin.objects()) == set(by_cold_job)
        origin.forget_requests()

        warm = run_exec(second, FQRN, "--", "sh", "-c", JOB)
        assert (warm.returncode, warm.stdout) == (0, cold.stdout), warm.stderr
        assert origin.objects() == []


def test_what_was_touched_is_told_once(
    origin: Nginx, repository: PublishedRepository
) -> None:
    with node(origin, repository) as dist:
        trace = dist.parent / "tmp/trace"
        run_exec(dist, "--trace", str(trace), FQRN, "--", "sh", "-c", JOB + ";" + JOB)
        records = read_trace(str(trace))
        opened = [one.path for one in records if one.code == Event.OPEN]
        assert sorted(opened) == [
            b'/quoted "name"\n',
            b"/used/deep/f1",
            b"/used/deep/f2",
            b"/used/deep/f39",
        ]
        assert {one.fqrn for one in records} == {FQRN}
        assert len(records) == len({one[1:] for one in records})
        assert not any(b"unused" in one.path for one in records)


def test_a_site_traces_by_a_parameter(
    origin: Nginx, repository: PublishedRepository
) -> None:
    with node(origin, repository) as dist:
        trace = dist.parent / "tmp/trace-@fqrn@"
        with (dist / "etc/cvmfs/default.local").open("a") as settings:
            settings.write(f"CVMFS_TRACEFILE={trace}\n")
        done = run_exec(dist, FQRN, "--", "cat", f"/cvmfs/{FQRN}/used/deep/f1")
        assert done.returncode == 0, done.stderr
        records = read_trace(str(trace).replace("@fqrn@", FQRN))
        assert {one.fqrn for one in records} == {""}
        assert b"/used/deep/f1" in {one.path for one in records}


def test_a_trace_that_cannot_be_written_is_refused(
    origin: Nginx, repository: PublishedRepository
) -> None:
    with node(origin, repository) as dist:
        done = run_exec(dist, "--trace", "/nowhere/trace", FQRN, "--", "true")
        assert done.returncode == 2
        assert done.stderr == (
            "cvmfsexec: --trace /nowhere/trace: cannot be written: "
            "No such file or directory\n"
        )
