"""What a job touches is written down, and warms the cache of the next node."""

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvmfsexec.cli.traces import read_trace
from cvmfsexec.format.trace import Event
from tests.support.commands import (
    client_dist,
    plain_environment,
    run_cvmfs,
    run_exec,
    started_exec,
)
from tests.support.nginx import Nginx
from tests.support.published import FQRN, PublishedRepository, Tree, publish_tree
from tests.support.sessions import PATIENCE_S, ROOT, Caller, wait_until, wrap

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
        records = list(read_trace(str(trace)))
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
        records = list(read_trace(str(trace).replace("@fqrn@", FQRN)))
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


OTHER = "other.example.org"
COUNT_ALL = "cat sub/* | wc -c"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> PublishedRepository:
    """Publish two repositories; return one of them."""
    directory = tmp_path_factory.mktemp("pair")
    publish_tree(directory, {"d": {"odd\nname": b"1", "\udcff": b"2"}}, OTHER)
    return publish_tree(directory, {"sub": FILES})


@pytest.fixture
def server(pair: PublishedRepository) -> Iterator[Nginx]:
    with Nginx(pair.output) as server:
        yield server


def test_a_trace_of_several_repositories_warms_all_of_them(
    server: Nginx, pair: PublishedRepository
) -> None:
    job = f"cd /cvmfs && cat {FQRN}/sub/f1 {OTHER}/d/*"
    line = (FQRN, OTHER, "--", "sh", "-c", job)
    with node(server, pair) as first, node(server, pair) as second:
        trace = first.parent / "tmp/trace"
        cold = run_exec(first, "--trace", str(trace), *line)
        assert cold.returncode == 0, cold.stderr
        assert {one.fqrn for one in read_trace(str(trace))} == {FQRN, OTHER}
        told = run_cvmfs(second, "trace", "--replay", str(trace), "--json")
        assert [one["failed"] for one in json.loads(told.stdout)] == [[], []]
        server.forget_requests()
        warm = run_exec(second, *line)
        assert (warm.returncode, warm.stdout) == (0, cold.stdout)
        assert server.objects() == []


def test_a_job_that_was_killed_leaves_a_trace(
    server: Nginx, pair: PublishedRepository
) -> None:
    with node(server, pair) as first, node(server, pair) as second:
        trace = first.parent / "tmp/trace"
        job = f"cd /cvmfs/{FQRN} && cat sub/f1* >/dev/null && echo read && sleep 600"
        line = ("--trace", str(trace), FQRN, "--", "sh", "-c", job)
        with started_exec(first, *line) as session:
            assert session.process.stdout is not None
            assert session.process.stdout.readline() == "read\n"
            for pid in session.pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        torn = trace.read_bytes()[:-5]  # as if it had been killed while it wrote
        trace.write_bytes(torn)
        assert run_cvmfs(second, "prefetch", "--replay", str(trace)).stderr == b""
        server.forget_requests()
        script = f"cd /cvmfs/{FQRN} && cat sub/f1* | wc -c"
        assert run_exec(second, FQRN, "--", "sh", "-c", script).returncode == 0
        assert len(server.objects()) <= 1  # the one whose line is torn


def test_a_replay_is_interrupted_and_goes_on_beside_the_job(
    server: Nginx, pair: PublishedRepository
) -> None:
    job = f"cd /cvmfs/{FQRN} && {COUNT_ALL}"
    with node(server, pair) as first, node(server, pair) as second:
        trace = first.parent / "tmp/trace"
        cold = run_exec(first, "--trace", str(trace), FQRN, "--", "sh", "-c", job)
        replay = (str(ROOT / "cvmfs"), "prefetch", "--connections", "1")
        line = wrap((*replay, "--replay", str(trace)), Caller.ORDINARY)
        environment = {**plain_environment(), "CVMFSEXEC_DIST": str(second)}
        server.forget_requests()
        with subprocess.Popen(line, env=environment) as interrupted:
            wait_until(lambda: len(server.objects()) > 5, "some objects were fetched")
            interrupted.send_signal(signal.SIGINT)
        with subprocess.Popen(line, env=environment, stdout=subprocess.PIPE) as beside:
            warm = run_exec(second, FQRN, "--", "sh", "-c", job)
            out, _ = beside.communicate(timeout=PATIENCE_S)
        assert (warm.returncode, warm.stdout) == (0, cold.stdout)
        assert (beside.returncode, b" 0 failed" in out) == (0, True)
        fetched = server.objects()
        assert len(fetched) <= len(set(fetched)) + 1  # that of the interruption
        server.forget_requests()
        assert run_exec(second, FQRN, "--", "sh", "-c", job).stdout == cold.stdout
        assert server.objects() == []
        assert run_cvmfs(second, "fsck").returncode == 0
