"""``cvmfs prefetch`` and ``cvmfs trace``: what is named is in the cache afterwards."""

import json
import os
import zlib
from pathlib import Path

import pytest

from cvmfsexec.format.digest import ContentHash
from cvmfsexec.format.trace import Event, TraceRecord
from cvmfsexec.publish.chunker import ChunkSizes
from tests.support.cvmfs_command import CvmfsCommand, local_dist
from tests.support.published import FQRN, PublishedRepository, Tree, publish_tree

LARGE = os.urandom(300_000)
TREE: Tree = {
    "bin": {"tool": b"tool\n" * 50, "other": b"other\n" * 50, "empty": b""},
    "lib": {
        ".cvmfscatalog": b"",
        "a.so": b"a" * 500,
        "b.so": b"b" * 500,
        "c.txt": b"c" * 500,
        "deep": {"d.so": b"d" * 500},
    },
    "latest": "lib",
    "large": LARGE,
    "same": b"tool\n" * 50,
}
CHUNK = 65_536
CHUNKS = ChunkSizes(CHUNK // 2, CHUNK, 2 * CHUNK)
NOT_FOUND, USER_ERROR, NO_ROOM, TRANSFER = 1, 2, 9, 16


@pytest.fixture
def repository(tmp_path: Path) -> PublishedRepository:
    return publish_tree(tmp_path, TREE, chunk_sizes=CHUNKS)


@pytest.fixture
def dist(tmp_path: Path, repository: PublishedRepository) -> str:
    return local_dist(tmp_path, repository.output, repository.master_key_pem)


@pytest.fixture
def cache(dist: str) -> Path:
    return Path(dist) / "var/lib/cvmfs" / FQRN


def is_cached(cache: Path, content: bytes) -> bool:
    return (cache / ContentHash.of(zlib.compress(content, 6)).cache_path()).exists()


def cached_in(cache: Path, tree: object = TREE) -> set[str]:
    """Return the names of the small files that are in the cache."""
    assert isinstance(tree, dict)
    found = set()
    for name, value in tree.items():
        if isinstance(value, dict):
            found |= cached_in(cache, value)
        elif isinstance(value, bytes) and value and is_cached(cache, value):
            found.add(name)
    return found


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["/bin/tool"], {"tool", "same"}),
        (["bin"], {"tool", "other", "same"}),
        (["/lib"], {"a.so", "b.so", "c.txt", "d.so"}),
        (["/lib/*.so"], {"a.so", "b.so"}),
        (["/l*/deep/*"], {"d.so"}),
        (["/latest/a.so"], {"a.so"}),
        (["/latest"], {"a.so", "b.so", "c.txt", "d.so"}),
        (["/bin/other", "/lib/c.txt"], {"other", "c.txt"}),
    ],
)
def test_what_is_named_is_cached(
    cvmfs: CvmfsCommand, dist: str, cache: Path, paths: list[str], names: set[str]
) -> None:
    told = cvmfs("prefetch", "--dist", dist, FQRN, *paths)
    assert (told.status, told.err) == (0, "")
    assert cached_in(cache) == names


def test_everything_is_cached(
    cvmfs: CvmfsCommand, dist: str, repository: PublishedRepository
) -> None:
    told = cvmfs("prefetch", "--dist", dist, "--json", FQRN, "/")
    (report,) = json.loads(told.out)
    assert report["files"] == 10
    assert report["fetched"] == report["objects"] >= 6 + len(LARGE) // CHUNK // 4
    assert (report["present"], report["missing"], report["failed"]) == (0, [], [])
    repository.directory.rename(repository.directory.with_name("away"))
    for path, content in (("/large", LARGE), ("/lib/deep/d.so", b"d" * 500)):
        assert cvmfs("cat", "--dist", dist, FQRN, path).out == content


def test_what_is_there_is_not_fetched_again(cvmfs: CvmfsCommand, dist: str) -> None:
    cvmfs("prefetch", "--dist", dist, FQRN, "/bin/tool")
    told = cvmfs("prefetch", "--dist", dist, FQRN, "/bin")
    assert "; 1 were there, 1 fetched (300 bytes), 0 failed" in told.lines[0]


def test_missing_paths_are_told(cvmfs: CvmfsCommand, dist: str, cache: Path) -> None:
    told = cvmfs("prefetch", "--dist", dist, FQRN, "/bin/nothing", "/x*", "/bin/tool")
    assert told.status == NOT_FOUND
    assert "/bin/nothing: no such file or directory" in told.err
    assert "/x*: no such file or directory" in told.err
    assert "tool" in cached_in(cache)


def test_what_cannot_be_fetched_is_told_and_the_rest_is_there(
    cvmfs: CvmfsCommand, dist: str, cache: Path, repository: PublishedRepository
) -> None:
    name = ContentHash.of(zlib.compress(b"a" * 500, 6))
    text = name.digest.hex()
    (repository.directory / f"data/{text[:2]}/{text[2:]}").unlink()
    told = cvmfs("prefetch", "--dist", dist, FQRN, "/lib")
    assert told.status == TRANSFER
    assert told.err.startswith("cvmfs: /lib/a.so: ")
    assert cached_in(cache) == {"b.so", "c.txt", "d.so"}


@pytest.mark.parametrize("words", [[], [FQRN], ["--replay", "/nowhere"]])
def test_without_anything_to_fetch_it_is_an_error(
    cvmfs: CvmfsCommand, dist: str, words: list[str]
) -> None:
    assert cvmfs("prefetch", "--dist", dist, *words).status == USER_ERROR


@pytest.mark.parametrize("paths", [["/", "/bin"], ["/bin/tool", "/*", "/b*/*", "/"]])
def test_what_is_named_twice_is_counted_once(
    cvmfs: CvmfsCommand, dist: str, paths: list[str]
) -> None:
    told = cvmfs("prefetch", "--dist", dist, "--json", FQRN, *paths)
    (report,) = json.loads(told.out)
    assert report["files"] == 10


@pytest.mark.parametrize("count", ["0", "65", "x", "-1", "٣", ""])
def test_a_number_of_connections_that_is_none_is_told(
    cvmfs: CvmfsCommand, count: str
) -> None:
    told = cvmfs("prefetch", f"--connections={count}", FQRN, "/")
    assert told.status == USER_ERROR
    assert told.err.endswith(f"{count!r} is no number from 1 to 64\n")


# Traces


def write_trace(path: Path, *records: TraceRecord) -> Path:
    path.write_bytes(b"".join(record.serialize() for record in records))
    return path


def record(
    path: bytes, event: Event = Event.OPEN, fqrn: str = FQRN, *extent: int
) -> TraceRecord:
    return TraceRecord(1_000_000, event, fqrn, path, *extent)


@pytest.mark.parametrize("command", ["prefetch", "trace"])
def test_a_trace_is_replayed(
    cvmfs: CvmfsCommand, dist: str, cache: Path, tmp_path: Path, command: str
) -> None:
    trace = write_trace(
        tmp_path / "trace",
        record(b"", Event.OPENDIR),
        record(b"/lib/deep", Event.OPENDIR),
        record(b"/lib/a.so", Event.OPEN, FQRN, 0, 4096),
        record(b"/gone", Event.OPEN),
    )
    told = cvmfs(command, "--dist", dist, "--replay", trace)
    assert (told.status, told.err) == (0, "")
    assert cached_in(cache) == {"a.so"}


def test_of_large_files_the_parts_that_were_read_are_fetched(
    cvmfs: CvmfsCommand, dist: str, tmp_path: Path
) -> None:
    trace = write_trace(
        tmp_path / "trace", record(b"/large", Event.OPEN, FQRN, 150_000, 1)
    )
    told = cvmfs("prefetch", "--dist", dist, "--json", "--replay", trace)
    (report,) = json.loads(told.out)
    assert (report["files"], report["objects"], report["fetched"]) == (1, 1, 1)


def test_a_trace_of_the_original_needs_the_name(
    cvmfs: CvmfsCommand, dist: str, cache: Path, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    trace.write_bytes(
        b'"1764000000.1","-1","","Trace buffer created"\r\n'
        b'"1764000000.2","4","/bin","lookup()"\r\n'
        b'"1764000000.3","1","/bin/other","open()"\r\n'
    )
    told = cvmfs("prefetch", "--dist", dist, "--replay", trace)
    assert told.status == USER_ERROR
    assert "does not tell of which repository" in told.err
    assert cvmfs("prefetch", "--dist", dist, FQRN, "--replay", trace).status == 0
    assert cached_in(cache) == {"other"}


def test_with_a_name_only_its_part_of_a_trace_is_replayed(
    cvmfs: CvmfsCommand, dist: str, cache: Path, tmp_path: Path
) -> None:
    trace = write_trace(
        tmp_path / "trace",
        record(b"/lib/a.so", Event.OPEN, "other.example.org"),
        record(b"/bin/other"),
    )
    told = cvmfs("prefetch", "--dist", dist, FQRN, "--replay", trace)
    assert (told.status, told.err) == (0, "")
    assert cached_in(cache) == {"other"}


@pytest.mark.parametrize("words", [[], [FQRN]])
def test_a_trace_without_events_is_told_to_be(
    cvmfs: CvmfsCommand, dist: str, tmp_path: Path, words: list[str]
) -> None:
    trace = write_trace(tmp_path / "trace")
    told = cvmfs("prefetch", "--dist", dist, *words, "--replay", trace)
    assert (told.status, told.lines) == (0, [])
    assert told.err.startswith(f"cvmfs: {trace} tells nothing")
    assert cvmfs("trace", trace).err == f"cvmfs: {trace} tells nothing\n"


def test_a_trace_means_paths_and_so_the_newest_revision(
    cvmfs: CvmfsCommand, dist: str, cache: Path, tmp_path: Path
) -> None:
    trace = write_trace(tmp_path / "trace", record(b"/lib/a.so"))
    publish_tree(tmp_path, {"lib": {"a.so": b"new" * 99}}, chunk_sizes=CHUNKS)
    assert cvmfs("prefetch", "--dist", dist, "--replay", trace).status == 0
    assert is_cached(cache, b"new" * 99)
    assert cached_in(cache) == set()


def test_what_was_touched_is_listed(cvmfs: CvmfsCommand, tmp_path: Path) -> None:
    trace = write_trace(
        tmp_path / "trace",
        record(b"/lib", Event.OPENDIR),
        record(b"/lib/a.so", Event.OPEN, FQRN, 0, 1),
        record(b"/lib/a.so", Event.OPEN, FQRN, 1, 1),
        record(b"/x", Event.OPEN, ""),
    )
    told = cvmfs("trace", trace)
    assert told.lines == [f"/cvmfs/{FQRN}/lib", f"/cvmfs/{FQRN}/lib/a.so", "/x"]
    told = cvmfs("trace", "--json", trace)
    assert json.loads(told.out)[1] == {
        "repository": FQRN,
        "path": "/lib/a.so",
        "at": 1.0,
        "events": ["open"],
        "count": 2,
    }


def test_what_is_no_trace_is_refused(cvmfs: CvmfsCommand, tmp_path: Path) -> None:
    (tmp_path / "trace").write_bytes(b"hello\n")
    told = cvmfs("trace", tmp_path / "trace")
    assert told.status == TRANSFER  # malformed, as what servers send
    assert "/trace: not a line of a trace" in told.err


def test_a_directory_that_is_gone_costs_nothing_else(
    cvmfs: CvmfsCommand, dist: str, cache: Path, tmp_path: Path
) -> None:
    trace = write_trace(
        tmp_path / "trace",
        record(b"/gone", Event.OPENDIR),
        *(record(b"/gone/%d" % number) for number in range(3)),
        record(b"/bin/tool/below-a-file"),
        record(b"/lib/a.so"),
    )
    told = cvmfs("prefetch", "--dist", dist, "--json", "--replay", trace)
    (report,) = json.loads(told.out)
    assert (told.status, told.err, len(report["missing"])) == (0, "", 5)
    assert cached_in(cache) == {"a.so"}


def test_a_catalog_that_cannot_be_had_is_told_once(
    cvmfs: CvmfsCommand,
    dist: str,
    cache: Path,
    tmp_path: Path,
    repository: PublishedRepository,
) -> None:
    assert cvmfs("ls", "--dist", dist, FQRN, "/").status == 0  # has the root catalog
    for catalog in repository.directory.glob("data/??/*C"):
        catalog.unlink()
    trace = write_trace(
        tmp_path / "trace",
        record(b"", Event.OPENDIR),
        record(b"/lib", Event.OPENDIR),
        record(b"/lib/a.so"),
        record(b"/lib/b.so"),
        record(b"/bin/other"),
    )
    told = cvmfs("prefetch", "--dist", dist, "--json", "--replay", trace)
    (report,) = json.loads(told.out)
    assert told.status == TRANSFER
    assert [failure["path"] for failure in report["failed"]] == ["/lib"]
    assert cached_in(cache) == {"other"}


def test_several_traces_that_say_the_same_are_one(
    cvmfs: CvmfsCommand, dist: str, tmp_path: Path
) -> None:
    trace = write_trace(
        tmp_path / "trace",
        *(
            record(b"/large", Event.OPEN, FQRN, start, 1)
            for start in (0, 299_999, 0, 150_000)
        ),
    )
    words = ("--json", "--replay", trace, "--replay", trace)
    told = cvmfs("prefetch", "--dist", dist, *words)
    (report,) = json.loads(told.out)
    assert (report["files"], report["objects"]) == (1, 3)


SIZE = 100_000
MANY: Tree = {f"f{number:02}": os.urandom(SIZE) for number in range(40)}


@pytest.mark.parametrize("before", [0, 15])
def test_what_a_cache_has_no_room_for_is_left_out_and_told_once(
    cvmfs: CvmfsCommand, tmp_path: Path, before: int
) -> None:
    tree: Tree = {**MANY, "before": {f"b{n}": os.urandom(SIZE) for n in range(before)}}
    repository = publish_tree(tmp_path, tree)
    limit = {"CVMFS_QUOTA_LIMIT": "2"}
    key = repository.master_key_pem
    dist = local_dist(tmp_path, repository.output, key, limit)
    assert cvmfs("prefetch", "--dist", dist, FQRN, "/before").status == 0
    trace = write_trace(
        tmp_path / "trace", *(record(b"/" + name.encode()) for name in MANY)
    )
    told = cvmfs("prefetch", "--dist", dist, "--json", "--replay", trace)
    (report,) = json.loads(told.out)
    assert (told.status, told.err.count("left out")) == (NO_ROOM, 1)
    assert "the cache holds 2 MB, and they all have 4 MB" in told.err
    assert 10 <= report["fetched"] == 40 - report["left_out"] <= 20
    cache = Path(dist) / "var/lib/cvmfs" / FQRN
    first = [f"f{number:02}" for number in range(report["fetched"])]
    assert cached_in(cache, MANY) == set(first)
    again = cvmfs("prefetch", "--dist", dist, "--json", "--replay", trace)
    (report_again,) = json.loads(again.out)
    assert report_again["present"] >= report["fetched"]
