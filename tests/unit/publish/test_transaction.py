import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from cvmfsexec.catalog.history import History
from cvmfsexec.catalog.reader import Catalog
from cvmfsexec.errors import (
    ConfigurationError,
    FqrnMismatchError,
    LetterHashMismatchError,
    PublishError,
)
from cvmfsexec.format.digest import ContentHash, HashAlgorithm, ObjectKind
from cvmfsexec.format.dirent import Compression, DirectoryEntry
from cvmfsexec.format.names import path_hash
from cvmfsexec.format.xattr import parse_xattrs
from cvmfsexec.publish.chunker import ChunkSizes
from cvmfsexec.publish.layout import RepositoryDirectory
from cvmfsexec.publish.objects import read_object
from cvmfsexec.publish.scan import Advance
from cvmfsexec.publish.settings import PublishSettings
from cvmfsexec.publish.transaction import publish
from tests.support.check_repository import check_repository
from tests.support.published import PublishedRepository, Tree, publish_tree, write_tree

NOW_S = 1_700_000_000
NESTED: Tree = {
    "hello": b"hello\n",
    "link": "hello",
    "sw": {
        ".cvmfscatalog": b"",
        "1.0": {".cvmfscatalog": b"", "bin": {"tool": b"tool"}},
        "2.0": {".cvmfscatalog": b"", "bin": {"tool": b"other"}},
    },
    "doc": {".cvmfscatalog": b"", "README": b"read me"},
}


def assert_sound(repository: PublishedRepository) -> None:
    assert check_repository(repository.directory, repository.master_key_pem) == []


@contextmanager
def opened(
    repository: PublishedRepository, content_hash: ContentHash | None = None
) -> Iterator[Catalog]:
    """Open a catalog of the newest revision; the root catalog, if not said."""
    directory = RepositoryDirectory(repository.directory)
    wanted = content_hash or repository.manifest.root_catalog
    path = repository.directory.parent / "opened"
    path.write_bytes(read_object(directory, wanted, ObjectKind.CATALOG))
    with closing(Catalog.open(str(path))) as catalog:
        yield catalog


def catalogs(repository: PublishedRepository) -> dict[bytes, ContentHash]:
    """Return all nested catalogs by where they begin."""
    found: dict[bytes, ContentHash] = {}
    pending = [repository.manifest.root_catalog]
    while pending:
        with opened(repository, pending.pop()) as catalog:
            for ref in catalog.nested():
                found[ref.mountpoint] = ref.content_hash
                pending.append(ref.content_hash)
    return found


def entry(repository: PublishedRepository, path: bytes) -> DirectoryEntry:
    with opened(repository) as catalog:
        found = catalog.find(path_hash(path))
    assert found is not None
    return found


def tag_names(repository: PublishedRepository) -> dict[str, int]:
    assert repository.manifest.history is not None
    path = repository.directory.parent / "tags"
    path.write_bytes(
        read_object(
            RepositoryDirectory(repository.directory),
            repository.manifest.history,
            ObjectKind.HISTORY,
        )
    )
    with closing(History.open(str(path), fqrn=repository.fqrn)) as history:
        return {tag.name: tag.revision for tag in history.tags()}


@pytest.mark.parametrize("algorithm", HashAlgorithm)
@pytest.mark.parametrize("compression", Compression)
def test_a_publication_is_sound(
    tmp_path: Path, algorithm: HashAlgorithm, compression: Compression
) -> None:
    tree = {**NESTED, "large": os.urandom(100_000)}
    repository = publish_tree(
        tmp_path,
        tree,
        algorithm=algorithm,
        compression=compression,
        chunk_sizes=ChunkSizes.around(16384),
    )
    assert_sound(repository)
    assert entry(repository, b"/large").is_chunked
    assert repository.manifest.root_catalog.algorithm is algorithm
    assert repository.manifest.revision == 1


def test_an_empty_directory_is_a_repository(tmp_path: Path) -> None:
    assert_sound(publish_tree(tmp_path, {}))


def test_every_kind_of_entry_is_published(tmp_path: Path) -> None:
    source = tmp_path / "source-of-all-kinds"
    write_tree(source, {"file": b"x", "dir": {"a": b"", "b": {}}, "link": "\udcff/x"})
    os.mkfifo(source / "fifo", 0o640)
    os.link(source / "file", source / "file2")
    os.link(source / "file", source / "dir" / "file3")
    os.link(source / "link", source / "link2", follow_symlinks=False)
    (source / "dir" / "a").chmod(0o4711)
    os.utime(source / "dir" / "a", ns=(0, -1))
    (source / os.fsdecode(b"\xfe\n")).write_bytes(b"odd name")
    (source / ".hidden").write_bytes(b"not hidden")
    attributed = _set_attribute(source / "file")
    repository = publish_tree(tmp_path, source)
    assert_sound(repository)
    file, file2, file3 = (
        entry(repository, path) for path in (b"/file", b"/file2", b"/dir/file3")
    )
    assert file.linkcount == 2
    assert file.hardlinks == file2.hardlinks
    assert file3.hardlinks == 1
    assert file.digest == file3.digest
    assert entry(repository, b"/link2").linkcount == 2
    assert entry(repository, b"/link").symlink == b"\xff/x"
    special = entry(repository, b"/fifo")
    assert (stat.S_ISFIFO(special.mode), special.size) == (True, 0)
    before_1970 = entry(repository, b"/dir/a")
    assert (before_1970.mtime_s, before_1970.mtime_ns) == (-1, 999_999_999)
    assert before_1970.mode == stat.S_IFREG | 0o4711
    assert entry(repository, b"/\xfe\n").size == 8
    assert not entry(repository, b"/.hidden").is_hidden
    if attributed:
        assert parse_xattrs(file.xattr) == {b"user.colour": b"red"}


def _set_attribute(path: Path) -> bool:
    try:
        os.setxattr(path, "user.colour", b"red")
    except OSError:
        return False
    return True


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices")
def test_a_device_keeps_its_number(tmp_path: Path) -> None:
    source = tmp_path / "devices"
    source.mkdir()
    number = os.makedev(259, 70000)
    try:
        os.mknod(source / "device", stat.S_IFBLK | 0o600, number)
    except PermissionError:
        pytest.skip("devices cannot be made here")
    repository = publish_tree(tmp_path, source)
    assert_sound(repository)
    assert entry(repository, b"/device").size == number


def test_the_root_is_readable_by_all_whatever_the_source_has(tmp_path: Path) -> None:
    source = tmp_path / "private"
    source.mkdir(mode=0o700)
    repository = publish_tree(tmp_path, source)
    assert entry(repository, b"").mode == stat.S_IFDIR | 0o755


def test_patterns_make_nested_catalogs(tmp_path: Path) -> None:
    tree: Tree = {".cvmfsdirtab": b"/sw/*\n", "sw": {"1": {"x": b""}, "2": {}}}
    repository = publish_tree(tmp_path, tree)
    assert_sound(repository)
    before = catalogs(repository)
    assert set(before) == {b"/sw/1", b"/sw/2"}
    assert catalogs(publish_tree(tmp_path, tree)) == before


def test_publishing_again_makes_the_next_revision(tmp_path: Path) -> None:
    first = publish_tree(tmp_path, NESTED, now_s=NOW_S)
    second = publish_tree(tmp_path, {**NESTED, "new": b"new"}, now_s=NOW_S + 60)
    assert_sound(second)
    assert second.manifest.revision == first.manifest.revision + 1
    assert second.manifest.published_at_s == NOW_S + 60
    assert second.manifest.certificate == first.manifest.certificate
    with opened(second) as catalog:
        assert catalog.revision == 2
        assert catalog.last_modified_s == NOW_S + 60
        assert catalog.find(path_hash(b"/new")) is not None


def test_an_unchanged_subtree_keeps_its_catalog(tmp_path: Path) -> None:
    before = catalogs(publish_tree(tmp_path, NESTED))
    changed: Tree = {**NESTED, "doc": {".cvmfscatalog": b"", "README": b"changed"}}
    repository = publish_tree(tmp_path, changed)
    after = catalogs(repository)
    assert set(after) == set(before)
    assert {path for path in after if after[path] != before[path]} == {b"/doc"}
    assert repository.publication.new_catalogs == 2
    assert repository.publication.kept_catalogs == 3
    assert_sound(repository)


def test_a_changed_catalog_changes_those_above_it(tmp_path: Path) -> None:
    before = catalogs(publish_tree(tmp_path, NESTED))
    tree: Tree = {
        **NESTED,
        "sw": {
            ".cvmfscatalog": b"",
            "1.0": {".cvmfscatalog": b"", "bin": {"tool": b"changed"}},
            "2.0": {".cvmfscatalog": b"", "bin": {"tool": b"other"}},
        },
    }
    repository = publish_tree(tmp_path, tree)
    after = catalogs(repository)
    changed = {path for path in after if after[path] != before[path]}
    assert changed == {b"/sw", b"/sw/1.0"}
    with opened(repository, after[b"/sw/1.0"]) as catalog:
        assert catalog.revision == 2
    assert_sound(repository)


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.chmod(0o600),
        lambda path: os.utime(path, ns=(0, 5)),
        lambda path: path.with_name("more").write_bytes(b""),
        lambda path: path.with_name("again").hardlink_to(path),
        lambda path: path.rename(path.with_name("moved")),
    ],
    ids=["mode", "time", "added", "linked", "renamed"],
)
def test_every_change_is_noticed(
    tmp_path: Path, change: Callable[[Path], object]
) -> None:
    first = publish_tree(tmp_path, NESTED)
    before = catalogs(first)
    change(first.source / "sw" / "1.0" / "bin" / "tool")
    second = publish_tree(tmp_path, first.source)
    assert catalogs(second)[b"/sw/1.0"] != before[b"/sw/1.0"]
    assert_sound(second)


def test_other_chunks_of_the_same_file_are_noticed(tmp_path: Path) -> None:
    tree: Tree = {"n": {".cvmfscatalog": b"", "large": os.urandom(200_000)}}
    sizes = [ChunkSizes.around(16384), ChunkSizes.around(32768)]
    first, second = (
        catalogs(publish_tree(tmp_path, tree, chunk_sizes=s)) for s in sizes
    )
    assert first != second


def test_a_nested_catalog_may_come_and_go(tmp_path: Path) -> None:
    without: Tree = {"a": {"b": {}}}
    nested: Tree = {"a": {".cvmfscatalog": b"", "b": {}}}
    for tree, points in ((without, set()), (nested, {b"/a"})) * 2:
        repository = publish_tree(tmp_path, tree)
        assert_sound(repository)
        assert set(catalogs(repository)) == points


def test_removed_files_are_gone(tmp_path: Path) -> None:
    publish_tree(tmp_path, NESTED)
    repository = publish_tree(tmp_path, {"only": b"this"})
    assert_sound(repository)
    with opened(repository) as catalog:
        assert [e.name for e in catalog.list_(path_hash(b""))] == [b"only"]


def test_tags_name_the_revisions(tmp_path: Path) -> None:
    publish_tree(tmp_path, {}, now_s=NOW_S)
    publish_tree(tmp_path, {}, tag="v2", message="second \N{SNOWMAN}")
    repository = publish_tree(tmp_path, {}, tag="v3")
    assert tag_names(repository) == {
        "generic-2023-11-14T22:13:20Z": 1,
        "v2": 2,
        "trunk-previous": 2,
        "v3": 3,
        "trunk": 3,
    }
    assert_sound(repository)


def test_a_tag_that_exists_leaves_the_repository_as_it_was(tmp_path: Path) -> None:
    repository = publish_tree(tmp_path, {}, tag="v1")
    before = (repository.directory / ".cvmfspublished").read_bytes()
    with pytest.raises(PublishError, match="v1"):
        publish_tree(tmp_path, {"x": b""}, tag="v1")
    assert (repository.directory / ".cvmfspublished").read_bytes() == before
    assert_sound(repository)


def test_a_clock_that_was_set_back_makes_no_older_manifest(tmp_path: Path) -> None:
    publish_tree(tmp_path, {}, now_s=NOW_S)
    repository = publish_tree(tmp_path, {}, now_s=NOW_S - 1000)
    assert repository.manifest.published_at_s == NOW_S
    assert_sound(repository)


def test_what_was_chosen_at_first_stays(tmp_path: Path) -> None:
    publish_tree(tmp_path, {"a": b"a"}, algorithm=HashAlgorithm.RMD160, ttl_s=60)
    repository = publish_tree(tmp_path, {"a": b"a", "b": b"b"})
    assert repository.manifest.root_catalog.algorithm is HashAlgorithm.RMD160
    assert repository.manifest.ttl_s == 60
    assert_sound(repository)


def test_the_algorithm_may_change(tmp_path: Path) -> None:
    publish_tree(tmp_path, NESTED)
    repository = publish_tree(tmp_path, NESTED, algorithm=HashAlgorithm.SHAKE128)
    assert {h.algorithm for h in catalogs(repository).values()} == {
        HashAlgorithm.SHAKE128
    }
    assert_sound(repository)


def test_an_old_whitelist_is_renewed_by_publishing(tmp_path: Path) -> None:
    repository = publish_tree(tmp_path, {}, now_s=NOW_S)
    before = (repository.directory / ".cvmfswhitelist").read_bytes()
    publish_tree(tmp_path, {}, now_s=NOW_S + 3600)
    assert (repository.directory / ".cvmfswhitelist").read_bytes() == before
    publish_tree(tmp_path, {}, now_s=NOW_S + 20 * 24 * 3600)
    assert (repository.directory / ".cvmfswhitelist").read_bytes() != before


def test_a_repository_without_its_keys_gets_no_new_ones(tmp_path: Path) -> None:
    repository = publish_tree(tmp_path, {})
    settings = PublishSettings(repository.fqrn, repository.output, tmp_path / "none")
    with pytest.raises(PublishError, match="there is no key"):
        publish(repository.source, settings, NOW_S)
    assert not (tmp_path / "none").exists()


def test_a_tampered_manifest_is_not_continued(tmp_path: Path) -> None:
    repository = publish_tree(tmp_path, {})
    manifest = repository.directory / ".cvmfspublished"
    manifest.write_bytes(manifest.read_bytes().replace(b"\nS1\n", b"\nS9\n"))
    with pytest.raises(LetterHashMismatchError):
        publish_tree(tmp_path, {})


def test_another_repository_is_not_continued(tmp_path: Path) -> None:
    other = publish_tree(tmp_path, {}, "other.example.org")
    shutil.copytree(other.directory, other.output / "test.example.org")
    with pytest.raises(FqrnMismatchError):
        publish_tree(tmp_path, {})


def test_a_damaged_earlier_catalog_costs_sharing_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    repository = publish_tree(tmp_path, NESTED)
    damaged = catalogs(repository)[b"/doc"].object_path(ObjectKind.CATALOG)
    (repository.directory / damaged).write_bytes(b"damaged")
    again = publish_tree(tmp_path, NESTED, tag="again")
    assert again.publication.kept_catalogs == 3
    assert "/doc" in caplog.text
    caplog.clear()
    problems = check_repository(again.directory, again.master_key_pem)
    assert [problem for problem in problems if "generic" not in problem] == []


@pytest.mark.parametrize(
    ("output", "keys", "complaint"),
    [
        ("served", "served/keys", "lies in what is served"),
        ("served", "served", "lies in what is served"),
        ("source/served", "keys", "lies in the directory to be published"),
        ("served", "source/keys", "lies in the directory to be published"),
        ("source", "keys", "lies in the directory to be published"),
        ("link/served", "keys", "lies in the directory to be published"),
    ],
)
def test_keys_and_repository_cannot_be_published(
    tmp_path: Path, output: str, keys: str, complaint: str
) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "link").symlink_to("source")
    settings = PublishSettings("x.example.org", tmp_path / output, tmp_path / keys)
    with pytest.raises(PublishError, match=complaint):
        publish(tmp_path / "source", settings, NOW_S)
    assert list((tmp_path / "source").iterdir()) == []


def test_a_repository_cannot_be_published_into_itself(tmp_path: Path) -> None:
    repository = publish_tree(tmp_path, {})
    with pytest.raises(PublishError, match="lies in the repository itself"):
        publish_tree(tmp_path, repository.directory / "data")


@pytest.mark.parametrize("fqrn", ["nodomain", "../x.org", "-x.org", "", "x" * 61])
def test_a_name_that_no_client_accepts_is_refused(tmp_path: Path, fqrn: str) -> None:
    settings = PublishSettings(fqrn, tmp_path / "served", tmp_path / "keys")
    with pytest.raises(ConfigurationError):
        publish(tmp_path, settings, NOW_S)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_read_leaves_the_repository_as_it_was(tmp_path: Path) -> None:
    repository = publish_tree(tmp_path, NESTED)
    write_tree(repository.source, {".cvmfs": {"x": b""}})
    with pytest.raises(PublishError, match="reserved"):
        publish_tree(tmp_path, repository.source)
    assert_sound(repository)


def test_progress_is_shown_for_each_part(tmp_path: Path) -> None:
    source = tmp_path / "source"
    write_tree(source, NESTED)
    parts: list[tuple[str, int | None, int]] = []

    @contextmanager
    def show(total: int | None, _unit: str, label: str) -> Iterator[Advance]:
        amounts: list[int] = []
        yield amounts.append
        parts.append((label, total, sum(amounts)))

    settings = PublishSettings(
        "x.example.org", tmp_path / "served", tmp_path / "keys", is_durable=False
    )
    publish(source, settings, NOW_S, show)
    assert parts == [
        ("reading the directory tree", None, 15),
        ("storing files", 22, 22),
        ("writing catalogs", 5, 5),
        ("signing", None, 0),
    ]
