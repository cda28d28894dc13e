"""Reading ahead through the kernel: what readers spare, and what it costs."""

import os
import shutil
from collections.abc import Iterator

import pytest

from tests.support.commands import client_dist, run_exec, started_exec
from tests.support.http_server import HttpServer, Stall
from tests.support.nginx import Nginx
from tests.support.published import FQRN, PublishedRepository, publish_tree

pytestmark = pytest.mark.kernel

TOP = f"/cvmfs/{FQRN}"
TELL = f"getfattr -n user.read_ahead --only-values {TOP}"
DIRECTORIES = 4
FILES = 100
FILE_COUNT = DIRECTORIES * FILES


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> PublishedRepository:
    tree = {
        f"d{number}": {
            f"f{file:03}": b"file %d of %d\n" % (file, number) for file in range(FILES)
        }
        for number in range(DIRECTORIES)
    }
    large = b"".join(os.urandom(4) * (1 << 18) for _ in range(40))
    return publish_tree(
        tmp_path_factory.mktemp("published"), {**tree, "large": {"file": large}}
    )


@pytest.fixture
def origin(repository: PublishedRepository) -> Iterator[Nginx]:
    if shutil.which("getfattr") is None:
        pytest.skip("no getfattr")
    with Nginx(repository.output) as nginx:
        yield nginx


def counts_after(
    origin: Nginx, repository: PublishedRepository, work: str, settings: str = ""
) -> dict[str, int]:
    """Do work on an empty cache; return what was fetched ahead."""
    key = repository.master_key_pem
    with client_dist(origin.url, key, settings=settings) as dist:
        done = run_exec(dist, FQRN, "--", "sh", "-c", f"{{ {work}; }} >&2; {TELL}")
    assert done.returncode == 0, done.stderr
    lines = [line.split(",") for line in done.stdout.split()]
    return {kind: int(count) for kind, count in lines}


def read_in_order(*directories: str) -> str:
    return f"tar -cf - -C {TOP} {' '.join(directories)} | wc -c"


def test_files_that_are_read_in_order_were_fetched_before(
    origin: Nginx, repository: PublishedRepository
) -> None:
    counts = counts_after(origin, repository, read_in_order("d0", "d1", "d2", "d3"))
    assert counts["used"] > FILE_COUNT // 2
    assert counts["failed"] == counts["wasted"] == 0
    objects = origin.objects()
    assert len(objects) == len(set(objects)), "each object is asked for once"


def test_files_that_are_read_in_any_order_were_fetched_before(
    origin: Nginx, repository: PublishedRepository
) -> None:
    shuffled = [f"f{number * 37 % FILES:03}" for number in range(FILES)]
    work = f"cd {TOP}/d1; for f in {' '.join(shuffled)}; do cat $f; done | wc -c"
    counts = counts_after(origin, repository, work)
    assert counts["used"] > FILES // 8
    objects = origin.objects()
    assert len(objects) == len(set(objects))


def test_chunks_of_a_large_file_were_fetched_before(
    origin: Nginx, repository: PublishedRepository
) -> None:
    counts = counts_after(origin, repository, f"cat {TOP}/large/file | wc -c")
    assert counts["used"] > 0
    objects = origin.objects()
    assert len(objects) == len(set(objects))


def test_a_single_file_costs_no_other(
    origin: Nginx, repository: PublishedRepository
) -> None:
    work = "; ".join(f"cat {TOP}/d{number}/f050" for number in range(DIRECTORIES))
    counts = counts_after(origin, repository, work)
    assert counts == {"fetched": 0, "failed": 0, "used": 0, "wasted": 0}


def test_who_reads_here_and_there_costs_few_others(
    origin: Nginx, repository: PublishedRepository
) -> None:
    work = f"for i in 7 3 5 1 6 2 4 0; do cat {TOP}/d2/f0${{i}}3; done"
    counts = counts_after(origin, repository, work)
    assert counts["fetched"] < FILES


def test_it_can_be_switched_off(origin: Nginx, repository: PublishedRepository) -> None:
    counts = counts_after(
        origin, repository, read_in_order("d0"), settings="CVMFS_READ_AHEAD=no\n"
    )
    assert counts == {}


def test_what_is_under_way_does_not_hold_up_the_end(
    repository: PublishedRepository,
) -> None:
    settings = "CVMFS_TIMEOUT_DIRECT=3600\n"  # longer than any test may take
    with (
        HttpServer(str(repository.output)) as server,
        client_dist(server.url, repository.master_key_pem, settings=settings) as dist,
    ):
        work = (
            f"cat {TOP}/d0/f000 {TOP}/d0/f001 >/dev/null; echo stall; read go;"
            f"cat {TOP}/d0/f0* >/dev/null & echo done"
        )
        with started_exec(dist, FQRN, "--", "sh", "-c", work, takes_input=True) as it:
            stdin, stdout = it.process.stdin, it.process.stdout
            assert stdin is not None
            assert stdout is not None
            assert stdout.readline() == "stall\n"
            server.misbehave(Stall(), path="/data/")
            stdin.write("go\n")
            stdin.flush()
            assert stdout.readline() == "done\n"
            assert it.finish() == 0
