import os
import sqlite3
import struct
import threading
from collections.abc import Callable
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest

from cvmfsexec.catalog.database import CACHE_KIB, IN_MEMORY_BYTES_MAX, Database
from cvmfsexec.errors import CacheError, FormatError

PAGE_BYTES = 1024


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "database"


def write(path: Path, *statements: str) -> str:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"PRAGMA page_size={PAGE_BYTES}")
        for statement in statements:
            connection.execute(statement)
    return str(path)


def descriptors() -> set[str]:
    return {
        target
        for number in os.listdir("/proc/self/fd")
        if os.path.exists(target := os.path.realpath(f"/proc/self/fd/{number}"))
    }


THINGS = ("CREATE TABLE things (a, b TEXT)", "INSERT INTO things VALUES (1, 'x')")
A_THOUSAND = (
    "INSERT INTO things WITH RECURSIVE numbers(i) AS"
    " (SELECT 0 UNION ALL SELECT i + 1 FROM numbers WHERE i < 999)"
    " SELECT i, 'text ' || i FROM numbers"
)


@pytest.mark.parametrize(
    "name", ["plain", "with space", "100%25", "a?b=c#d", "ünï", os.fsdecode(b"\xff")]
)
def test_file_of_any_name_is_opened(tmp_path: Path, name: str) -> None:
    with closing(Database.open(write(tmp_path / name, *THINGS), ["things"])) as opened:
        assert opened.columns("things") == {"a", "b"}
        assert opened.rows("SELECT a, b FROM things") == [(1, b"x")]
        assert opened.row("SELECT a, b FROM things WHERE a = 2") is None


def test_one_descriptor_is_open_until_close(path: Path) -> None:
    write(path, *THINGS)
    opened = Database.open(str(path), ["things"])
    opened.rows("SELECT a FROM things")
    assert str(path) in descriptors()
    opened.close()
    assert str(path) not in descriptors()
    with pytest.raises(CacheError):
        opened.rows("SELECT a FROM things")


def test_failed_open_leaves_no_descriptor(path: Path) -> None:
    write(path, "CREATE VIEW things AS SELECT 1 AS a")
    with pytest.raises(FormatError):
        Database.open(str(path), ["things"])
    assert str(path) not in descriptors()


def test_file_is_not_changed_and_gets_no_companions(path: Path) -> None:
    write(path, *THINGS)
    path.chmod(0o444)
    before = path.read_bytes()
    with closing(Database.open(str(path), ["things"])) as opened:
        opened.rows("SELECT a FROM things")
        assert list(path.parent.iterdir()) == [path]
    assert path.read_bytes() == before


def test_missing_file_is_no_format_error(path: Path) -> None:
    with pytest.raises(CacheError):
        Database.open(str(path), [])


def test_directory_is_no_database(tmp_path: Path) -> None:
    with pytest.raises(CacheError):
        Database.open(str(tmp_path), [])


def test_descriptor_of_a_file_is_opened_by_its_link(path: Path) -> None:
    fd = os.open(write(path, *THINGS), os.O_RDONLY)
    opened = Database.open(f"/proc/self/fd/{fd}", ["things"])
    os.close(fd)
    assert opened.rows("SELECT a FROM things") == [(1,)]
    opened.close()


def test_descriptor_of_a_removed_file_is_read_into_memory(path: Path) -> None:
    fd = os.open(write(path, *THINGS), os.O_RDONLY)
    path.unlink()
    opened = Database.open(f"/proc/self/fd/{fd}", ["things"])
    os.close(fd)
    assert opened.rows("SELECT a FROM things") == [(1,)]
    with pytest.raises(FormatError):
        opened.rows("DELETE FROM things")
    opened.close()


def test_removed_file_that_is_empty_or_no_database_is_refused(path: Path) -> None:
    for content in (b"", b"x", b"x" * 5000):
        path.write_bytes(content)
        fd = os.open(path, os.O_RDONLY)
        path.unlink()
        with pytest.raises(FormatError):
            Database.open(f"/proc/self/fd/{fd}", ["things"])
        os.close(fd)


def test_removed_file_that_is_too_large_for_the_memory_is_refused(path: Path) -> None:
    write(path, *THINGS)
    os.truncate(path, IN_MEMORY_BYTES_MAX + 1)  # takes no room, has holes
    fd = os.open(path, os.O_RDONLY)
    path.unlink()
    with pytest.raises(CacheError, match="too large"):
        Database.open(f"/proc/self/fd/{fd}", ["things"])
    os.close(fd)


def test_open_file_survives_its_removal(path: Path) -> None:
    with closing(Database.open(write(path, *THINGS), ["things"])) as opened:
        path.unlink()
        assert opened.rows("SELECT a FROM things") == [(1,)]


def test_page_cache_is_small_and_nothing_is_mapped(path: Path) -> None:
    with closing(Database.open(write(path, *THINGS), ["things"])) as opened:
        connection = opened._connection
        connection.set_authorizer(None)
        assert connection.execute("PRAGMA cache_size").fetchone() == (-CACHE_KIB,)
        assert connection.execute("PRAGMA mmap_size").fetchone() == (0,)
        assert connection.execute("PRAGMA trusted_schema").fetchone() == (0,)


@pytest.mark.parametrize(
    "statements",
    [
        pytest.param(["CREATE VIEW things AS SELECT 1 AS a, 2 AS b"], id="view"),
        pytest.param(["CREATE VIRTUAL TABLE things USING fts4(a, b)"], id="virtual"),
        pytest.param(
            ["CREATE TABLE x (a)", "CREATE VIEW Things AS SELECT a FROM x"],
            id="view with capitals",
        ),
    ],
)
def test_what_is_no_plain_table_is_refused(path: Path, statements: list[str]) -> None:
    with pytest.raises(FormatError, match="not a plain table"):
        Database.open(write(path, *statements), ["things"])


def test_view_in_the_guise_of_a_table_is_refused(path: Path) -> None:
    """Old SQLite believes the statement in sqlite_master, not the type beside it."""
    write(path, "CREATE VIEW things AS SELECT 1 AS a")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA writable_schema=ON")
        connection.execute("UPDATE sqlite_master SET type='table', rootpage=2")
    with pytest.raises(FormatError):
        Database.open(str(path), ["things"])


def test_views_and_triggers_beside_the_tables_are_ignored(path: Path) -> None:
    write(
        path,
        *THINGS,
        "CREATE VIEW other AS SELECT a FROM things",
        "CREATE TRIGGER t AFTER INSERT ON things BEGIN DELETE FROM things; END",
    )
    with closing(Database.open(str(path), ["things"])) as opened:
        assert opened.rows("SELECT a FROM things") == [(1,)]
        with pytest.raises(FormatError):
            opened.rows("SELECT a FROM other")


def test_generated_column_counts_as_absent(path: Path) -> None:
    write(path, "CREATE TABLE things (a, b AS (a || 'x'))")
    with closing(Database.open(str(path), ["things"])) as opened:
        assert opened.columns("things") == {"a"}


def test_absent_table_has_no_columns(path: Path) -> None:
    with closing(Database.open(write(path, *THINGS), ["others"])) as opened:
        assert opened.columns("others") == frozenset()
        assert opened.columns("things") == frozenset()


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO things VALUES (2, 'y')",
        "DROP TABLE things",
        "CREATE TEMP TABLE x (a)",
        "ATTACH '/etc/passwd' AS x",
        "PRAGMA query_only=OFF",
        "SELECT load_extension('x')",
        "SELECT hex(a) FROM things",
        "SELECT count(*) FROM things",
        "SELECT * FROM pragma_table_info('things')",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i FROM n) SELECT i FROM n",
    ],
)
def test_nothing_but_plain_reads_is_compiled(path: Path, statement: str) -> None:
    with closing(Database.open(write(path, *THINGS), ["things"])) as opened:
        with pytest.raises(FormatError):
            opened.rows(statement)
        assert opened.rows("SELECT a FROM things") == [(1,)]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"not a database" * 100, id="text"),
        pytest.param(b"SQLite format 3\0", id="magic only"),
        pytest.param(b"SQLite format 3\0" + b"\xff" * 2000, id="magic and nonsense"),
    ],
)
def test_what_is_no_database_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(FormatError):
        Database.open(str(path), ["things"])


def test_truncated_database_is_refused(path: Path) -> None:
    write(path, THINGS[0], A_THOUSAND)
    os.truncate(path, path.stat().st_size // 2)
    with (
        pytest.raises(FormatError),
        closing(Database.open(str(path), ["things"])) as it,
    ):
        it.rows("SELECT a, b FROM things")


def damage_below_root(path: Path) -> None:
    """Overwrite every page but the first ones, as a torn write does."""
    with open(path, "r+b") as file:
        file.seek(3 * PAGE_BYTES)
        file.write(b"\xa5" * (path.stat().st_size - 3 * PAGE_BYTES))


ASK = {
    "row": lambda opened: opened.row("SELECT b FROM things WHERE a = 998"),
    "page": lambda opened: opened.page("SELECT b FROM things WHERE a > ?", (997,)),
    "rows": lambda opened: len(opened.rows("SELECT a, b FROM things")),
}


@pytest.mark.parametrize("ask", ASK.values(), ids=ASK)
def test_query_that_meets_damage_is_asked_of_a_new_copy(
    tmp_path: Path, path: Path, ask: Callable[[Database], object]
) -> None:
    write(path, THINGS[0], A_THOUSAND)
    copy = tmp_path / "copy"
    copy.write_bytes(path.read_bytes())
    damage_below_root(path)
    before = descriptors()
    with closing(Database.open(str(path), ["things"])) as opened:
        opened.can_renew(lambda: Database.open(str(copy), ["things"]))
        with closing(Database.open(str(copy), ["things"])) as sound:
            assert ask(opened) == ask(sound)
        assert descriptors() - before == {str(copy)}
        assert opened.row("SELECT a FROM things WHERE a = 500") == (500,)
    assert descriptors() == before


def test_copy_that_is_damaged_too_is_refused(path: Path) -> None:
    write(path, THINGS[0], A_THOUSAND)
    damage_below_root(path)
    copies: list[Database] = []

    def renew() -> Database:
        copies.append(Database.open(str(path), ["things"]))
        return copies[-1]

    with closing(Database.open(str(path), ["things"])) as opened:
        opened.can_renew(renew)
        for _ in range(3):
            with pytest.raises(FormatError):
                opened.rows("SELECT a, b FROM things")
    assert len(copies) == 1


def test_copy_that_cannot_be_had_is_the_error(path: Path) -> None:
    write(path, THINGS[0], A_THOUSAND)
    damage_below_root(path)

    def renew() -> Database:
        raise CacheError("no server, no room")

    with closing(Database.open(str(path), ["things"])) as opened:
        opened.can_renew(renew)
        with pytest.raises(CacheError, match="no server"):
            opened.rows("SELECT a, b FROM things")
        with pytest.raises(FormatError):
            opened.rows("SELECT a, b FROM things")


def test_closed_database_is_not_renewed(path: Path) -> None:
    write(path, *THINGS)
    opened = Database.open(str(path), ["things"])
    opened.can_renew(lambda: pytest.fail("nobody asked for it"))
    opened.close()
    with pytest.raises(CacheError):
        opened.row("SELECT a FROM things")


def test_message_that_is_no_utf8_is_still_a_format_error(path: Path) -> None:
    write(path, "CREATE TABLE things (a, cafe)")
    path.write_bytes(path.read_bytes().replace(b"a, cafe)", b"\xff\xfe\xfd a)"))
    opened = Database.open(str(path), ["things"])
    with closing(opened), pytest.raises(FormatError):
        opened.rows("SELECT cafe FROM things")
    path.write_bytes(path.read_bytes().replace(b"a)", b"\xff,"))
    with pytest.raises(FormatError):
        Database.open(str(path), ["things"])


def test_database_of_wal_mode_is_read(path: Path) -> None:
    write(path, *THINGS)
    content = bytearray(path.read_bytes())
    content[18:20] = b"\2\2"
    path.write_bytes(content)
    with closing(Database.open(str(path), ["things"])) as opened:
        assert opened.rows("SELECT a FROM things") == [(1,)]


def test_value_beyond_any_use_is_refused(path: Path) -> None:
    write(path, THINGS[0], "INSERT INTO things VALUES (1, zeroblob(300000))")
    opened = Database.open(str(path), ["things"])
    with closing(opened), pytest.raises(FormatError):
        opened.rows("SELECT b FROM things")


def tangled(path: Path, leaf_cells: bytes, levels: int) -> str:
    """Write a table whose tree multiplies one leaf page by 100 on every level."""
    write(path, THINGS[0], *(f"CREATE TABLE filler{i} (a)" for i in range(levels)))
    pages = bytearray(path.read_bytes())
    with closing(sqlite3.connect(path)) as connection:
        roots = [
            root for (root,) in connection.execute("SELECT rootpage FROM sqlite_master")
        ]
    for page, child in pairwise(roots):
        start = PAGE_BYTES - 500
        header = struct.pack(">BHHHBI", 5, 0, 100, start, 0, child)
        pointers = struct.pack(">100H", *(start + 5 * i for i in range(100)))
        cells = struct.pack(">IB", child, 1) * 100
        content = (header + pointers).ljust(start, b"\0") + cells
        pages[(page - 1) * PAGE_BYTES : page * PAGE_BYTES] = content
    start = PAGE_BYTES - len(leaf_cells)
    content = struct.pack(">BHHHBH", 13, 0, 1, start, 0, start)
    last = roots[-1]
    pages[(last - 1) * PAGE_BYTES : last * PAGE_BYTES] = (
        content.ljust(start, b"\0") + leaf_cells
    )
    path.write_bytes(pages)
    return str(path)


def test_scan_without_end_is_interrupted(path: Path) -> None:
    row = b"\4\1\3\1\1\7x"  # four bytes of row 1: header, integer 7, text "x"
    with closing(Database.open(tangled(path, row, 9), ["things"])) as opened:
        with pytest.raises(FormatError, match="does not come to an end"):
            opened.rows("SELECT a FROM things WHERE a = 8")
        with pytest.raises(FormatError, match="does not come to an end"):
            opened.row("SELECT a FROM things WHERE a = 8")


def test_answer_larger_than_the_file_is_refused(path: Path) -> None:
    text = b"x" * 300
    row = b"\x82\x31\1\4\1\x84\x65\7" + text
    with closing(Database.open(tangled(path, row, 2), ["things"])) as opened:
        assert opened.row("SELECT a, b FROM things") == (7, text)
        with pytest.raises(FormatError, match="more data than"):
            opened.rows("SELECT a, b FROM things")


@pytest.mark.parametrize(
    ("rows", "properties"),
    [
        ("('a', 'text')", {b"a": b"text"}),
        ("('a', 12)", {b"a": b"12"}),
        ("('a', 2.5)", {b"a": b"2.5"}),
        ("('a', NULL)", {}),
        ("('a', x'ff')", {b"a": b"\xff"}),
    ],
)
def test_properties_are_text(
    path: Path, rows: str, properties: dict[bytes, bytes]
) -> None:
    write(
        path,
        "CREATE TABLE properties (key, value)",
        f"INSERT INTO properties VALUES {rows}",  # noqa: S608
    )
    with closing(Database.open(str(path), ["properties"])) as opened:
        assert opened.properties() == properties


@pytest.mark.parametrize("table", [THINGS[0], "CREATE TABLE properties (key, text)"])
def test_without_table_there_are_no_properties(path: Path, table: str) -> None:
    with closing(Database.open(write(path, table), ["properties"])) as opened:
        assert opened.properties() == {}


def test_threads_may_share_a_database(path: Path) -> None:
    write(path, THINGS[0], A_THOUSAND)
    wrong: list[object] = []

    def read_all(opened: Database) -> None:
        for i in range(200):
            row = opened.row("SELECT b FROM things WHERE a = ?", (i,))
            if row != (b"text %d" % i,):
                wrong.append(row)

    with closing(Database.open(str(path), ["things"])) as opened:
        threads = [threading.Thread(target=read_all, args=(opened,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []
