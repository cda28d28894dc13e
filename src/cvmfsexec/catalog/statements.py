"""The SQL that reads one catalog, put together from what its tables have.

Catalogs in the field lack columns and tables that came with later schema revisions.
A missing column is read as a constant, a missing table as an empty one, so that the
reader knows one shape only.

Source: docs/reference/repository-format.md, "Schema versions a reader must tolerate".
"""

from typing import NamedTuple

from cvmfsexec.catalog.database import Database
from cvmfsexec.errors import FormatError
from cvmfsexec.format.dirent import Flag, Listing


class Statements(NamedTuple):
    """Written once per catalog; SQLite keeps them compiled.

    Attributes:
        find: An entry by its path hash.
        find_row: An entry by its row.
        list_: Part of a directory by parent hash, row before, and limit; without the
            parent hash in the result, as that is known.
        listing: The same with the columns of ``Listing`` only.
        walk: Part of the catalog by row before and limit.
        by_path: Part of the catalog by path hash before and limit.
        hardlinks: Row and ``hardlinks`` of a directory's entries that have a group.
        chunks: Offset, size, and digest of a file's chunks by its path hash.
        counters: Name and value of the statistics.
        nested: Path, hash, size, and whether it is a bind mountpoint.
        nested_at: The same by path.
    """

    find: str
    find_row: str
    list_: str
    listing: str
    walk: str
    by_path: str
    hardlinks: str
    chunks: str
    counters: str
    nested: str
    nested_at: str


def statements_for(database: Database) -> Statements:
    """Return the statements for a catalog's file.

    Raises:
        FormatError: The table ``catalog`` or one of its essential columns is missing.
    """
    columns = database.columns("catalog")
    missing = _ESSENTIAL_COLUMNS - columns
    if missing or "rowid" in columns:
        what = f"no column {min(missing)}" if missing else "rows without numbers"
        raise FormatError(f"{database.name} is not a catalog: {what}")
    values = ["rowid", *(_value(name, columns) for name in _ENTRY_COLUMNS)]
    own, listed = ", ".join(values), ", ".join(values[:_LISTED_COLUMNS])
    whole = f"SELECT {own}, parent_1, parent_2 FROM catalog"  # noqa: S608 -- names from the tables below
    directory = "FROM catalog WHERE parent_1 = ?1 AND parent_2 = ?2"
    page = f"{directory} AND {_NOT_ITSELF} AND rowid > ?3 ORDER BY rowid LIMIT ?4"
    hardlinks = _value("hardlinks", columns)
    return Statements(
        find=f"{whole} WHERE md5path_1 = ?1 AND md5path_2 = ?2",
        find_row=f"{whole} WHERE rowid = ?1",
        list_=f"SELECT {own} {page}",
        listing=f"SELECT {listed} {page}",
        walk=f"{whole} WHERE rowid > ?1 ORDER BY rowid LIMIT ?2",
        by_path=f"{whole} WHERE (md5path_1, md5path_2) > (?1, ?2)"
        " ORDER BY md5path_1, md5path_2 LIMIT ?3",
        hardlinks=f"SELECT rowid, {hardlinks} {directory}"
        f" AND {hardlinks} NOT BETWEEN 0 AND {_LINKCOUNT_MAX} ORDER BY rowid",
        chunks=_chunks(database),
        counters=_counters(database),
        nested=_nested(database, "path IS NOT NULL"),
        nested_at=_nested(database, "path = CAST(?1 AS TEXT)"),  # bound as bytes
    )


# In the order of DirectoryEntry, between its row and its parent.
_ENTRY_COLUMNS = (
    "name",
    "size",
    "mode",
    "mtime",
    "mtimens",
    "flags",
    "hardlinks",
    "uid",
    "gid",
    "symlink",
    "hash",
    "xattr",
    "md5path_1",
    "md5path_2",
)
_LISTED_COLUMNS = len(Listing._fields)  # they come first
_ESSENTIAL_COLUMNS = frozenset(
    ("md5path_1", "md5path_2", "parent_1", "parent_2", "name", "size", "mode", "flags")
)
# What stands for a value that is NULL, or for a column that the file lacks.
_SUBSTITUTES = {
    "size": "0",
    "mtime": "0",
    "mtimens": "0",
    "hardlinks": "0",
    "uid": "0",
    "gid": "0",
    "symlink": "x''",
    "hash": "NULL",
    "xattr": "NULL",
}
# Before schema 2.1: equal inode numbers make a group, and links were not counted.
_HARDLINKS_BY_INODE = "(ifnull(inode << 32, 0) | 1)"

_LINKCOUNT_MAX = 0xFFFFFFFF
_NOT_ITSELF = (
    "(md5path_1 IS NOT ?1 OR md5path_2 IS NOT ?2)"
    f" AND (flags & {Flag.NESTED_ROOT}) IS NOT {Flag.NESTED_ROOT}"
)


def _value(column: str, columns: frozenset[str]) -> str:
    substitute = _SUBSTITUTES.get(column, "NULL")
    if column in columns:
        return column if substitute == "NULL" else f"ifnull({column}, {substitute})"
    if column == "hardlinks" and "inode" in columns:
        return _HARDLINKS_BY_INODE
    return substitute


def _chunks(database: Database) -> str:
    if database.columns("chunks"):
        return (
            "SELECT offset, size, hash FROM chunks"
            " WHERE md5path_1 = ?1 AND md5path_2 = ?2 ORDER BY offset"
        )
    return "SELECT NULL, NULL, NULL WHERE 0 AND ?1 AND ?2"


def _counters(database: Database) -> str:
    if database.columns("statistics"):
        return "SELECT counter, value FROM statistics"
    return "SELECT NULL, NULL WHERE 0"


def _nested(database: Database, condition: str) -> str:
    return " UNION ALL ".join(
        _nested_in(table, database.columns(table), is_bind, condition)
        for is_bind, table in enumerate(("nested_catalogs", "bind_mountpoints"))
    )


def _nested_in(
    table: str, columns: frozenset[str], is_bind: int, condition: str
) -> str:
    content_hash = "sha1" if "sha1" in columns else "NULL"  # any algorithm's
    size = "ifnull(size, 0)" if "size" in columns else "0"
    rows = table if columns else "(SELECT NULL AS path)"
    return (
        f"SELECT path, {content_hash}, {size}, {is_bind} FROM {rows}"  # noqa: S608
        f" WHERE {condition}"
    )
