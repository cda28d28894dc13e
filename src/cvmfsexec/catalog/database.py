"""SQLite files from outside: opened so that nothing in them can act.

The bytes were verified against their hash, but whoever published them may be hostile
or careless. So the file is opened immutable and read-only; views, triggers, virtual
tables and generated columns are refused or as good as absent; no statement but our
SELECTs is compiled; every query has a budget of steps and of bytes; and whatever
SQLite complains about becomes a ``FormatError``.

Memory and descriptors are those of a server that keeps hundreds of catalogs open: one
descriptor and at most 128 KiB of pages each, and no mmap, which would count as resident
memory and turn a file that shrinks into a SIGBUS (measured: no faster).

The disk may lose what was verified when it was stored. Whoever can have the file anew
says how by ``can_renew``; a query that fails is then asked once more, of the new file.

A database may be used from any thread; one query runs at a time. It is closed by
``close``, or at once when nobody refers to it any more: nothing in here refers back.
"""

import _sqlite3 as sqlite3  # the module sqlite3 imports datetime, and takes 2 ms more
import errno
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from cvmfsexec import log
from cvmfsexec.errors import (
    CacheError,
    CvmfsError,
    FormatError,
    GoneObjectError,
    UnreadableObjectError,
)

Row = tuple[Any, ...]

CACHE_KIB = 128
IN_MEMORY_BYTES_MAX = 256 << 20

_ROW_BYTES_MAX = 192 << 10  # 255 attributes, as long as can be, take 130 kB
_SETTINGS = (
    "PRAGMA trusted_schema=OFF",
    "PRAGMA cell_size_check=ON",
    "PRAGMA query_only=ON",
    "PRAGMA mmap_size=0",
    "PRAGMA temp_store=MEMORY",
    f"PRAGMA cache_size=-{CACHE_KIB}",
)
_LIMITS = (
    (sqlite3.SQLITE_LIMIT_LENGTH, _ROW_BYTES_MAX),
    (sqlite3.SQLITE_LIMIT_COLUMN, 200),
    (sqlite3.SQLITE_LIMIT_EXPR_DEPTH, 50),
    (sqlite3.SQLITE_LIMIT_ATTACHED, 0),
    (sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH, 1),
    (sqlite3.SQLITE_LIMIT_WORKER_THREADS, 0),
)
_STATEMENTS_MAX = 12

# Damaged pages can be a tree of twenty levels made of one page that is its own child,
# or a thousand rows that share one long value: a scan without end, an answer that fills
# the memory. A sound file takes less than a step for two of its bytes to scan, and
# yields no byte twice.
_STEPS_PER_CALL = 100_000
_STEPS_MIN = 2_000_000
_STEPS_PER_BYTE = 2
_ANSWER_BYTES_MIN = 1 << 16
_BATCH_ROWS = 256

# Damaged schemas make SQLite speak in bytes that are no text, or claim to be out of
# memory.
_SQLITE_ERRORS = (sqlite3.Error, UnicodeError, MemoryError)

_RENEWED_PARTS = ("_connection", "_cursor", "_budget", "_size_bytes", "_columns")

_OF_THE_DISK = {errno.EIO: UnreadableObjectError, errno.ESTALE: GoneObjectError}

_FUNCTIONS = frozenset({"ifnull"})
_PLAIN_TABLE = b"CREATE TABLE "  # SQLite itself writes these words, in this case
_ORDINARY_COLUMN = 0  # not generated, not a virtual table's


class Database:
    """One open SQLite file and the columns of its plain tables.

    Attributes:
        name: What it is, for messages.
    """

    def __init__(
        self, name: str, connection: sqlite3.Connection, size_bytes: int
    ) -> None:
        self.name = name
        self._connection = connection
        self._cursor = connection.cursor()
        self._size_bytes = size_bytes
        self._lock = threading.Lock()
        self._budget = _StepBudget(size_bytes)
        self._columns: dict[str, frozenset[str]] = {}
        self._renew: Callable[[], Database] | None = None
        connection.text_factory = bytes
        connection.set_progress_handler(self._budget, _STEPS_PER_CALL)
        for category, limit in _LIMITS:
            connection.setlimit(category, limit)

    @classmethod
    def open(cls, path: str, tables: Iterable[str], name: str = "") -> "Database":
        """Open a file for the given tables; the caller closes it.

        Args:
            path: A regular file, or ``/proc/self/fd/N`` for an open descriptor, which
                stays the caller's. SQLite resolves such a link to the file's name; when
                the file has lost its name, its bytes are copied into memory instead.
            tables: Which tables will be asked for, if the file has them.
            name: What it is, for messages; the path if empty.

        Raises:
            CacheError: The file is not there or cannot be read.
            FormatError: It is no SQLite database, is damaged, or what goes by the
                name of one of the tables is something else.
        """
        connection, size_bytes = _connect(path)
        database = cls(name or path, connection, size_bytes)
        try:
            database._prepare(frozenset(tables))
        except BaseException:
            database.close()
            raise
        return database

    def columns(self, table: str) -> frozenset[str]:
        """Return the names of a table's stored columns; empty without such a table."""
        return self._columns.get(table, frozenset())

    def row(self, sql: str, parameters: Sequence[Any] = ()) -> Row | None:
        """Return the first row of one SELECT; text comes as ``bytes``.

        Raises:
            FormatError: The file is damaged, or the query does not come to an end.
            CacheError: The file was closed, or can no longer be read.
        """
        with self._lock:
            while True:
                self._budget.refill()
                try:
                    row: Row | None = self._cursor.execute(sql, parameters).fetchone()
                except _SQLITE_ERRORS as error:
                    self._replace_or_raise(error)
                else:
                    return row

    def page(self, sql: str, parameters: Sequence[Any]) -> list[Row]:
        """Return all rows of a SELECT that has a small LIMIT; raises as :meth:`row`."""
        with self._lock:
            while True:
                self._budget.refill()
                try:
                    return self._cursor.execute(sql, parameters).fetchall()
                except _SQLITE_ERRORS as error:
                    self._replace_or_raise(error)

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """Return all rows of one SELECT, however many.

        Raises:
            FormatError: As :meth:`row`; or the answer is larger than the file.
            CacheError: As :meth:`row`.
        """
        with self._lock:
            while True:
                self._budget.refill()
                try:
                    return self._all_rows(sql, parameters)
                except _SQLITE_ERRORS as error:
                    self._replace_or_raise(error)

    def _all_rows(self, sql: str, parameters: Sequence[Any]) -> list[Row]:
        rows: list[Row] = []
        bytes_left = self._size_bytes + _ANSWER_BYTES_MIN
        self._cursor.execute(sql, parameters)
        while bytes_left > 0 and (batch := self._cursor.fetchmany(_BATCH_ROWS)):
            rows += batch
            bytes_left -= _bytes_in(batch)
        if bytes_left <= 0:
            raise FormatError(f"{self.name}: more data than the file can hold")
        return rows

    def properties(self) -> dict[bytes, bytes]:
        """Return the table ``properties``; numbers as text, what is NULL left out."""
        if not self.columns("properties") >= {"key", "value"}:
            return {}
        return {
            _text_of(key): _text_of(value)
            for key, value in self.rows("SELECT key, value FROM properties")
            if value is not None
        }

    def can_renew(self, renew: "Callable[[], Database]") -> None:
        """Take note of who has the file anew, in case that a query fails.

        Args:
            renew: Opens another copy of the same file, which becomes ours. Called once
                at most, while other queries wait; must not refer to this database.
        """
        self._renew = renew

    def close(self) -> None:
        """Give the descriptor back; later queries raise ``CacheError``."""
        with self._lock:
            self._connection.close()

    def __del__(self) -> None:
        """Close, so that a database may be shared by whoever still needs it."""
        self._connection.close()

    def _replace_or_raise(self, error: Exception) -> None:
        """Go on with another copy of the file, if there is a way to have one.

        Raises:
            CvmfsError: There is none.
        """
        translated = _translated(self.name, error)
        is_closed = isinstance(error, sqlite3.ProgrammingError)
        renew, self._renew = self._renew, None
        if renew is None or is_closed:
            raise translated from error
        log.warning("%s; it is fetched again", translated)
        fresh = renew()
        ours, theirs = vars(self), vars(fresh)
        for part in _RENEWED_PARTS:
            ours[part], theirs[part] = theirs[part], ours[part]
        fresh.close()

    def _prepare(self, tables: frozenset[str]) -> None:
        for setting in _SETTINGS:
            self.rows(setting)
        for name, sql in self.rows(
            "SELECT name, sql FROM sqlite_master WHERE type IN ('table', 'view')"
        ):
            table = _text_of(name).decode("utf-8", "replace").lower()
            if table not in tables:
                continue
            if not _text_of(sql).startswith(_PLAIN_TABLE):
                raise FormatError(f"{self.name}: {table} is not a plain table")
            self._columns[table] = frozenset(self._stored_columns(table))
        self._connection.set_authorizer(_only_plain_reads)

    def _stored_columns(self, table: str) -> Iterator[str]:
        for _, name, *_, hidden in self.rows(f"PRAGMA table_xinfo({table})"):
            if hidden == _ORDINARY_COLUMN:
                yield _text_of(name).decode("utf-8", "replace").lower()


class _StepBudget:
    """Steps that the running query may still take, as SQLite's progress handler.

    An object of its own, so that the connection does not refer back to its database
    and both are freed without the garbage collector.
    """

    def __init__(self, size_bytes: int) -> None:
        steps = _STEPS_MIN + _STEPS_PER_BYTE * size_bytes
        self._calls = self._calls_left = steps // _STEPS_PER_CALL

    def refill(self) -> None:
        self._calls_left = self._calls

    def __call__(self) -> bool:
        """Return whether to interrupt the query."""
        self._calls_left -= 1
        return self._calls_left < 0


def _only_plain_reads(
    action: int,
    _table: str | None,
    detail: str | None,
    _database: str | None,
    view_or_trigger: str | None,
) -> int:
    """Decide, while SQLite compiles a statement, what it may do."""
    allowed = view_or_trigger is None and (
        action in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ)
        or (action == sqlite3.SQLITE_FUNCTION and detail in _FUNCTIONS)
    )
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


def _connect(path: str) -> tuple[sqlite3.Connection, int]:
    try:
        status = os.stat(path)
        size_bytes = status.st_size
        if not status.st_nlink:
            # Its link in /proc leads to "... (deleted)", which others may have made.
            return _connection_to_copy(path, size_bytes), size_bytes
        try:
            return _connection_to(_uri_of(path)), size_bytes
        except sqlite3.Error:
            return _connection_to_copy(path, size_bytes), size_bytes
    except OSError as error:
        kind = _OF_THE_DISK.get(error.errno or 0, CacheError)
        raise kind(f"cannot open {path}: {error.strerror}") from error


def _connection_to(uri: str) -> sqlite3.Connection:
    return sqlite3.connect(
        uri,
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=_STATEMENTS_MAX,
    )


def _uri_of(path: str) -> str:
    quoted = os.path.abspath(path)
    for character in "%?#":  # the percent sign first, it is what the others become
        quoted = quoted.replace(character, f"%{ord(character):02x}")
    return f"file://{quoted}?mode=ro&immutable=1"


def _connection_to_copy(path: str, size_bytes: int) -> sqlite3.Connection:
    """Serve a copy in memory of a file that can be opened, but not by its name."""
    if size_bytes > IN_MEMORY_BYTES_MAX:
        raise CacheError(f"{path} has been removed, and is too large for the memory")
    with open(path, "rb") as file:
        content = file.read()
    if not content:  # for which SQLite would claim to be out of memory
        raise FormatError(f"{path} is empty")
    connection = _connection_to(":memory:")
    connection.deserialize(content)
    return connection


def _translated(name: str, error: Exception) -> CvmfsError:
    """Return our error for SQLite's: local storage is to blame, or the publisher."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_INTERRUPT:
        return FormatError(f"{name}: a query does not come to an end")
    if code == sqlite3.SQLITE_IOERR:
        return UnreadableObjectError(f"cannot read {name}: {error}")
    if code == sqlite3.SQLITE_CANTOPEN or isinstance(error, sqlite3.ProgrammingError):
        return CacheError(f"cannot read {name}: {error}")
    return FormatError(f"{name}: {str(error) or type(error).__name__}")


def _text_of(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def _bytes_in(rows: list[Row]) -> int:
    return sum(len(value) for row in rows for value in row if type(value) is bytes)
