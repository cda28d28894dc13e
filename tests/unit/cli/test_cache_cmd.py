"""``cvmfs cache``: what is there, what goes, and what stays."""

import json
import zlib
from pathlib import Path

import pytest

from cvmfsexec.cli.hit_rates import parse_percent
from cvmfsexec.errors import FormatError
from cvmfsexec.format.digest import ContentHash
from tests.support.cvmfs_command import CvmfsCommand, local_dist
from tests.support.published import FQRN, PublishedRepository, Tree, publish_tree

TREE: Tree = {
    "bin": {"tool": b"tool\n" * 5000, "other": b"other\n" * 5000},
    "lib": {".cvmfscatalog": b"", "a.so": b"a" * 50_000, "b.so": b"b" * 50_000},
}
FILES = {
    "/bin/tool": b"tool\n" * 5000,
    "/bin/other": b"other\n" * 5000,
    "/lib/a.so": b"a" * 50_000,
    "/lib/b.so": b"b" * 50_000,
}
NOT_FOUND, USER_ERROR, USAGE, NO_CACHE = 1, 2, 2, 9


@pytest.fixture
def repository(tmp_path: Path) -> PublishedRepository:
    return publish_tree(tmp_path, TREE)


@pytest.fixture
def dist(tmp_path: Path, repository: PublishedRepository) -> str:
    return local_dist(
        tmp_path,
        repository.output,
        repository.master_key_pem,
        {"CVMFS_QUOTA_LIMIT": "2000"},
    )


@pytest.fixture
def cache(dist: str, cvmfs: CvmfsCommand) -> Path:
    """Return a filled cache."""
    assert cvmfs("prefetch", "--dist", dist, FQRN, "/").status == 0
    return Path(dist) / "var/lib/cvmfs" / FQRN


def cached(cache: Path) -> set[str]:
    """Return the paths of the files that are there."""
    return {
        path
        for path, content in FILES.items()
        if (cache / ContentHash.of(zlib.compress(content, 6)).cache_path()).exists()
    }


def answer(cvmfs: CvmfsCommand, *words: str | Path) -> list[dict[str, object]]:
    told = cvmfs("cache", *words, "--json")
    assert told.status == 0, told
    rows = json.loads(told.out)
    assert isinstance(rows, list)
    return rows


def test_usage_of_all_caches(cvmfs: CvmfsCommand, dist: str, cache: Path) -> None:
    (report,) = answer(cvmfs, "usage", "--dist", dist)
    sizes = [path.stat().st_size for path in cache.glob("??/*")]
    assert report["directory"] == str(cache)
    assert report["repositories"] == [FQRN]
    assert (report["used_bytes"], report["objects"]) == (sum(sizes), len(sizes))
    assert (report["pinned_bytes"], report["limit_bytes"]) == (0, 2000 << 20)
    told = cvmfs("cache", "usage", "--dist", dist)
    assert told.lines[0] == str(cache)
    assert "  limit         2.0 GiB" in told.lines


def test_a_cache_is_named_by_its_directory(cvmfs: CvmfsCommand, cache: Path) -> None:
    (report,) = answer(cvmfs, "usage", "--dir", cache)
    assert (report["repositories"], report["limit_bytes"]) == ([FQRN], 0)


def test_without_any_cache_there_is_nothing_to_tell(
    cvmfs: CvmfsCommand, dist: str
) -> None:
    assert answer(cvmfs, "usage", "--dist", dist) == []
    assert cvmfs("cache", "list", "--dist", dist).lines == []


def test_limits_are_told(cvmfs: CvmfsCommand, dist: str, cache: Path) -> None:
    told = cvmfs("cache", "limit", "--dist", dist)
    assert told.lines == [f"{cache}: 2.0 GiB"]


@pytest.mark.usefixtures("cache")
def test_objects_are_listed_with_their_paths(
    cvmfs: CvmfsCommand, dist: str, repository: PublishedRepository
) -> None:
    repository.directory.rename(repository.directory.with_name("away"))  # no server
    rows = answer(cvmfs, "list", "--dist", dist)
    named = {(row["kind"], row["path"]) for row in rows if row["path"]}
    files = {("file", path) for path in FILES}
    assert named - {("file", "/lib/.cvmfscatalog")} == files | {
        ("catalog", "/"),
        ("catalog", "/lib"),
    }
    assert sum(row["path"] is None for row in rows) == 1  # the certificate
    told = cvmfs("cache", "list", "--dist", dist, FQRN)
    assert any(line.endswith(f" {FQRN}:/lib/a.so") for line in told.lines)


def test_files_are_evicted_by_path(
    cvmfs: CvmfsCommand, dist: str, cache: Path, repository: PublishedRepository
) -> None:
    repository.directory.rename(repository.directory.with_name("away"))
    told = cvmfs("cache", "evict", "--dist", dist, FQRN, "/bin", "/lib/a.so")
    assert told.lines == ["3 objects of 102.5 KiB evicted"]
    assert cached(cache) == {"/lib/b.so"}
    told = cvmfs("cache", "evict", "--dist", dist, FQRN, "/bin/tool", "/none")
    assert (told.status, told.lines) == (NOT_FOUND, ["0 objects of 0 B evicted"])
    assert "/none: no such file or directory" in told.err
    assert cvmfs("fsck", cache).status == 0


def test_what_is_pinned_survives_a_cleanup(
    cvmfs: CvmfsCommand, dist: str, cache: Path
) -> None:
    told = cvmfs("cache", "pin", "--dist", dist, FQRN, "/lib/*.so")
    assert (told.status, told.lines) == (0, ["2 objects of 97.7 KiB pinned"])
    rows = answer(cvmfs, "pinned", "--dist", dist)
    assert {row["path"] for row in rows} == {"/lib/a.so", "/lib/b.so"}
    assert cvmfs("cache", "cleanup", "--dist", dist).status == 0
    assert cached(cache) == {"/lib/a.so", "/lib/b.so"}
    told = cvmfs("cache", "unpin", "--dist", dist, FQRN, "/lib/a.so")
    assert told.lines == ["1 objects unpinned"]
    cvmfs("cache", "cleanup", "--dist", dist)
    assert cached(cache) == {"/lib/b.so"}
    assert cvmfs("cache", "unpin", "--dist", dist, FQRN).lines == ["1 objects unpinned"]
    cvmfs("cache", "cleanup", "--dist", dist)
    assert cached(cache) == set()
    assert cvmfs("fsck", cache).status == 0


def test_what_is_pinned_is_fetched_first(cvmfs: CvmfsCommand, dist: str) -> None:
    cache = Path(dist) / "var/lib/cvmfs" / FQRN
    assert cvmfs("cache", "pin", "--dist", dist, FQRN, "/bin").status == 0
    assert cached(cache) == {"/bin/tool", "/bin/other"}
    told = cvmfs("cache", "pin", "--dist", dist, FQRN, "/none")
    assert told.status == NOT_FOUND


def test_an_evicted_file_is_not_pinned_any_more(
    cvmfs: CvmfsCommand, dist: str, cache: Path
) -> None:
    cvmfs("cache", "pin", "--dist", dist, FQRN, "/bin/tool")
    cvmfs("cache", "evict", "--dist", dist, FQRN, "/bin/tool")
    assert answer(cvmfs, "pinned", "--dist", dist) == []
    assert "/bin/tool" not in cached(cache)


def test_a_cleanup_stops_at_the_limit_given(cvmfs: CvmfsCommand, cache: Path) -> None:
    told = cvmfs("cache", "cleanup", "--dir", cache, "1000")
    assert told.status == 0
    assert cached(cache) == set(FILES)


@pytest.mark.parametrize(
    "words",
    [
        ["usage", "1"],
        ["cleanup", "x"],
        ["cleanup", "1", "2"],
        ["evict"],
        ["evict", FQRN],
        ["pin", FQRN],
        ["unpin"],
        ["evict", "../x", "/a"],
        ["evict", FQRN, "/../x"],
    ],
)
def test_words_that_make_no_sense_are_refused(
    cvmfs: CvmfsCommand, dist: str, words: list[str]
) -> None:
    told = cvmfs("cache", *words, "--dist", dist)
    assert (told.status, told.lines) == (USER_ERROR, [])


def test_an_action_that_there_is_not_is_a_usage_error(cvmfs: CvmfsCommand) -> None:
    assert cvmfs("cache", "explode").status == USAGE


def test_a_repository_that_was_never_cached(cvmfs: CvmfsCommand, dist: str) -> None:
    told = cvmfs("cache", "evict", "--dist", dist, FQRN, "/bin")
    assert told.status == NO_CACHE
    assert "nothing of" in told.err


def test_hit_rates_without_sessions_are_none(cvmfs: CvmfsCommand, dist: str) -> None:
    assert answer(cvmfs, "hit-rate", "--dist", dist) == []


@pytest.mark.parametrize("text", ["", "x", "1", "1.2345", "-1.0", "n/a ", "1e3", "٣.٣"])
def test_a_hit_rate_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(FormatError):
        parse_percent(text)


def test_hit_rates_are_read() -> None:
    assert parse_percent("n/a") is None
    assert parse_percent("66.667") == 66.667
