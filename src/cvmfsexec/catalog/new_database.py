"""SQLite files that we write: catalogs, tag databases, the reflog.

Each is built in one go and never changed afterwards, so it needs no journal and no
flushing while it grows; whoever publishes it makes it durable. It is vacuumed at the
end: smaller, and the same content gives the same bytes. Journal mode WAL must never
be seen in such a file, because readers open it without write access.

Source: docs/reference/publisher-format.md, "Catalogs".
"""

import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager

from cvmfsexec.errors import PublishError

SMALL_PAGE_BYTES = 1024
"""Page size for files of few rows; every table and index takes at least a page."""

LARGE_PAGE_BYTES = 4096

_SETTINGS = (
    "PRAGMA encoding='UTF-8'",
    "PRAGMA journal_mode=OFF",
    "PRAGMA synchronous=OFF",
    "PRAGMA locking_mode=EXCLUSIVE",
    "PRAGMA temp_store=MEMORY",
)


def insert_into(table: str, columns: Sequence[str], texts: Collection[str] = ()) -> str:
    """Return the statement that inserts a row, whose values come in this order.

    Args:
        table: Its name.
        columns: All of its columns.
        texts: Those whose values are ``bytes`` and become TEXT of any encoding.
    """
    values = ("CAST(? AS TEXT)" if column in texts else "?" for column in columns)
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join(values)})"  # noqa: S608 -- names from the schema


@contextmanager
def new_database(
    path: str, create: Iterable[str], *, page_bytes: int = SMALL_PAGE_BYTES
) -> Iterator[sqlite3.Connection]:
    """Write a database; it is complete when the block is left.

    Args:
        path: Where; must not exist.
        create: Statements that make the tables.
        page_bytes: Size of its pages.

    Raises:
        PublishError: SQLite could not write it, or cannot hold one of the values.
    """
    try:
        connection = sqlite3.connect(path, isolation_level=None)
        try:
            connection.execute(f"PRAGMA page_size={page_bytes}")
            for statement in (*_SETTINGS, "BEGIN", *create):
                connection.execute(statement)
            yield connection
            connection.execute("COMMIT")
            connection.execute("VACUUM")
        finally:
            connection.close()
    except (sqlite3.Error, OverflowError, UnicodeEncodeError) as error:
        raise PublishError(f"cannot write the database {path!r}: {error}") from error
