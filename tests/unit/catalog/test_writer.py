import sqlite3
import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cvmfsexec.catalog.counters import count
from cvmfsexec.catalog.reader import Catalog, NestedCatalogRef
from cvmfsexec.catalog.schema import COUNTER_NAMES
from cvmfsexec.catalog.writer import CatalogContent, CatalogVersion, write_catalog
from cvmfsexec.errors import PublishError
from cvmfsexec.format.chunk import Chunk
from cvmfsexec.format.digest import ContentHash, HashAlgorithm
from cvmfsexec.format.dirent import DirectoryEntry, Flag
from cvmfsexec.format.names import ROOT, PathHash, path_hash

OLDER = ContentHash(b"o" * 20, HashAlgorithm.SHAKE128)
ROOT_VERSION = CatalogVersion(ROOT, 7, 1_700_000_000, OLDER, ttl_s=240)

names = st.binary(min_size=1, max_size=255).filter(
    lambda name: not set(name) & set(b"/\0") and name not in (b".", b"..")
)
owners = st.integers(0, 2**32 - 1)
blobs = st.none() | st.binary(min_size=1, max_size=300)


@st.composite
def files(draw: st.DrawFn) -> DirectoryEntry:
    name = draw(names)
    return DirectoryEntry(
        row=0,
        name=name,
        size=draw(st.integers(0, 2**50)),
        mode=stat.S_IFREG | draw(st.integers(0, 0o7777)),
        mtime_s=draw(st.integers(-(2**40), 2**40)),
        mtime_ns=draw(st.integers(0, 999_999_999)),
        flags=Flag.FILE | draw(st.sampled_from([0, 0x100, 0x200, 0x800])),
        hardlinks=draw(st.integers(1, 2**40)),
        uid=draw(owners),
        gid=draw(owners),
        symlink=b"",
        digest=draw(st.binary(min_size=20, max_size=20)),
        xattr=draw(blobs),
        **_hashes(b"/" + name),
    )


def _hashes(path: bytes) -> dict[str, int]:
    own, parent = path_hash(path), path_hash(ROOT)
    return {
        "md5_1": own.md5_1,
        "md5_2": own.md5_2,
        "parent_1": parent.md5_1,
        "parent_2": parent.md5_2,
    }


def link(name: bytes, target: bytes) -> DirectoryEntry:
    return DirectoryEntry(
        row=0,
        name=name,
        size=len(target),
        mode=stat.S_IFLNK | 0o777,
        mtime_s=-1,
        mtime_ns=999_999_999,
        flags=Flag.FILE | Flag.SYMLINK,
        hardlinks=1,
        uid=0,
        gid=0,
        symlink=target,
        digest=None,
        xattr=None,
        **_hashes(b"/" + name),
    )


def content_of(
    entries: list[DirectoryEntry],
    chunks: dict[PathHash, tuple[Chunk, ...]] | None = None,
    nested: tuple[NestedCatalogRef, ...] = (),
) -> CatalogContent:
    counters = count(entries, chunk_count=0, nested=())
    return CatalogContent(entries, chunks or {}, nested, counters)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "catalog"


def written(
    path: Path, content: CatalogContent, version: CatalogVersion = ROOT_VERSION
) -> Catalog:
    path.unlink(missing_ok=True)
    write_catalog(str(path), content, version)
    return Catalog.open(str(path))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(files(), max_size=8, unique_by=lambda entry: entry.name))
def test_written_entries_read_back(path: Path, entries: list[DirectoryEntry]) -> None:
    catalog = written(path, content_of(entries))
    found = list(catalog.walk())
    catalog.close()
    assert [entry._replace(row=0) for entry in found] == entries
    assert [entry.row for entry in found] == list(range(1, len(entries) + 1))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names, st.binary(min_size=1).filter(lambda target: b"\0" not in target))
def test_names_and_targets_are_text_of_any_encoding(
    path: Path, name: bytes, target: bytes
) -> None:
    written(path, content_of([link(name, target)])).close()
    connection = sqlite3.connect(path)
    connection.text_factory = bytes
    row = connection.execute(
        "SELECT typeof(name), name, typeof(symlink), symlink FROM catalog"
    ).fetchone()
    connection.close()
    assert row == (b"text", name, b"text", target)


def test_chunks_and_nested_catalogs_read_back(path: Path) -> None:
    name = b"large"
    entry = link(name, b"")._replace(
        mode=stat.S_IFREG, flags=Flag.FILE | Flag.CHUNKED | 0x200, size=30
    )
    chunks = tuple(
        Chunk(at, 10, ContentHash(bytes([at + 1]) * 20, HashAlgorithm.SHAKE128))
        for at in (0, 10, 20)
    )
    nested = tuple(
        NestedCatalogRef(mountpoint, ContentHash(b"n" * 20, algorithm), 1024, False)  # noqa: FBT003
        for mountpoint, algorithm in (
            (b"/a", HashAlgorithm.SHA1),
            (b"/\xff b", HashAlgorithm.RMD160),
        )
    )
    catalog = written(path, content_of([entry], {entry.path_hash: chunks}, nested))
    assert catalog.chunks(entry) == chunks
    assert set(catalog.nested()) == set(nested)
    catalog.close()


def test_a_root_catalog_says_what_it_is(path: Path) -> None:
    catalog = written(path, content_of([]))
    assert (catalog.root_prefix, catalog.revision, catalog.ttl_s) == (ROOT, 7, 240)
    assert catalog.last_modified_s == 1_700_000_000
    assert (catalog.schema_revision, catalog.is_volatile) == (7, False)
    catalog.close()
    assert properties(path)["previous_revision"] == str(OLDER)
    assert "root_prefix" not in properties(path)


def test_a_new_nested_catalog_says_what_it_is(path: Path) -> None:
    version = CatalogVersion(b"/nested\xff", 1, 1_700_000_000)
    catalog = written(path, content_of([]), version)
    assert (catalog.root_prefix, catalog.ttl_s) == (b"/nested\xff", None)
    catalog.close()
    assert properties(path)["previous_revision"] == "0" * 40


def properties(path: Path) -> dict[str, str]:
    connection = sqlite3.connect(path)
    connection.text_factory = lambda text: text.decode("latin-1")
    found = dict(connection.execute("SELECT key, value FROM properties"))
    types = set(connection.execute("SELECT typeof(value) FROM properties"))
    connection.close()
    assert types == {("text",)}
    return found


def test_all_counters_are_there(path: Path) -> None:
    catalog = written(path, content_of([]))
    assert sorted(catalog.counters()) == sorted(COUNTER_NAMES)
    catalog.close()
    connection = sqlite3.connect(path)
    assert len(connection.execute("SELECT * FROM statistics").fetchall()) == 24
    connection.close()


@pytest.mark.parametrize("count_", [1, 2000], ids=["small pages", "large pages"])
def test_the_file_is_compact_and_needs_no_journal(path: Path, count_: int) -> None:
    entries = [link(b"%d" % number, b"x") for number in range(count_)]
    written(path, content_of(entries)).close()
    assert path.read_bytes()[18:20] == b"\1\1"  # journal mode is not WAL
    assert [other.name for other in path.parent.iterdir()] == [path.name]
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA freelist_count").fetchone() == (0,)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert connection.execute("PRAGMA encoding").fetchone() == ("UTF-8",)
    connection.close()


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    content = content_of([link(b"%d" % number, b"x") for number in range(1000)])
    blobs = []
    for name in ("first", "second"):
        write_catalog(str(tmp_path / name), content, ROOT_VERSION)
        blobs.append((tmp_path / name).read_bytes())
    assert blobs[0] == blobs[1]


def test_an_entry_twice_is_refused(path: Path) -> None:
    with pytest.raises(PublishError, match="cannot write the database"):
        write_catalog(str(path), content_of([link(b"a", b"x")] * 2), ROOT_VERSION)


def test_a_number_that_no_column_holds_is_refused(path: Path) -> None:
    entry = link(b"a", b"x")._replace(size=2**63)
    with pytest.raises(PublishError, match="too large"):
        write_catalog(str(path), content_of([entry]), ROOT_VERSION)


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(PublishError, match="cannot write the database"):
        write_catalog(str(tmp_path / "no" / "where"), content_of([]), ROOT_VERSION)
