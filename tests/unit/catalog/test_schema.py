import sqlite3
from contextlib import closing

import pytest

from cvmfsexec.catalog import schema
from cvmfsexec.catalog.schema import (
    BRANCH_COLUMNS,
    CATALOG_COLUMNS,
    CATALOG_TABLES,
    CHUNK_COLUMNS,
    COUNTER_NAMES,
    CREATE_CATALOG,
    CREATE_HISTORY,
    HISTORY_TABLES,
    NESTED_COLUMNS,
    PROPERTY_COLUMNS,
    STATISTICS_COLUMNS,
    TAG_COLUMNS,
)
from tests.support.original_databases import original_databases

COLUMNS = {
    "catalog": CATALOG_COLUMNS,
    "chunks": CHUNK_COLUMNS,
    "nested_catalogs": NESTED_COLUMNS,
    "bind_mountpoints": NESTED_COLUMNS,
    "properties": PROPERTY_COLUMNS,
    "statistics": STATISTICS_COLUMNS,
    "tags": TAG_COLUMNS,
    "branches": BRANCH_COLUMNS,
}


def facts(connection: sqlite3.Connection) -> dict[str, list[tuple[object, ...]]]:
    """Return columns with types and key, and indices, of every table."""
    names = [
        name
        for (name,) in connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table'"
        )
    ]
    return {
        name: connection.execute(f"PRAGMA table_info({name})").fetchall()
        + connection.execute(f"PRAGMA index_list({name})").fetchall()
        + connection.execute(f"PRAGMA foreign_key_list({name})").fetchall()
        for name in names
    }


def created(statements: tuple[str, ...]) -> dict[str, list[tuple[object, ...]]]:
    with closing(sqlite3.connect(":memory:")) as connection:
        for statement in statements:
            connection.execute(statement)
        return facts(connection)


@pytest.mark.parametrize(
    ("statements", "tables"),
    [(CREATE_CATALOG, CATALOG_TABLES), (CREATE_HISTORY, HISTORY_TABLES)],
    ids=["catalog", "history"],
)
def test_statements_make_the_tables_with_their_columns(
    statements: tuple[str, ...], tables: tuple[str, ...]
) -> None:
    made = created(statements)
    assert set(made) == set(tables)
    for table in tables:
        columns = [fact[1] for fact in made[table] if len(fact) == 6]
        assert columns == list(COLUMNS.get(table, columns))


@pytest.mark.parametrize(
    ("kind", "statements"),
    [("C", CREATE_CATALOG), ("H", CREATE_HISTORY)],
    ids=["catalog", "history"],
)
def test_tables_are_those_of_the_original(
    kind: str, statements: tuple[str, ...]
) -> None:
    """In the columns, their types and keys, and the indices; not in the wording."""
    path = original_databases("shake", kind)[0]
    with closing(sqlite3.connect(path)) as connection:
        assert created(statements) == facts(connection)


def test_there_are_24_different_counters() -> None:
    assert len(set(COUNTER_NAMES)) == 24


def test_counters_are_those_of_the_original() -> None:
    path = original_databases("shake", "C")[0]
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT counter FROM statistics").fetchall()
    assert {counter for (counter,) in rows} == set(COUNTER_NAMES)


def test_properties_of_the_original_have_names_here() -> None:
    known = {value for key, value in vars(schema.Property).items() if key.isupper()}
    for kind in "CH":
        for path in original_databases("conformance", kind):
            with closing(sqlite3.connect(path)) as connection:
                rows = connection.execute("SELECT key FROM properties").fetchall()
            assert {key for (key,) in rows} <= known
