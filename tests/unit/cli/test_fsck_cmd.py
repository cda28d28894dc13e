"""``cvmfs fsck``: what it says, and the bits of its exit status."""

import json
import os
import subprocess
import zlib
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import IO

import pytest

from cvmfsexec.cache.ledger import Ledger
from cvmfsexec.cache.usage import estimate_usage
from cvmfsexec.format.digest import ContentHash
from tests.support.configuration import make_dist
from tests.support.cvmfs_command import CvmfsCommand, local_dist
from tests.support.published import FQRN, PublishedRepository, publish_tree
from tests.support.sessions import ROOT

TREE = {f"file{number}": b"content %d\n" % number * 99 for number in range(20)}
FIXED, NOT_FIXED, FAILED, USAGE = 1, 4, 8, 16


@pytest.fixture
def repository(tmp_path: Path) -> PublishedRepository:
    return publish_tree(tmp_path, TREE)


@pytest.fixture
def dist(tmp_path: Path, repository: PublishedRepository, cvmfs: CvmfsCommand) -> str:
    """Return a dist with a filled cache."""
    dist = local_dist(tmp_path, repository.output, repository.master_key_pem)
    names = [f"/{name}" for name in TREE]
    assert cvmfs("cat", "--dist", dist, FQRN, *names).status == 0
    return dist


@pytest.fixture
def cache(dist: str) -> Path:
    return Path(dist) / "var/lib/cvmfs" / FQRN


@pytest.fixture
def spoilt(cache: Path) -> Path:
    """Return an object that is spoilt."""
    name = ContentHash.of(zlib.compress(TREE["file3"], 6))
    path = cache / name.cache_path()
    path.write_bytes(TREE["file3"][:-1] + b"?")
    return path


def test_a_sound_cache_is_told_to_be(
    cvmfs: CvmfsCommand, dist: str, cache: Path
) -> None:
    told = cvmfs("fsck", "--dist", dist)
    assert told.status == 0, told
    assert len(told.lines) == 1
    assert told.lines[0].startswith(f"{cache}: 22 objects, ")
    assert told.lines[0].endswith(" 0 faults, 0 fixed")


@pytest.mark.parametrize("chosen", ["directory", "--dir", "--repository", "all"])
def test_faults_are_told_and_left(
    cvmfs: CvmfsCommand, dist: str, cache: Path, spoilt: Path, chosen: str
) -> None:
    words = {
        "directory": (str(cache),),
        "--dir": ("--dir", str(cache)),
        "--repository": ("--dist", dist, "--repository", FQRN),
        "all": ("--dist", dist),
    }
    told = cvmfs("fsck", "-j", "1", *words[chosen])
    assert told.status == NOT_FIXED
    assert told.lines[0].startswith(f"{spoilt}: not what its name says (")
    assert told.lines[1].endswith(" 1 faults, 0 fixed")
    assert spoilt.exists()


@pytest.mark.parametrize("jobs", ["1", "3"])
def test_faults_are_mended_on_request(
    cvmfs: CvmfsCommand, cache: Path, spoilt: Path, jobs: str
) -> None:
    told = cvmfs("fsck", "-p", f"-j{jobs}", cache)
    assert told.status == FIXED
    assert told.lines[0].endswith(": fixed")
    assert not spoilt.exists()
    assert cvmfs("fsck", "-p", cache).status == 0


def test_what_is_mended_is_fetched_again(
    cvmfs: CvmfsCommand, dist: str, cache: Path, spoilt: Path
) -> None:
    cvmfs("fsck", "-p", cache)
    told = cvmfs("cat", "--dist", dist, FQRN, "/file3")
    assert told.out == TREE["file3"]
    assert spoilt.read_bytes() == TREE["file3"]


@pytest.mark.usefixtures("spoilt")
def test_some_fixed_and_some_not_are_both_bits(
    cvmfs: CvmfsCommand, cache: Path
) -> None:
    (cache / "ab").mkdir(exist_ok=True, mode=0o700)
    (cache / "ab" / ("0" * 38) / "mine").mkdir(parents=True)
    assert cvmfs("fsck", "-p", cache).status == FIXED | NOT_FIXED


def test_json_is_for_programs(cvmfs: CvmfsCommand, cache: Path, spoilt: Path) -> None:
    (cache / "mine").touch()
    told = cvmfs("fsck", "--json", "--repair", "--quarantine", cache)
    assert told.status == FIXED
    (report,) = json.loads(told.out)
    assert report["directory"] == str(cache)
    assert report["objects"] == 22
    assert report["foreign"] == ["mine"]
    (fault,) = report["faults"]
    assert fault["path"] == str(spoilt.relative_to(cache))
    assert (fault["problem"], fault["fixed"]) == ("corrupt", True)
    assert (cache / "quarantaine" / fault["path"].replace("/", "")).exists()


def test_foreign_files_are_named_with_v(cvmfs: CvmfsCommand, cache: Path) -> None:
    (cache / "mine").touch()
    assert cvmfs("fsck", cache).lines[0].endswith("0 faults, 0 fixed")
    told = cvmfs("fsck", "-v", cache)
    assert told.status == 0
    assert told.lines[0] == f"{cache}/mine: not of a cache"


def miscount(cache: Path, by_bytes: int) -> None:
    """Let the ledger of a cache tell something else than the truth."""
    directory = os.open(cache, os.O_RDONLY)
    ledger = Ledger(directory, 0, partial(estimate_usage, directory))
    with closing(ledger), ledger.locked() as book:
        counted = book.summary._replace(counted_at_s=1_700_000_000)
        book.write_summary(counted)
        book.add_to_base(by_bytes)
    os.close(directory)


def counted(cache: Path) -> int:
    directory = os.open(cache, os.O_RDONLY)
    ledger = Ledger(directory, 0, partial(estimate_usage, directory))
    with closing(ledger), ledger.locked() as book:
        used_bytes = book.used_bytes
    os.close(directory)
    return used_bytes


def test_what_the_killed_have_left_counted_is_no_fault(
    cvmfs: CvmfsCommand, cache: Path
) -> None:
    miscount(cache, 5000)
    too_much = counted(cache)
    assert cvmfs("fsck", cache).status == 0
    assert counted(cache) == too_much
    assert cvmfs("fsck", "-p", cache).status == 0
    assert counted(cache) == too_much - 5000


def test_a_sum_that_is_too_low_is_a_fault(cvmfs: CvmfsCommand, cache: Path) -> None:
    miscount(cache, 0)
    assert cvmfs("fsck", cache).status == 0
    miscount(cache, -1000)
    told = cvmfs("fsck", cache)
    assert told.status == NOT_FIXED
    assert "the sum of sizes is wrong" in told.lines[0]
    assert cvmfs("fsck", "-p", cache).status == FIXED
    assert cvmfs("fsck", cache).status == 0


@pytest.mark.usefixtures("spoilt")
def test_the_sum_is_right_after_a_repair(cvmfs: CvmfsCommand, cache: Path) -> None:
    miscount(cache, 0)
    assert cvmfs("fsck", "-p", cache).status == FIXED
    assert cvmfs("fsck", cache).status == 0


def test_what_is_no_cache_is_an_operational_error(
    cvmfs: CvmfsCommand, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    told = cvmfs("fsck", tmp_path / "empty")
    assert (told.status, told.lines) == (FAILED, [])
    assert "is not a cache" in told.err
    assert cvmfs("fsck", tmp_path / "missing").status == FAILED


@pytest.mark.parametrize(
    "words", [["-x"], ["-j"], ["-j", "0"], ["-j", "x"], ["-j", "999"], ["--dir"]]
)
def test_usage_errors_are_16(cvmfs: CvmfsCommand, words: list[str]) -> None:
    told = cvmfs("fsck", *words)
    assert (told.status, told.lines) == (USAGE, [])
    assert told.err.startswith("usage: cvmfs fsck ")


def test_other_commands_keep_their_usage_status(cvmfs: CvmfsCommand) -> None:
    assert cvmfs("ls", "-x").status == 2


@pytest.mark.parametrize(
    ("jobs", "text"),
    [("0", "'0' is no number from 1 to 32"), ("٣", "is no number from 1 to 32")],
)
def test_a_number_of_processes_that_is_none_is_told(
    cvmfs: CvmfsCommand, jobs: str, text: str
) -> None:
    told = cvmfs("fsck", "-j", jobs)
    assert told.status == USAGE
    assert text in told.err


def test_that_nothing_is_cached_is_told(cvmfs: CvmfsCommand, tmp_path: Path) -> None:
    dist = make_dist(tmp_path / "other", {"default.local": ""}).dist
    told = cvmfs("fsck", "--dist", dist)
    assert (told.status, told.err) == (0, "cvmfs: nothing is cached yet\n")


@pytest.mark.parametrize("words", [[], ["-p"], ["--json"]])
def test_output_that_is_lost_is_an_operational_error(
    cache: Path, words: list[str]
) -> None:
    with open("/dev/full", "wb") as full:
        done = run_command(cache, *words, stdout=full)
    assert done.returncode == FAILED
    assert done.stderr == b"cvmfs: cannot write the output: No space left on device\n"


def test_who_stops_listening_does_not_learn_that_all_is_well(cache: Path) -> None:
    outlet, inlet = os.pipe()
    os.close(outlet)
    with open(inlet, "wb") as nobody:
        done = run_command(cache, stdout=nobody)
    assert (done.returncode, done.stderr) == (FAILED, b"")


def run_command(
    cache: Path, *words: str, stdout: IO[bytes]
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [ROOT / "cvmfs", "fsck", *words, cache],
        stdout=stdout,
        stderr=subprocess.PIPE,
        check=False,
    )


def test_packs_are_checked_and_mended(
    tmp_path: Path, repository: PublishedRepository, cvmfs: CvmfsCommand
) -> None:
    dist = local_dist(
        tmp_path / "packed",
        repository.output,
        repository.master_key_pem,
        {"CVMFS_CACHE_TYPE": "packed"},
    )
    read = ("cat", "--dist", dist, FQRN, *(f"/{name}" for name in TREE))
    assert cvmfs(*read).status == 0
    (told,) = cvmfs("fsck", "--dist", dist).lines
    assert ": 22 objects, " in told
    (pack,) = Path(dist).rglob("*.pack")
    data = bytearray(pack.read_bytes())
    data[-1] ^= 1
    pack.write_bytes(data)
    for _ in range(2):
        damaged = cvmfs("fsck", "--dist", dist)
        assert damaged.status == NOT_FIXED
        assert f"{pack}: not what its name says (object " in damaged.lines[0]
    assert cvmfs("fsck", "-p", "--dist", dist).status == FIXED
    assert cvmfs("fsck", "--dist", dist).status == 0
    assert cvmfs(*read).out == b"".join(TREE.values())
