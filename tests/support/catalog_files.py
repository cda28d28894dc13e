"""Catalogs of every schema that is in the field, built cell by cell.

Unlike the publisher's writer this writes anything: old schemas, missing columns,
wrong types, names that no file system would have.
"""

import sqlite3
import stat
from collections.abc import Iterable, Mapping
from contextlib import closing
from os import PathLike
from typing import Any, NamedTuple

from cvmfsexec.catalog.schema import (
    CATALOG_COLUMNS,
    CHUNK_COLUMNS,
    NESTED_COLUMNS,
    PROPERTY_COLUMNS,
    STATISTICS_COLUMNS,
)
from cvmfsexec.format.dirent import Flag
from cvmfsexec.format.names import (
    NO_PARENT,
    ROOT,
    base_name,
    parent_path,
    path_hash,
)

Cells = Mapping[str, Any]
"""One row by column; cells of columns that the table lacks are left out."""

MTIME_S = 1_700_000_000
DIGEST = bytes(range(20))
HASH_TEXT = DIGEST.hex()


class Schema(NamedTuple):
    """One kind of catalog.

    Attributes:
        version: Property ``schema``; ``None`` if such catalogs have none.
        revision: Property ``schema_revision``.
        tables: Columns by table.
    """

    version: str | None
    revision: str | None
    tables: Mapping[str, tuple[str, ...]]


def _without(columns: tuple[str, ...], *names: str) -> tuple[str, ...]:
    return tuple(column for column in columns if column not in names)


_REVISION_7 = {
    "catalog": CATALOG_COLUMNS,
    "chunks": CHUNK_COLUMNS,
    "nested_catalogs": NESTED_COLUMNS,
    "bind_mountpoints": NESTED_COLUMNS,
    "properties": PROPERTY_COLUMNS,
    "statistics": STATISTICS_COLUMNS,
}
_REVISION_4 = {**_REVISION_7, "catalog": _without(CATALOG_COLUMNS, "mtimens")}
_REVISION_2 = {**_REVISION_4, "bind_mountpoints": ()}
_REVISION_1 = {**_REVISION_2, "catalog": _without(CATALOG_COLUMNS, "mtimens", "xattr")}
_REVISION_0 = {**_REVISION_1, "nested_catalogs": ("path", "sha1")}
_BEFORE_STATISTICS = {**_REVISION_0, "statistics": ()}
_BEFORE_HARDLINKS = {
    **_BEFORE_STATISTICS,
    "catalog": (
        *_without(_REVISION_0["catalog"], "hardlinks", "uid", "gid"),
        "inode",
    ),
    "chunks": (),
}
_BEFORE_HASHES = {**_BEFORE_HARDLINKS, "nested_catalogs": ("path",)}
_FUTURE = {
    **_REVISION_7,
    "catalog": ("news", *reversed(CATALOG_COLUMNS)),
    "novelties": ("a", "b"),
}

SCHEMAS = {
    "0.9": Schema(None, None, _BEFORE_HASHES),
    "1.0": Schema(None, None, _BEFORE_HARDLINKS),
    "1.0 by name": Schema("1.0", None, _BEFORE_HARDLINKS),
    "1.2": Schema("1.2", "1", _BEFORE_HARDLINKS),
    "2.4": Schema("2.4", "0", _BEFORE_STATISTICS),
    "2.5": Schema("2.5", None, _REVISION_0),
    "2.5 revision 0": Schema("2.5", "0", _REVISION_0),
    "2.5 revision 1": Schema("2.5", "1", _REVISION_1),
    "2.5 revision 2": Schema("2.5", "2", _REVISION_2),
    "2.5 revision 3": Schema("2.5", "3", _REVISION_2),
    "2.5 revision 4": Schema("2.5", "4", _REVISION_4),
    "2.5 revision 5": Schema("2.5", "5", _REVISION_4),
    "2.5 revision 6": Schema("2.5", "6", _REVISION_4),
    "2.5 revision 7": Schema("2.5", "7", _REVISION_7),
    "2.5 revision 8": Schema("2.5", "8", _FUTURE),
    "2.5 revision 99": Schema("2.5", "99", _FUTURE),
}
NEWEST = SCHEMAS["2.5 revision 7"]


def entry(path: bytes, **cells: object) -> Cells:
    """Return the cells of a regular file, changed as the arguments say."""
    own, parent = path_hash(path), path_hash(parent_path(path))
    if path == ROOT:
        parent = NO_PARENT
    return {
        "md5path_1": own.md5_1,
        "md5path_2": own.md5_2,
        "parent_1": parent.md5_1,
        "parent_2": parent.md5_2,
        "hardlinks": 1,
        "hash": DIGEST,
        "size": 10,
        "mode": stat.S_IFREG | 0o644,
        "mtime": MTIME_S,
        "mtimens": 123_456_789,
        "flags": Flag.FILE,
        "name": base_name(path),
        "symlink": b"",
        "uid": 1000,
        "gid": 1001,
        "xattr": b"\1\1\1\1kv",
        "inode": 4711,
        **cells,
    }


def directory(path: bytes, **cells: object) -> Cells:
    """Return the cells of a directory, changed as the arguments say."""
    kind = {
        "hardlinks": 2,
        "hash": None,
        "size": 4096,
        "mode": stat.S_IFDIR | 0o755,
        "flags": Flag.DIRECTORY,
        "xattr": None,
    }
    return entry(path, **{**kind, **cells})


def link(path: bytes, target: bytes, **cells: object) -> Cells:
    """Return the cells of a symbolic link, changed as the arguments say."""
    kind = {
        "hash": None,
        "size": len(target),
        "mode": stat.S_IFLNK | 0o777,
        "flags": Flag.FILE | Flag.SYMLINK,
        "symlink": target,
        "xattr": None,
    }
    return entry(path, **{**kind, **cells})


def chunk(path: bytes, offset: object, size: object, digest: object = DIGEST) -> Cells:
    """Return the cells of one chunk of a file."""
    own = path_hash(path)
    return {
        "md5path_1": own.md5_1,
        "md5path_2": own.md5_2,
        "offset": offset,
        "size": size,
        "hash": digest,
    }


def nested(path: object, content_hash: object = HASH_TEXT, size: object = 9) -> Cells:
    """Return the cells of a nested catalog or bind mountpoint."""
    return {"path": path, "sha1": content_hash, "size": size}


def write_catalog(
    path: str | PathLike[str],
    schema: Schema = NEWEST,
    *,
    properties: Mapping[str, object] | None = None,
    **rows: Iterable[Cells],
) -> str:
    """Write a catalog and return its path.

    Args:
        path: Where; must not exist.
        schema: Of which kind.
        properties: Further ones, or others in place of the schema's.
        rows: Of each table, by its name.
    """
    own = {"schema": schema.version, "schema_revision": schema.revision}
    keys = {**own, **(properties or {})}
    contents: dict[str, Iterable[Cells]] = {
        "properties": [
            {"key": key, "value": value}
            for key, value in keys.items()
            if value is not None
        ],
        **rows,
    }
    with closing(sqlite3.connect(path)) as connection, connection:
        for table, columns in schema.tables.items():
            if columns:
                declared = ", ".join(
                    f"{column} {_type_of(table, column)}" for column in columns
                )
                connection.execute(f"CREATE TABLE {table} ({declared})")
                for cells in contents.get(table, ()):
                    _insert(connection, table, columns, cells)
        connection.execute(
            "CREATE UNIQUE INDEX by_path ON catalog (md5path_1, md5path_2)"
        )
        connection.execute(
            "CREATE INDEX idx_catalog_parent ON catalog (parent_1, parent_2)"
        )
    return str(path)


_TEXT_COLUMNS = {"name", "symlink", "path", "sha1", "key", "counter"}


def _type_of(table: str, column: str) -> str:
    if column in _TEXT_COLUMNS or (table, column) == ("properties", "value"):
        return "TEXT"
    return "BLOB" if column in {"hash", "xattr"} else "INTEGER"


def _insert(
    connection: sqlite3.Connection, table: str, columns: tuple[str, ...], cells: Cells
) -> None:
    """Insert a row; bytes of a text column are stored as text."""
    present = [column for column in columns if column in cells]
    values = ", ".join(
        "CAST(? AS TEXT)"
        if _type_of(table, column) == "TEXT" and isinstance(cells[column], bytes)
        else "?"
        for column in present
    )
    connection.execute(
        f"INSERT INTO {table} ({', '.join(present)}) VALUES ({values})",  # noqa: S608
        [cells[column] for column in present],
    )
