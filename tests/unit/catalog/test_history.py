import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from cvmfsexec.catalog.history import History, Tag
from cvmfsexec.catalog.schema import CREATE_HISTORY
from cvmfsexec.errors import CacheError, FormatError, FqrnMismatchError
from cvmfsexec.format.digest import ContentHash, HashAlgorithm
from cvmfsexec.format.envelope import parse_letter
from cvmfsexec.format.manifest import Manifest
from tests.support.fixtures import fixture_repository
from tests.support.original_databases import original_database, original_databases

FQRN = "repo.example.org"
HASH = ContentHash(bytes(range(20)), HashAlgorithm.SHAKE128)
PROPERTIES = {"schema": "1.0", "schema_revision": "3", "fqrn": FQRN}

Cells = dict[str, object]


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "history")


def tag(name: object, revision: object, **cells: object) -> Cells:
    return {
        "name": name,
        "hash": str(HASH),
        "revision": revision,
        "timestamp": 1000,
        "channel": 0,
        "description": "",
        "size": 4096,
        "branch": "",
        **cells,
    }


def write(
    path: str,
    *tags: Cells,
    statements: tuple[str, ...] = CREATE_HISTORY,
    properties: dict[str, str] = PROPERTIES,
) -> str:
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)
        if "CREATE TABLE properties" in "".join(statements):
            connection.executemany(
                "INSERT INTO properties VALUES (?, ?)", properties.items()
            )
        for cells in tags:
            marks = ", ".join("?" * len(cells))
            connection.execute(
                f"INSERT INTO tags ({', '.join(cells)}) VALUES ({marks})",  # noqa: S608
                list(cells.values()),
            )
    return path


def test_tags_are_told_newest_first(path: str) -> None:
    write(
        path,
        tag("v1", 1, description="first"),
        tag("trunk-previous", 1),
        tag("trunk", 3, timestamp=3000, size=None, branch=None),
    )
    with closing(History.open(path, fqrn=FQRN)) as history:
        assert history.tags() == [
            Tag("trunk", HASH, 0, 3, 3000, "", ""),
            Tag("trunk-previous", HASH, 4096, 1, 1000, "", ""),
            Tag("v1", HASH, 4096, 1, 1000, "first", ""),
        ]
        assert history.fqrn == FQRN
        assert history.previous_revision is None


def test_tag_is_found_by_name(path: str) -> None:
    write(path, tag("v1", 1), tag("v1.1", 2))
    with closing(History.open(path)) as history:
        found = history.find_tag("v1.1")
        assert found is not None
        assert found.revision == 2
        for name in ("v", "V1", "", "v1 ", "é", "\ud800", "%", "v1\0"):
            assert history.find_tag(name) is None


@pytest.mark.parametrize(
    ("timestamp_s", "name"),
    [(999, None), (1000, "b"), (1999, "b"), (2000, "c"), (10**12, "d")],
)
def test_date_finds_the_newest_revision_until_then(
    path: str, timestamp_s: int, name: str | None
) -> None:
    write(
        path,
        tag("a", 1, timestamp=1000),
        tag("b", 2, timestamp=1000),
        tag("c", 3, timestamp=2000),
        tag("side", 9, timestamp=1000, branch="side"),
        tag("d", 4, timestamp=3000),
    )
    with closing(History.open(path)) as history:
        found = history.find_date(timestamp_s)
        assert (found and found.name) == name


OLD_TAGS = (
    "CREATE TABLE tags (name TEXT, hash TEXT, revision INTEGER, timestamp INTEGER"
)
OLD_SCHEMAS = {
    "0": f"{OLD_TAGS}, channel INTEGER, description TEXT)",
    "1": f"{OLD_TAGS}, channel INTEGER, description TEXT, size INTEGER)",
    "of the future": f"{OLD_TAGS}, size INTEGER, branch TEXT, novelty BLOB)",
}


@pytest.mark.parametrize("statement", OLD_SCHEMAS.values(), ids=OLD_SCHEMAS)
def test_columns_that_are_missing_are_substituted(path: str, statement: str) -> None:
    columns = [column for column in tag("", 0) if f"{column} " in statement]
    cells = {column: tag("v1", 7)[column] for column in columns}
    write(path, cells, statements=(statement, CREATE_HISTORY[0]))
    size = 4096 if "size" in columns else 0
    with closing(History.open(path)) as history:
        found = history.find_date(5000)
        assert found == Tag("v1", HASH, size, 7, 1000, "", "")
        assert history.tags() == [found]


def test_previous_revision_is_a_hash(path: str) -> None:
    write(path, properties={**PROPERTIES, "previous_revision": str(HASH)})
    with closing(History.open(path)) as history:
        assert history.previous_revision == HASH


def test_forty_zeros_are_no_previous_revision(path: str) -> None:
    write(path, properties={**PROPERTIES, "previous_revision": "0" * 40})
    with closing(History.open(path)) as history:
        assert history.previous_revision is None


@pytest.mark.parametrize(
    "properties",
    [
        {"schema": "2.0"},
        {"schema": "10"},
        {"schema": ""},
        {"previous_revision": "abc"},
        {"previous_revision": "é" * 40},
    ],
    ids=repr,
)
def test_properties_that_make_no_sense_are_refused(
    path: str, properties: dict[str, str]
) -> None:
    write(path, properties=PROPERTIES | properties)
    with pytest.raises(FormatError):
        History.open(path)


@pytest.mark.parametrize("fqrn", ["other.example.org", "repo.example.or", "REPO"])
def test_tags_of_another_repository_are_not_believed(path: str, fqrn: str) -> None:
    write(path)
    with pytest.raises(FqrnMismatchError):
        History.open(path, fqrn=fqrn)


@pytest.mark.parametrize(
    "statements",
    [
        ("CREATE TABLE catalog (name)",),
        ("CREATE TABLE tags (name, hash, revision)",),
        ("CREATE VIEW tags AS SELECT 1 AS name, 2 AS hash",),
    ],
    ids=["catalog", "no timestamp", "view"],
)
def test_other_databases_are_refused(path: str, statements: tuple[str, ...]) -> None:
    write(path, statements=statements)
    with pytest.raises(FormatError):
        History.open(path)


@pytest.mark.parametrize(
    "cells",
    [
        {"name": ""},
        {"name": None},
        {"hash": None},
        {"hash": "0" * 40},
        {"hash": "abc"},
        {"revision": -1},
        {"revision": None},
        {"revision": "new"},
        {"timestamp": -5},
        {"size": -1},
        {"size": "large"},
        {"description": 1.5},
    ],
    ids=repr,
)
def test_damaged_tag_is_refused(path: str, cells: Cells) -> None:
    statement = "CREATE TABLE tags (name, hash, revision, timestamp, size, description)"
    damaged = {**tag("v1", 1), **cells}
    del damaged["channel"], damaged["branch"]
    write(path, damaged, statements=(statement, CREATE_HISTORY[0]))
    with closing(History.open(path)) as history, pytest.raises(FormatError):
        history.tags()


def test_text_that_is_no_utf8_is_shown_escaped(path: str) -> None:
    write(path, tag("v1", 1, description=b"\xff text"))
    with closing(History.open(path)) as history:
        assert [tag.description for tag in history.tags()] == ["\\xff text"]


def test_closed_history_cannot_be_read(path: str) -> None:
    history = History.open(write(path, tag("v1", 1)))
    history.close()
    with pytest.raises(CacheError):
        history.tags()


def test_tags_of_the_original_are_read() -> None:
    blob = (fixture_repository("conformance") / ".cvmfspublished").read_bytes()
    manifest = Manifest.parse(parse_letter(blob).letter)
    path = original_database("conformance", str(manifest.history), "H")
    with closing(History.open(path, fqrn=manifest.fqrn)) as history:
        tags = {tag.name: tag for tag in history.tags()}
        assert {"trunk", "trunk-previous", *(f"v{i}" for i in range(1, 7))} <= set(tags)
        trunk = tags["trunk"]
        assert trunk.root_catalog == manifest.root_catalog
        assert trunk.root_catalog_size == manifest.root_catalog_size
        assert trunk.revision == manifest.revision
        assert trunk.description == "current HEAD"
        assert history.find_tag("v2") == tags["v2"]
        at_v2 = history.find_date(tags["v2"].timestamp_s)
        assert at_v2 is not None
        assert at_v2.root_catalog == tags["v2"].root_catalog


@pytest.mark.parametrize("repository", ["conformance", "shake", "config"])
def test_tag_databases_of_every_revision_are_read(repository: str) -> None:
    for path in original_databases(repository, "H"):
        with closing(History.open(path, fqrn=f"{repository}.example.org")) as history:
            assert history.tags()
