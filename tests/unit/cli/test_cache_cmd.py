"""``cvmfs cache``: what is there, what goes, and what stays."""

import json
import zlib
from pathlib import Path

import pytest

from cvmfsexec.cache.ram import RamStore
from cvmfsexec.cli.environment import open_client
from cvmfsexec.cli.hit_rates import parse_percent
from cvmfsexec.errors import FormatError
from cvmfsexec.format.digest import ContentHash
from tests.support.cvmfs_command import CvmfsCommand, local_dist
from tests.support.published import FQRN, PublishedRepository, Tree, publish_tree

TREE: Tree = {
    "bin": {"tool": b"tool\n" * 5000, "other": b"other\n" * 5000},
    "lib": {".cvmfscatalog": b"", "a.so": b"a" * 50_000, "b.so": b"b" * 50_000},
    "link": "bin/tool",
    "to-lib": "lib",
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
    for words in (["list"], ["usage"], ["limit"], ["cleanup"], ["pinned"]):
        told = cvmfs("cache", *words, "--dist", dist)
        assert (told.status, told.lines) == (0, [])
        assert told.err == "cvmfs: nothing is cached yet\n"
    told = cvmfs("cache", "list", "--dist", dist, FQRN)
    assert told.err == f"cvmfs: nothing of {FQRN} is cached yet\n"


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
        ["cleanup", "-5"],
        ["cleanup", ""],
        ["cleanup", "٣"],
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
    told = cvmfs("cache")
    assert told.status == USAGE
    assert told.err.endswith("the following arguments are required: ACTION\n")


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


@pytest.mark.parametrize("path", ["/lib/*.so", "/l[i]b", "/link", "/to-lib/?.so"])
def test_what_is_pinned_by_some_word_is_unpinned_by_it(
    cvmfs: CvmfsCommand, dist: str, cache: Path, path: str
) -> None:
    (count,) = cvmfs("cache", "pin", "--dist", dist, FQRN, path).lines
    words = count.split()
    told = cvmfs("cache", "unpin", "--dist", dist, FQRN, path)
    assert (told.status, told.lines) == (0, [f"{words[0]} objects unpinned"])
    told = cvmfs("cache", "evict", "--dist", dist, FQRN, path)
    assert (told.status, told.lines) == (0, [count.replace("pinned", "evicted")])
    assert cached(cache) < set(FILES)


def test_what_cannot_be_kept_is_not_counted_as_pinned(
    cvmfs: CvmfsCommand, dist: str, cache: Path, repository: PublishedRepository
) -> None:
    name = ContentHash.of(zlib.compress(FILES["/bin/tool"], 6))
    (cache / name.cache_path()).unlink()
    text = name.digest.hex()
    (repository.directory / f"data/{text[:2]}/{text[2:]}").unlink()
    told = cvmfs("cache", "pin", "--dist", dist, FQRN, "/bin", "/none")
    assert (told.status, told.lines) == (NOT_FOUND, ["1 objects of 29.3 KiB pinned"])
    assert "/bin/tool: " in told.err


def test_without_catalogs_nothing_has_a_name(
    cvmfs: CvmfsCommand, dist: str, cache: Path
) -> None:
    assert cvmfs("cache", "cleanup", "--dist", dist).status == 0
    told = cvmfs("cache", "evict", "--dist", dist, FQRN, "/bin")
    assert (told.status, told.lines) == (NO_CACHE, [])
    assert f"nothing that is cached of {FQRN} has a name" in told.err
    assert "; the next session, or cvmfs prefetch, fetches" in told.err
    assert not list(cache.glob("??/*"))


@pytest.mark.parametrize("action", ["evict", "pin", "unpin"])
def test_an_empty_path_is_not_everything(
    cvmfs: CvmfsCommand, dist: str, cache: Path, action: str
) -> None:
    told = cvmfs("cache", action, "--dist", dist, FQRN, "")
    assert (told.status, told.lines) == (USER_ERROR, [])
    assert told.err == "cvmfs: a path is empty; / is the whole repository\n"
    assert cached(cache) == set(FILES)


def test_what_is_pinned_and_missing_is_told(
    cvmfs: CvmfsCommand, dist: str, cache: Path
) -> None:
    cvmfs("cache", "pin", "--dist", dist, FQRN, "/bin/tool", "/bin/other")
    name = ContentHash.of(zlib.compress(FILES["/bin/tool"], 6))
    (cache / name.cache_path()).write_bytes(b"damaged")
    assert cvmfs("fsck", "-p", cache).status == 1
    told = cvmfs("cache", "pinned", "--dist", dist)
    assert len(told.lines) == 1
    assert told.err.startswith(f"cvmfs: 1 pinned objects are not in {cache}; whatever")
    assert cvmfs("prefetch", "--dist", dist, FQRN, "/bin").status == 0
    told = cvmfs("cache", "pinned", "--dist", dist)
    assert (len(told.lines), told.err) == (2, "")


# Caches of other kinds


def dist_with(tmp_path: Path, repository: PublishedRepository, **settings: str) -> str:
    key = repository.master_key_pem
    return local_dist(tmp_path / "other", repository.output, key, settings)


@pytest.fixture
def packed(cvmfs: CvmfsCommand, tmp_path: Path, repository: PublishedRepository) -> str:
    """Return a dist with a filled packed cache."""
    dist = dist_with(tmp_path, repository, CVMFS_CACHE_TYPE="packed")
    assert cvmfs("prefetch", "--dist", dist, FQRN, "/").status == 0
    return dist


def test_all_that_is_packed_is_counted(cvmfs: CvmfsCommand, packed: str) -> None:
    (report,) = answer(cvmfs, "usage", "--dist", packed)
    files = Path(packed, "var/lib/cvmfs").rglob("*")
    sizes = [path.stat().st_size for path in files if path.is_file()]
    least = sum(len(content) for content in FILES.values())
    assert least < int(str(report["used_bytes"])) <= sum(sizes)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["list"], "packs cannot be listed; cvmfs cache usage tells"),
        (["cleanup"], "is packed, and cleaned by its sessions only; lower"),
        (["pin", FQRN, "/bin"], "packs do not know single files; CVMFS_CACHE_TYPE"),
        (["evict", FQRN, "/bin"], "packs do not know single files; CVMFS_CACHE_TYPE"),
    ],
    ids=["list", "cleanup", "pin", "evict"],
)
def test_what_packs_cannot_do_is_told(
    cvmfs: CvmfsCommand, packed: str, words: list[str], text: str
) -> None:
    told = cvmfs("cache", *words, "--dist", packed)
    assert (told.status, told.lines) == (NO_CACHE, [])
    assert text in told.err


def test_a_tier_that_cannot_be_looked_at_leaves_the_other(
    cvmfs: CvmfsCommand, tmp_path: Path, repository: PublishedRepository
) -> None:
    dist = dist_with(
        tmp_path,
        repository,
        CVMFS_CACHE_PRIMARY="both",
        CVMFS_CACHE_both_TYPE="tiered",
        CVMFS_CACHE_both_UPPER="slow",
        CVMFS_CACHE_both_LOWER="fast",
        CVMFS_CACHE_slow_TYPE="packed",
        CVMFS_CACHE_slow_BASE=f"{tmp_path}/slow",
        CVMFS_CACHE_fast_TYPE="posix",
        CVMFS_CACHE_fast_BASE=f"{tmp_path}/fast",
    )
    assert cvmfs("prefetch", "--dist", dist, FQRN, "/").status == 0
    told = cvmfs("cache", "list", "--dist", dist, "--json")
    assert told.status == NO_CACHE
    assert {row["path"] for row in json.loads(told.out)} >= set(FILES)
    told = cvmfs("cache", "cleanup", "--dist", dist, "--json")
    (report,) = json.loads(told.out)
    assert (told.status, report["used_bytes"]) == (NO_CACHE, 0)


def test_files_are_evicted_from_all_tiers_if_one_has_the_catalogs(
    cvmfs: CvmfsCommand, tmp_path: Path, repository: PublishedRepository
) -> None:
    dist = dist_with(
        tmp_path,
        repository,
        CVMFS_CACHE_PRIMARY="both",
        CVMFS_CACHE_both_TYPE="tiered",
        CVMFS_CACHE_both_UPPER="small",
        CVMFS_CACHE_both_LOWER="large",
        CVMFS_CACHE_small_TYPE="posix",
        CVMFS_CACHE_small_BASE=f"{tmp_path}/small",
        CVMFS_CACHE_large_TYPE="posix",
        CVMFS_CACHE_large_BASE=f"{tmp_path}/large",
    )
    assert cvmfs("prefetch", "--dist", dist, FQRN, "/").status == 0
    small, large = (tmp_path / name / FQRN for name in ("small", "large"))
    assert cached(small) == cached(large) == set(FILES)
    for path in large.glob("??/*"):
        if path.read_bytes().startswith(b"SQLite"):
            path.unlink()
    told = cvmfs("cache", "evict", "--dist", dist, FQRN, "/bin", "/none")
    assert told.lines == ["4 objects of 107.4 KiB evicted"]
    assert (told.status, told.err.count("/none: no such file")) == (NOT_FOUND, 1)
    assert cached(small) == cached(large) == {"/lib/a.so", "/lib/b.so"}
    assert cvmfs("cache", "cleanup", "--dist", dist).status == 0
    assert cvmfs("cache", "evict", "--dist", dist, FQRN, "/bin").status == NO_CACHE


def test_an_alien_cache_is_cleaned(
    cvmfs: CvmfsCommand, tmp_path: Path, repository: PublishedRepository
) -> None:
    alien = tmp_path / "alien"
    settings = {"CVMFS_ALIEN_CACHE": str(alien), "CVMFS_QUOTA_LIMIT": "-1"}
    dist = dist_with(tmp_path, repository, **settings)
    assert cvmfs("prefetch", "--dist", dist, FQRN, "/").status == 0
    told = cvmfs("cache", "cleanup", "1000", "--dist", dist)
    assert (told.status, cached(alien)) == (0, set(FILES))
    told = cvmfs("cache", "cleanup", "--dist", dist)
    assert (told.status, told.lines) == (0, [f"{alien}: 0 B are left"])
    assert cached(alien) == set()


def test_a_cache_in_memory_is_looked_at(
    cvmfs: CvmfsCommand, tmp_path: Path, repository: PublishedRepository
) -> None:
    settings = {"CVMFS_CACHE_TYPE": "ram", "CVMFS_CACHE_SIZE": "64"}
    dist = dist_with(tmp_path, repository, **settings)
    with open_client(FQRN, dist) as client:
        assert isinstance(client.store, RamStore)
        told = cvmfs("cache", "pin", "--dist", dist, FQRN, "/bin")
        assert (told.status, told.lines) == (0, ["2 objects of 53.7 KiB pinned"])
        (report,) = answer(cvmfs, "usage", "--dist", dist)
        assert (report["directory"], report["kind"]) == (client.store.path, "ram")
        assert cvmfs("cache", "cleanup", "--dist", dist).status == 0
        rows = answer(cvmfs, "pinned", "--dist", dist)
        files = {row["path"] for row in rows if row["kind"] == "file"}
        assert files == {"/bin/tool", "/bin/other"}
        assert cvmfs("fsck", "--dist", dist).status == 0
