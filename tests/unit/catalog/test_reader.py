import gc
import os
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cvmfsexec.catalog.reader import PAGE_ROWS, Catalog, NestedCatalogRef
from cvmfsexec.catalog.schema import COUNTER_NAMES
from cvmfsexec.errors import CacheError, CvmfsError, FormatError
from cvmfsexec.format.chunk import Chunk
from cvmfsexec.format.digest import ContentHash, HashAlgorithm
from cvmfsexec.format.dirent import DirectoryEntry, Flag, Listing
from cvmfsexec.format.names import ROOT, path_hash
from fuzz.fuzz_catalog import read_everything
from tests.support.catalog_files import (
    DIGEST,
    HASH_TEXT,
    MTIME_S,
    NEWEST,
    SCHEMAS,
    Cells,
    Schema,
    chunk,
    directory,
    entry,
    link,
    nested,
    write_catalog,
)

HASH = ContentHash(DIGEST)


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Callable[..., Catalog]]:
    """Return a function that writes and opens catalogs, closed after the test."""
    opened: list[Catalog] = []

    def make(schema: Schema = NEWEST, **content: Any) -> Catalog:  # noqa: ANN401
        path = write_catalog(tmp_path / f"catalog{len(opened)}", schema, **content)
        opened.append(Catalog.open(path))
        return opened[-1]

    yield make
    for catalog in opened:
        catalog.close()


Make = Callable[..., Catalog]

TREE = (
    directory(ROOT, hardlinks=3),
    directory(b"/d"),
    entry(b"/d/file", hardlinks=5 << 32 | 2),
    link(b"/d/link", b"file"),
    entry(b"/d/other", hardlinks=5 << 32 | 2, xattr=None, mtimens=None),
)


def names(entries: list[DirectoryEntry]) -> list[bytes]:
    return [entry.name for entry in entries]


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
def test_every_schema_is_read(made: Make, schema: Schema) -> None:
    catalog = made(schema, catalog=TREE, properties={"revision": "12"})
    columns = schema.tables["catalog"]
    file = catalog.find(path_hash(b"/d/file"))
    assert file == DirectoryEntry(
        row=3,
        name=b"file",
        size=10,
        mode=stat.S_IFREG | 0o644,
        mtime_s=MTIME_S,
        mtime_ns=123_456_789 if "mtimens" in columns else 0,
        flags=Flag.FILE,
        hardlinks=5 << 32 | 2 if "hardlinks" in columns else 4711 << 32 | 1,
        uid=1000 if "uid" in columns else 0,
        gid=1001 if "gid" in columns else 0,
        symlink=b"",
        digest=DIGEST,
        xattr=b"\1\1\1\1kv" if "xattr" in columns else None,
        md5_1=path_hash(b"/d/file").md5_1,
        md5_2=path_hash(b"/d/file").md5_2,
        parent_1=path_hash(b"/d").md5_1,
        parent_2=path_hash(b"/d").md5_2,
    )
    listed = catalog.list_(path_hash(b"/d"))
    assert names(listed) == [b"file", b"link", b"other"]
    assert listed[0] == file
    assert list(catalog.walk())[2] == file
    assert catalog.find_row(3) == file
    assert catalog.hardlink_row(listed[2]) == 3
    assert catalog.revision == 12
    assert catalog.nested() == ()
    assert catalog.find_nested(b"/d") is None
    assert set(catalog.counters()) == set(COUNTER_NAMES)


@pytest.mark.parametrize(
    ("name", "version", "revision"),
    [
        ("0.9", 0.9, 0),
        ("1.0", 1.0, 0),
        ("1.0 by name", 1.0, 0),
        ("1.2", 1.2, 1),
        ("2.4", 2.4, 0),
        ("2.5", 2.5, 0),
        ("2.5 revision 7", 2.5, 7),
        ("2.5 revision 99", 2.5, 99),
    ],
)
def test_schema_is_told(made: Make, name: str, version: float, revision: int) -> None:
    catalog = made(SCHEMAS[name])
    assert (catalog.schema, catalog.schema_revision) == (version, revision)


@pytest.mark.parametrize(
    "version",
    [
        "2.0",
        "2.1",
        "2.3",
        "2.39",
        "2.6",
        "3.0",
        "25",
        "",
        "0",
        "-1",
        "nan",
        "1e0",
        "2,5",
    ],
)
def test_unknown_schema_is_refused(made: Make, version: str) -> None:
    with pytest.raises(FormatError, match="unknown catalog schema"):
        made(properties={"schema": version})


@pytest.mark.parametrize("version", ["2.5", "2.50000001", "2.4", 2.5])
def test_schema_is_compared_with_tolerance(made: Make, version: object) -> None:
    made(properties={"schema": version})


def test_properties_of_a_root_catalog(made: Make) -> None:
    catalog = made(
        properties={
            "TTL": "240",
            "last_modified": "1700000000",
            "volatile": "1",
            "voms_authz": "cms",
            "novelty": "x",
        }
    )
    assert catalog.root_prefix == ROOT
    assert catalog.ttl_s == 240
    assert catalog.last_modified_s == 1_700_000_000
    assert catalog.is_volatile
    assert catalog.authorisation == "cms"


@pytest.mark.parametrize("empty", [None, ""])
def test_absent_or_empty_properties(made: Make, empty: str | None) -> None:
    keys = ("TTL", "last_modified", "volatile", "voms_authz", "root_prefix", "revision")
    catalog = made(properties=dict.fromkeys(keys, empty))
    assert catalog.ttl_s is None
    assert catalog.last_modified_s == catalog.revision == 0
    assert not catalog.is_volatile
    assert catalog.authorisation is None
    assert catalog.root_prefix == ROOT


def test_root_prefix_is_bytes(made: Make) -> None:
    catalog = made(properties={"root_prefix": b"/a/\xff"})
    assert catalog.root_prefix == b"/a/\xff"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("revision", "twelve"),
        ("revision", "-1"),
        ("revision", "1" * 5000),
        ("TTL", "1.5"),
        ("last_modified", "1e9"),
        ("schema_revision", "seven"),
        ("root_prefix", "/"),
        ("root_prefix", "a"),
        ("root_prefix", "/a/"),
        ("root_prefix", "/a/../b"),
        ("root_prefix", "/a//b"),
    ],
)
def test_property_that_makes_no_sense_is_refused(
    made: Make, key: str, value: str
) -> None:
    with pytest.raises(FormatError):
        made(properties={key: value})


def test_largest_revision_is_read(made: Make) -> None:
    assert made(properties={"revision": str(2**64 - 1)}).revision == 2**64 - 1


@pytest.mark.parametrize("column", ["md5path_1", "parent_2", "name", "flags", "mode"])
def test_catalog_without_essential_column_is_refused(
    tmp_path: Path, column: str
) -> None:
    path = write_catalog(tmp_path / "catalog", catalog=TREE)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"ALTER TABLE catalog RENAME COLUMN {column} TO other")
    with pytest.raises(FormatError, match=f"no column {column}"):
        Catalog.open(path)


def test_other_database_is_no_catalog(tmp_path: Path) -> None:
    path = str(tmp_path / "other")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE tags (name)")
    with pytest.raises(FormatError, match="not a catalog"):
        Catalog.open(path)


@pytest.mark.parametrize(
    "statements",
    [
        ["CREATE TABLE catalog (rowid INTEGER, {columns})"],
        ["CREATE TABLE x ({columns})", "CREATE VIEW catalog AS SELECT * FROM x"],
        [
            "CREATE TABLE catalog ({columns})",
            "CREATE VIEW chunks AS SELECT 0 AS offset, 10 AS size, x'00' AS hash",
        ],
    ],
    ids=["column rowid", "view", "view for chunks"],
)
def test_catalog_of_odd_tables_is_refused(
    tmp_path: Path, statements: list[str]
) -> None:
    path = str(tmp_path / "odd")
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            columns = ", ".join(NEWEST.tables["catalog"])
            connection.execute(statement.format(columns=columns))
    with pytest.raises(FormatError):
        Catalog.open(path)


def test_table_without_row_numbers_yields_format_errors(tmp_path: Path) -> None:
    path = str(tmp_path / "odd")
    columns = ", ".join(NEWEST.tables["catalog"])
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            f"CREATE TABLE catalog ({columns},"
            " PRIMARY KEY (md5path_1, md5path_2)) WITHOUT ROWID"
        )
    with closing(Catalog.open(path)) as catalog, pytest.raises(FormatError):
        catalog.find_row(1)


def test_missing_entries_are_none(made: Make) -> None:
    catalog = made(catalog=TREE)
    assert catalog.find(path_hash(b"/nothing")) is None
    assert catalog.find_row(99) is None
    assert catalog.list_(path_hash(b"/nothing")) == []


def test_listing_is_in_row_order_and_can_be_continued(made: Make) -> None:
    count = 2 * PAGE_ROWS + 7
    files = [entry(b"/d/%d" % (7 * i % count)) for i in range(count)]
    catalog = made(catalog=[directory(b"/d"), *files])
    parent = path_hash(b"/d")
    whole = catalog.list_(parent)
    assert [entry.row for entry in whole] == list(range(2, count + 2))
    for limit in (1, 10, PAGE_ROWS - 1, PAGE_ROWS, PAGE_ROWS + 1, count + 1):
        parts: list[DirectoryEntry] = []
        while part := catalog.list_(
            parent, after_row=parts[-1].row if parts else 0, limit=limit
        ):
            assert len(part) <= limit
            parts += part
        assert parts == whole
    assert catalog.list_(parent, limit=0) == []


def test_columns_of_a_listing_are_those_of_its_entries(made: Make) -> None:
    files = [entry(b"/d/%d" % i, uid=i, size=i * 7) for i in range(20)]
    extra = [directory(b"/d/sub"), entry(b"/d/h", flags=Flag.FILE | Flag.HIDDEN)]
    catalog = made(catalog=[directory(b"/d"), *files, *extra])
    parent = path_hash(b"/d")
    for after_row, limit in ((0, 100), (0, 5), (7, 3), (99, 5)):
        rows = catalog.list_(parent, after_row=after_row, limit=limit)
        listing = catalog.listing(parent, after_row=after_row, limit=limit)
        for position, field in enumerate(Listing._fields):
            column = listing[position]
            assert column == tuple(getattr(one, field) for one in rows)


@pytest.mark.parametrize("cells", [{"size": -1}, {"name": b".."}, {"mode": b"x"}])
def test_damaged_entry_is_refused_in_columns(
    made: Make, cells: dict[str, object]
) -> None:
    catalog = made(catalog=[directory(b"/d"), entry(b"/d/f", **cells)])
    with pytest.raises(FormatError):
        catalog.listing(path_hash(b"/d"), after_row=0, limit=9)


def test_hidden_entries_are_listed_as_such(made: Make) -> None:
    catalog = made(catalog=[entry(b"/d/h", flags=Flag.FILE | Flag.HIDDEN)])
    (hidden,) = catalog.list_(path_hash(b"/d"))
    assert hidden.is_hidden


def test_nested_root_is_found_but_never_listed(made: Make) -> None:
    flags = Flag.DIRECTORY | Flag.NESTED_ROOT
    catalog = made(
        catalog=[directory(b"/a/b", flags=flags), entry(b"/a/b/file")],
        properties={"root_prefix": "/a/b"},
    )
    assert catalog.list_(path_hash(b"/a")) == []
    assert names(catalog.list_(path_hash(b"/a/b"))) == [b"file"]
    root = catalog.find(path_hash(b"/a/b"))
    assert root is not None
    assert root.is_nested_root
    assert root.name == b"b"


def test_directory_is_never_its_own_entry(made: Make) -> None:
    own = path_hash(b"/d")
    catalog = made(
        catalog=[directory(b"/d", parent_1=own.md5_1, parent_2=own.md5_2)],
    )
    assert catalog.list_(own) == []


@pytest.mark.parametrize(
    "cells",
    [
        {"name": b"a/b"},
        {"name": b".."},
        {"name": b""},
        {"name": None},
        {"mode": None},
        {"mode": stat.S_IFDIR | 0o755},
        {"flags": None},
        {"flags": b"\4"},
        {"flags": 4.5},
        {"size": -1},
        {"size": "large"},
        {"size": 1e300},
        {"mtimens": 10**9},
        {"uid": -1},
        {"uid": 2**40},
        {"hash": b"short"},
        {"hash": 5},
        {"xattr": 5},
    ],
    ids=repr,
)
def test_damaged_entry_is_refused_wherever_it_shows(
    made: Make, cells: dict[str, object]
) -> None:
    catalog = made(catalog=[directory(b"/d"), entry(b"/d/f", **cells)])
    own, parent = path_hash(b"/d/f"), path_hash(b"/d")
    with pytest.raises(FormatError):
        catalog.find(own)
    with pytest.raises(FormatError):
        catalog.find_row(2)
    with pytest.raises(FormatError):
        catalog.list_(parent)
    with pytest.raises(FormatError):
        list(catalog.walk())


@pytest.mark.parametrize(
    ("cells", "field", "value"),
    [
        ({"size": None}, "size", 0),
        ({"mtime": None}, "mtime_s", 0),
        ({"mtimens": None}, "mtime_ns", 0),
        ({"symlink": None}, "symlink", b""),
        ({"uid": None}, "uid", 0),
        ({"gid": None}, "gid", 0),
        ({"hardlinks": None}, "linkcount", 1),
        ({"hardlinks": 0}, "linkcount", 1),
        ({"hash": None}, "content_hash", None),
        ({"hash": b""}, "content_hash", None),
        ({"hash": bytes(20)}, "content_hash", None),
        ({"xattr": None}, "xattr", None),
        ({"name": b"\xff\xfe"}, "name", b"\xff\xfe"),
        ({"mtime": -5}, "mtime_s", -5),
        ({"hardlinks": -1}, "linkcount", 2**32 - 1),
    ],
    ids=repr,
)
def test_what_is_null_or_odd_but_harmless_is_read(
    made: Make, cells: dict[str, object], field: str, value: object
) -> None:
    catalog = made(catalog=[entry(b"/d/f", **cells)])
    (listed,) = catalog.list_(path_hash(b"/d"))
    found = catalog.find(path_hash(b"/d/f"))
    assert getattr(listed, field) == getattr(found, field) == value


@pytest.mark.parametrize("row", [0, -1, 2**32])
def test_row_that_is_no_inode_is_refused(tmp_path: Path, row: int) -> None:
    path = write_catalog(tmp_path / "catalog", catalog=[entry(b"/d/f")])
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE catalog SET rowid = ?", (row,))
    with closing(Catalog.open(path)) as catalog, pytest.raises(FormatError):
        catalog.find(path_hash(b"/d/f"))


def test_columns_may_be_in_any_order_and_of_any_case(tmp_path: Path) -> None:
    path = write_catalog(tmp_path / "catalog", catalog=TREE)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("ALTER TABLE catalog RENAME TO Catalog2")
        connection.execute("ALTER TABLE Catalog2 RENAME COLUMN name TO NAME")
        connection.execute("ALTER TABLE Catalog2 RENAME TO CATALOG")
    with closing(Catalog.open(path)) as catalog:
        assert names(catalog.list_(path_hash(b"/d"))) == [b"file", b"link", b"other"]


def test_hardlink_group_is_its_smallest_row_in_the_directory(made: Make) -> None:
    group, other = 7 << 32 | 3, -1 << 32 | 2
    catalog = made(
        catalog=[
            entry(b"/elsewhere/f", hardlinks=group),
            entry(b"/d/single"),
            entry(b"/d/b", hardlinks=group),
            entry(b"/d/other", hardlinks=other),
            link(b"/d/c", b"x", hardlinks=group),
            entry(b"/d/other2", hardlinks=other),
            entry(b"/d/a", hardlinks=group),
        ]
    )
    entries = catalog.list_(path_hash(b"/d"))
    assert [catalog.hardlink_row(entry) for entry in entries] == [2, 3, 4, 3, 4, 3]
    elsewhere = catalog.find(path_hash(b"/elsewhere/f"))
    assert elsewhere is not None
    assert catalog.hardlink_row(elsewhere) == 1
    assert catalog.hardlink_row(entries[1]) == 3


def test_chunks_are_ordered_and_of_the_entrys_algorithm(made: Make) -> None:
    flags = Flag.FILE | Flag.CHUNKED | 0x200
    digests = [bytes([i]) * 20 for i in (1, 2, 3)]
    catalog = made(
        catalog=[entry(b"/d/f", size=11, hash=None, flags=flags)],
        chunks=[
            chunk(b"/d/f", 4, 4, digests[1]),
            chunk(b"/other", 0, 4),
            chunk(b"/d/f", 8, 3, digests[2]),
            chunk(b"/d/f", 0, 4, digests[0]),
        ],
    )
    (file,) = catalog.list_(path_hash(b"/d"))
    assert catalog.chunks(file) == tuple(
        Chunk(offset, size, ContentHash(digest, HashAlgorithm.SHAKE128))
        for offset, size, digest in zip((0, 4, 8), (4, 4, 3), digests, strict=True)
    )


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([], id="none"),
        pytest.param([(0, 9)], id="incomplete"),
        pytest.param([(0, 11)], id="overlong"),
        pytest.param([(0, 4), (5, 5)], id="hole"),
        pytest.param([(0, 6), (5, 5)], id="overlap"),
        pytest.param([(0, 10), (10, 0)], id="empty"),
        pytest.param([(0, None)], id="no size"),
        pytest.param([(None, 10)], id="no offset"),
        pytest.param([(0, "ten")], id="text"),
        pytest.param([(0, 10, None)], id="no hash"),
        pytest.param([(0, 10, b"")], id="empty hash"),
        pytest.param([(0, 10, bytes(20))], id="null hash"),
        pytest.param([(0, 10, b"\1" * 16)], id="short hash"),
        pytest.param([(0, 2**63 - 1), (2**63 - 1, 1)], id="huge"),
    ],
)
def test_damaged_chunk_table_is_refused(
    made: Make, rows: list[tuple[object, ...]]
) -> None:
    catalog = made(
        catalog=[entry(b"/f", flags=Flag.FILE | Flag.CHUNKED)],
        chunks=[chunk(b"/f", *row) for row in rows],
    )
    (file,) = catalog.list_(path_hash(ROOT))
    with pytest.raises(FormatError):
        catalog.chunks(file)


def test_chunked_file_in_a_catalog_without_chunk_table_is_refused(made: Make) -> None:
    catalog = made(SCHEMAS["1.2"], catalog=[entry(b"/f", flags=68)])
    (file,) = catalog.list_(path_hash(ROOT))
    with pytest.raises(FormatError):
        catalog.chunks(file)


def test_nested_catalogs_and_bind_mountpoints_are_found(made: Make) -> None:
    shake = ContentHash(DIGEST, HashAlgorithm.SHAKE128)
    catalog = made(
        nested_catalogs=[nested(b"/a/b"), nested(b"/a/\xff c", str(shake), None)],
        bind_mountpoints=[nested(b"/.cvmfs/snapshots/v1", HASH_TEXT, 4096)],
    )
    refs = (
        NestedCatalogRef(b"/a/b", HASH, 9, is_bind=False),
        NestedCatalogRef(b"/a/\xff c", shake, 0, is_bind=False),
        NestedCatalogRef(b"/.cvmfs/snapshots/v1", HASH, 4096, is_bind=True),
    )
    assert catalog.nested() == refs
    for ref in refs:
        assert catalog.find_nested(ref.mountpoint) == ref
    assert catalog.find_nested(b"/a") is None
    assert catalog.find_nested(b"/a/b/c") is None


def test_size_of_nested_catalogs_is_unknown_before_revision_1(made: Make) -> None:
    catalog = made(SCHEMAS["2.5 revision 0"], nested_catalogs=[nested(b"/a")])
    assert catalog.find_nested(b"/a") == NestedCatalogRef(b"/a", HASH, 0, is_bind=False)


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(nested(b"/p/n", ""), id="no hash"),
        pytest.param(nested(b"/p/n", None), id="null"),
        pytest.param(nested(b"/p/n", "0" * 40), id="null hash"),
        pytest.param(nested(b"/p/n", HASH_TEXT[:-1]), id="short hash"),
        pytest.param(nested(b"/p/n", HASH_TEXT + "-md5"), id="unknown algorithm"),
        pytest.param(nested(b"/p/n", b"\xff" * 40), id="no text"),
        pytest.param(nested(b"/p/n", HASH_TEXT, -1), id="negative size"),
        pytest.param(nested(b"/p/n", HASH_TEXT, "big"), id="size of letters"),
        pytest.param(nested(b"/p"), id="the catalog itself"),
        pytest.param(nested(b"/q"), id="elsewhere"),
        pytest.param(nested(b"/pq"), id="not below, but alike"),
        pytest.param(nested(b""), id="root"),
        pytest.param(nested(b"p/n"), id="relative"),
        pytest.param(nested(b"/p/n/"), id="slash at the end"),
        pytest.param(nested(b"/p/../etc"), id="dot dot"),
        pytest.param(nested(b"/p/a\0b"), id="NUL"),
    ],
)
def test_damaged_nested_catalog_is_refused_without_harm_to_others(
    made: Make, row: Cells
) -> None:
    catalog = made(
        nested_catalogs=[row, nested(b"/p/good")], properties={"root_prefix": "/p"}
    )
    with pytest.raises(FormatError):
        catalog.nested()
    with pytest.raises(FormatError):
        catalog.find_nested(row["path"])
    assert catalog.find_nested(b"/p/good") is not None


def test_nested_catalog_of_schema_0_9_has_no_hash(made: Make) -> None:
    catalog = made(SCHEMAS["0.9"], nested_catalogs=[nested(b"/a")])
    with pytest.raises(FormatError):
        catalog.find_nested(b"/a")


def test_counters_that_are_missing_are_0(made: Make) -> None:
    rows = {"self_regular": 5, "subtree_dir": -1, "self_dir": None, "self_novelty": 1}
    catalog = made(
        statistics=[
            *({"counter": name, "value": value} for name, value in rows.items()),
            {"counter": b"\xff", "value": 3},
        ]
    )
    assert catalog.counters() == {
        **dict.fromkeys(COUNTER_NAMES, 0),
        "self_regular": 5,
        "subtree_dir": -1,
    }


def test_counter_that_is_no_number_is_refused(made: Make) -> None:
    catalog = made(statistics=[{"counter": "self_dir", "value": "many"}])
    with pytest.raises(FormatError, match="self_dir"):
        catalog.counters()


def test_walk_yields_every_row_once(made: Make) -> None:
    count = 2 * PAGE_ROWS
    files = [entry(b"/d/%d" % i) for i in range(count)]
    catalog = made(catalog=[directory(ROOT), directory(b"/d"), *files])
    assert [entry.row for entry in catalog.walk()] == list(range(1, count + 3))


def test_index_that_lies_about_the_order_is_refused(made: Make) -> None:
    """An index may be damaged and still be in order for SQLite."""
    catalog = made(catalog=[entry(b"/d/f"), entry(b"/d/g")])
    statements = catalog._statements
    backwards = statements.list_.replace("ORDER BY rowid", "ORDER BY rowid DESC")
    listing = statements.listing.replace("ORDER BY rowid", "ORDER BY rowid DESC")
    catalog._statements = statements._replace(list_=backwards, listing=listing)
    with pytest.raises(FormatError, match="order"):
        catalog.list_(path_hash(b"/d"))
    with pytest.raises(FormatError, match="order"):
        catalog.listing(path_hash(b"/d"), after_row=0, limit=9)


def test_catalog_behind_a_descriptor(made: Make) -> None:
    path = made(catalog=TREE)._database.name
    fd = os.open(path, os.O_RDONLY)
    with closing(Catalog.open_fd(fd)) as catalog:
        assert catalog.find(path_hash(b"/d")) is not None
    os.unlink(path)
    catalog = Catalog.open_fd(fd)
    os.close(fd)
    with closing(catalog):
        assert catalog.find(path_hash(b"/d")) is not None


def test_catalog_that_nobody_refers_to_is_closed_at_once(tmp_path: Path) -> None:
    path = write_catalog(tmp_path / "catalog", catalog=TREE)
    before = len(os.listdir("/proc/self/fd"))
    gc.disable()
    try:
        catalog = Catalog.open(path)
        listed = catalog.list_(path_hash(b"/d"))
        catalog.hardlink_row(listed[0])
        assert len(os.listdir("/proc/self/fd")) == before + 1
        del catalog
        assert len(os.listdir("/proc/self/fd")) == before
    finally:
        gc.enable()


def test_closed_catalog_cannot_be_read(made: Make) -> None:
    catalog = made(catalog=TREE)
    catalog.close()
    catalog.close()
    with pytest.raises(CacheError):
        catalog.find(path_hash(b"/d"))
    with pytest.raises(CacheError):
        catalog.list_(path_hash(b"/d"))
    with pytest.raises(CacheError):
        catalog.nested()


@pytest.fixture(scope="module")
def whole_catalog(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = write_catalog(
        tmp_path_factory.mktemp("whole") / "catalog",
        catalog=[*TREE, entry(b"/d/chunked", flags=68)],
        chunks=[chunk(b"/d/chunked", 0, 10)],
        nested_catalogs=[nested(b"/d/n")],
        statistics=[{"counter": "self_dir", "value": 2}],
    )
    read_everything(path)
    return Path(path).read_bytes()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(
        st.tuples(st.integers(0, 2**20), st.binary(min_size=1, max_size=9)), min_size=1
    )
)
def test_damaged_catalog_is_read_or_refused(
    whole_catalog: bytes, tmp_path: Path, changes: list[tuple[int, bytes]]
) -> None:
    content = bytearray(whole_catalog)
    for position, change in changes:
        at = position % len(content)
        content[at : at + len(change)] = change
    path = tmp_path / "damaged"
    path.write_bytes(content)
    try:
        read_everything(str(path))
    except CvmfsError as error:
        assert isinstance(error, FormatError)  # noqa: PT017 -- not raised every time
