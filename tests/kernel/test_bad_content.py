"""Objects, chunks and nested catalogs that go wrong while a payload runs.

The payload is given EIO, never "no such file", for what is concerned and for nothing
else; the mount goes on; the log tells the reason with a path or a hash.
"""

import os
import sqlite3
import zlib
from collections.abc import Callable

import pytest

from cvmfsexec.format.digest import ContentHash, ObjectKind
from cvmfsexec.format.names import path_hash
from tests.support.hostile_places import (
    LARGE,
    Place,
    hostile_place,
    publish_victim,
)
from tests.support.http_server import Corrupt, CutOff, Oversized, Stall, Status
from tests.support.published import FQRN, PublishedRepository

EIO = "Input/output error"
STILL_GOOD = "cat other; cat link; ls >/dev/null; stat -f . >/dev/null"

Spoil = Callable[[Place], object]


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> PublishedRepository:
    return publish_victim(tmp_path_factory.mktemp("victim"))


def check_failure(place: Place, script: str, reason: str) -> None:
    """Check that a command fails with EIO, and that nothing else does."""
    done = place.run(f"({script}) >/dev/null && echo done; cat other")
    assert "Traceback" not in done.stderr, done.stderr
    assert "done" not in done.stdout
    assert "other content\n" in done.stdout, done.stderr
    assert EIO in done.stderr
    assert "No such file" not in done.stderr
    told = [line for line in done.stderr.splitlines() if line.startswith("cvmfsexec: ")]
    assert told
    for line in told:
        assert line.startswith(f"cvmfsexec: {FQRN}: ")
        assert f"gave EIO ({EIO})" in line
    assert reason in place.log
    assert "Traceback" not in place.log
    assert f"ERROR {FQRN}: " in place.log


# Objects


def tamper_with_file(place: Place) -> None:
    path = place.repository.path_of(b"/file")
    place.repository.change(path, lambda stored: stored[:-1] + b"x")


def lose_file(place: Place) -> None:
    (place.repository.directory / place.repository.path_of(b"/file")).unlink()


def empty_file(place: Place) -> None:
    place.repository.write(place.repository.path_of(b"/file"), b"")


def set_file(place: Place, **cells: object) -> None:
    columns = ", ".join(f"{name} = :{name}" for name in cells)
    place.repository.execute(
        f"UPDATE catalog SET {columns} WHERE name = 'file'",  # noqa: S608
        cells,
    )


def publish_for_file(place: Place, stored: bytes, size: int) -> None:
    name = place.repository.put_stored(stored, ObjectKind.FILE)
    set_file(place, hash=name.digest, size=size)


def publish_a_bomb(place: Place) -> None:
    publish_for_file(place, zlib.compress(bytes(300_000_000), 9), 8)


def publish_a_bomb_of_its_size(place: Place) -> None:
    """The stored form is as small as it may be, the announced size is huge."""
    publish_for_file(place, zlib.compress(bytes(1_000_000)), 2**50)


def publish_no_stream(place: Place) -> None:
    publish_for_file(place, b"not zlib", 8)


def publish_a_cut_stream(place: Place) -> None:
    publish_for_file(place, zlib.compress(b"content\n")[:-4], 8)


def publish_a_stream_and_more(place: Place) -> None:
    publish_for_file(place, zlib.compress(b"content\n") + b"more", 8)


def misbehave(behaviour: Status | CutOff | Corrupt | Oversized | Stall) -> Spoil:
    def spoil(place: Place) -> None:
        path = place.repository.path_of(b"/file")
        place.server.misbehave(behaviour, path)

    return spoil


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (tamper_with_file, "is corrupt wherever it was fetched"),
        (lose_file, "no server has data/"),
        (empty_file, "is corrupt wherever it was fetched"),
        (publish_a_bomb, "more than"),
        (publish_a_bomb_of_its_size, "instead of 1125899906842624"),
        (publish_no_stream, "cannot decompress"),
        (publish_a_cut_stream, "cut off"),
        (publish_a_stream_and_more, "after the end"),
        (lambda place: set_file(place, size=7), "more than 7 bytes"),
        (lambda place: set_file(place, size=9), "8 bytes of content instead of 9"),
        (lambda place: set_file(place, size=2**62), "instead of 4611686018427387904"),
        (lambda place: set_file(place, hash=None), "has no content hash"),
        (lambda place: set_file(place, hash=b"short"), "digest of 5 bytes"),
        (lambda place: set_file(place, size=-1), "out of range"),
        (lambda place: set_file(place, size="many"), "wrong type"),
        (lambda place: set_file(place, flags=1), "disagrees with flags"),
        (lambda place: set_file(place, flags=4 | 0x700), "unknown hash algorithm"),
        (lambda place: set_file(place, flags=4 | 0x3800), "unknown compression"),
        (lambda place: set_file(place, flags=4 | 128 | 2048), "CVMFS_EXTERNAL_URL"),
        (lambda place: set_file(place, mode=0o040755), "disagrees with flags"),
        (lambda place: set_file(place, mtimens=10**9), "out of range"),
        (lambda place: set_file(place, uid=-1), "out of range"),
        (misbehave(Status(500)), "HTTP status 500"),
        (misbehave(CutOff(3)), "cut short"),
        (misbehave(Corrupt()), "is corrupt wherever it was fetched"),
        (misbehave(Oversized(10_000_000)), "more than"),
        (misbehave(Stall(3)), "too slow"),
    ],
)
def test_a_file_that_is_not_what_the_catalog_says(
    victim: PublishedRepository, spoil: Spoil, reason: str
) -> None:
    with hostile_place(victim, CVMFS_TIMEOUT_DIRECT="1") as place:
        spoil(place)
        check_failure(place, "cat file", reason)


def test_what_was_wrong_once_is_right_when_it_is_right(
    victim: PublishedRepository,
) -> None:
    with hostile_place(victim) as place:
        path = place.repository.path_of(b"/file")
        place.server.misbehave(Corrupt(), path, times=2)
        script = "cat file 2>/dev/null || echo failed; cat file"
        for _ in range(2):
            done = place.run(script)
            assert done.stdout.endswith("content\n")


def test_a_read_that_fails_asks_each_route_once(victim: PublishedRepository) -> None:
    with hostile_place(victim, CVMFS_READ_AHEAD="no") as place:
        path = place.repository.path_of(b"/file")
        place.server.misbehave(Status(500), path)
        assert EIO in place.run("cat file").stderr
        assert place.server.count(path) == 1, "the kernel asked twice"


def test_a_proxy_with_a_wrong_object_is_asked_past(
    victim: PublishedRepository,
) -> None:
    with hostile_place(victim) as place:
        place.server.misbehave(Corrupt(), place.repository.path_of(b"/file"), times=1)
        done = place.run("cat file")
    assert (done.returncode, done.stdout, done.stderr) == (0, "content\n", "")


def test_an_object_that_was_changed_in_the_cache_is_found_by_its_size(
    victim: PublishedRepository,
) -> None:
    with hostile_place(victim) as place:
        assert place.run("cat file").stdout == "content\n"
        name = place.repository.path_of(b"/file").removeprefix("data/")
        os.truncate(place.cache / name, 3)
        done = place.run("cat file")
    assert (done.returncode, done.stdout) == (0, "content\n")
    assert "has the wrong size; it is fetched again" in done.stderr


# Chunks


def chunk_number(number: int, change: Callable[[bytes], bytes]) -> Spoil:
    def spoil(place: Place) -> None:
        path = place.repository.chunk_paths(b"/large")[number]
        place.repository.change(path, change)

    return spoil


def in_chunks(sql: str) -> Spoil:
    """Return what changes the chunk table; ``:second`` is the second offset."""

    def edit(database: sqlite3.Connection) -> None:
        offsets = database.execute("SELECT offset FROM chunks ORDER BY 1").fetchall()
        (second,) = offsets[1]
        database.execute(sql, {"second": second} if ":second" in sql else {})

    return lambda place: place.repository.edit(edit)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (in_chunks("DELETE FROM chunks WHERE offset = :second"), "was expected"),
        (in_chunks("DELETE FROM chunks WHERE offset = 0"), "was expected"),
        (in_chunks("DELETE FROM chunks"), "without chunks"),
        (
            in_chunks(
                "DELETE FROM chunks WHERE offset = (SELECT max(offset) FROM chunks)"
            ),
            "chunks end at",
        ),
        (
            in_chunks("UPDATE chunks SET offset = offset - 1 WHERE offset = :second"),
            "was expected",
        ),
        (in_chunks("UPDATE chunks SET size = 0 WHERE offset = :second"), "0 bytes"),
        (in_chunks("UPDATE chunks SET size = -5 WHERE offset = :second"), "-5 bytes"),
        (in_chunks("UPDATE chunks SET size = size + 1"), "was expected"),
        (in_chunks("UPDATE chunks SET hash = NULL"), "without size or hash"),
        (in_chunks("UPDATE chunks SET hash = x'00'"), "without a hash"),
        (in_chunks("UPDATE chunks SET size = 'x'"), "without size"),
        (in_chunks("DROP TABLE chunks"), "without chunks"),
        (
            in_chunks("UPDATE catalog SET size = size + 1 WHERE name = 'large'"),
            "chunks end at",
        ),
    ],
)
def test_a_chunk_table_that_is_not_its_file(
    victim: PublishedRepository, spoil: Spoil, reason: str
) -> None:
    with hostile_place(victim) as place:
        spoil(place)
        check_failure(place, "cat large", reason)
        check_failure(place, "dd if=large bs=1 count=1 2>&1", reason)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda stored: stored[:-1] + b"x", "is corrupt wherever it was fetched"),
        (lambda stored: stored[:10], "is corrupt wherever it was fetched"),
        (lambda stored: stored[:0], "is corrupt wherever it was fetched"),
        (lambda stored: stored + b"more", "is corrupt wherever it was fetched"),
    ],
)
def test_a_chunk_that_is_not_its_hash(
    victim: PublishedRepository, change: Callable[[bytes], bytes], reason: str
) -> None:
    with hostile_place(victim) as place:
        chunk_number(2, change)(place)
        check_failure(place, "cat large", reason)


def test_what_lies_before_and_after_a_lost_chunk_can_be_read(
    victim: PublishedRepository,
) -> None:
    with hostile_place(victim) as place:
        lost = place.repository.chunk_paths(b"/large")[2]
        (place.repository.directory / lost).unlink()
        head = place.run("head -c 4096 large")
        tail = place.run("tail -c 4096 large")
    assert head.stdout.encode() == LARGE[:4096]
    assert tail.stdout.encode() == LARGE[-4096:]


# Nested catalogs


def tamper_with_nested(place: Place) -> None:
    path = place.repository.catalog_path(b"/nested")
    place.repository.change(path, lambda stored: stored[:-1] + b"x")


def lose_nested(place: Place) -> None:
    (place.repository.directory / place.repository.catalog_path(b"/nested")).unlink()


def publish_junk_for_nested(place: Place) -> None:
    place.repository.replace_catalog(b"SQLite format 3\0" + bytes(5000), b"/nested")


def publish_a_bomb_for_nested(place: Place) -> None:
    bomb = zlib.compress(bytes(300_000_000), 9)
    place.repository.replace_catalog(bytes(20_000), b"/nested", stored=bomb)


def publish_another_catalog_for_nested(place: Place) -> None:
    deep = place.repository.catalog(b"/nested/deep")
    place.repository.execute(
        "UPDATE nested_catalogs SET sha1 = :sha1, size = 0", {"sha1": str(deep)}
    )


def in_nested(sql: str) -> Spoil:
    return lambda place: place.repository.edit(
        lambda database: database.execute(sql), b"/nested"
    )


def in_root(sql: str) -> Spoil:
    return lambda place: place.repository.execute(sql)


def make_nested_a_view(place: Place) -> None:
    def replace_table(database: sqlite3.Connection) -> None:
        database.execute("ALTER TABLE catalog RENAME TO hidden")
        database.execute("CREATE VIEW catalog AS SELECT * FROM hidden")

    place.repository.edit(replace_table, b"/nested")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (tamper_with_nested, "is corrupt wherever it was fetched"),
        (lose_nested, "no server has data/"),
        (publish_junk_for_nested, "catalog "),
        (publish_a_bomb_for_nested, "more than"),
        (publish_another_catalog_for_nested, "is made for b'/nested/deep'"),
        (make_nested_a_view, "is not a plain table"),
        (in_root("DELETE FROM nested_catalogs"), "no nested catalog is registered"),
        (in_root("UPDATE nested_catalogs SET sha1 = ''"), "/nested"),
        (in_root("UPDATE nested_catalogs SET sha1 = 'x'"), "not a content hash"),
        (in_root("UPDATE nested_catalogs SET size = 1"), "more than"),
        (in_root("UPDATE nested_catalogs SET size = -1"), "without hash or size"),
        (in_root("UPDATE nested_catalogs SET size = 'x'"), "without hash or size"),
        (
            in_root("UPDATE nested_catalogs SET size = 9223372036854775807"),
            "the limit is",
        ),
        (
            in_nested("UPDATE properties SET value = '/x' WHERE key = 'root_prefix'"),
            "is made for b'/x'",
        ),
        (
            in_nested("UPDATE properties SET value = '9.9' WHERE key = 'schema'"),
            "unknown catalog schema",
        ),
        (in_nested("DROP TABLE catalog"), "is not a catalog"),
    ],
)
def test_a_nested_catalog_that_is_none(
    victim: PublishedRepository, spoil: Spoil, reason: str
) -> None:
    with hostile_place(victim) as place:
        spoil(place)
        check_failure(place, "cat nested/leaf", reason)
        check_failure(place, "ls nested", reason)
        check_failure(place, "stat nested/nothing", reason)


def test_a_catalog_that_is_nested_in_itself(victim: PublishedRepository) -> None:
    """No catalog holds its own hash; but one can be put where another belongs."""
    with hostile_place(victim) as place:
        nested = place.repository.catalog(b"/nested")
        place.repository.edit(
            lambda database: database.execute(
                "UPDATE nested_catalogs SET sha1 = ?, size = 0", (str(nested),)
            ),
            b"/nested",
        )
        check_failure(place, "cat nested/deep/far", "is made for b'/nested'")
        check_failure(place, "find nested", "is made for b'/nested'")


def test_a_root_catalog_nested_in_another(victim: PublishedRepository) -> None:
    with hostile_place(victim) as place:
        root = place.repository.catalog()
        place.repository.execute(
            "UPDATE nested_catalogs SET sha1 = :sha1, size = 0", {"sha1": str(root)}
        )
        check_failure(place, "find nested", "is made for b''")


# Names


NAMES = {
    "slash": b"a/b",
    "dot": b".",
    "dots": b"..",
    "NUL": b"a\0b",
    "empty": b"",
    "long": b"x" * 256,
    "up": b"../up",
    "absolute": b"/etc/passwd",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
@pytest.mark.parametrize("place_of_it", ["root", "nested"])
def test_a_name_that_no_file_can_have(
    victim: PublishedRepository, name: bytes, place_of_it: str
) -> None:
    mountpoint = b"" if place_of_it == "root" else b"/nested"
    top = path_hash(mountpoint)

    def rename(database: sqlite3.Connection) -> None:
        database.execute(
            "INSERT INTO catalog (md5path_1, md5path_2, parent_1, parent_2, name,"
            " hardlinks, size, mode, mtime, flags, symlink, uid, gid) VALUES"
            " (1, 2, ?, ?, CAST(? AS TEXT), 1, 4096, 16877, 0, 1, '', 0, 0)",
            (*top, name),
        )

    with hostile_place(victim) as place:
        place.repository.edit(rename, mountpoint)
        directory = "." if place_of_it == "root" else "nested"
        check_failure(place, f"ls {directory}", "forbidden entry name")
        check_failure(place, f"find {directory}", "forbidden entry name")
        # What has a name of its own is there all the same.
        assert place.run("cat nested/leaf").stdout == "leaf\n"


def test_a_name_under_the_hash_of_another_is_refused(
    victim: PublishedRepository,
) -> None:
    with hostile_place(victim) as place:
        place.repository.execute("UPDATE catalog SET name = 'told' WHERE name = 'file'")
        check_failure(place, "cat file", "'told'")


def test_directories_that_hold_each_other(victim: PublishedRepository) -> None:
    """A walk ends, whatever it is told."""
    with hostile_place(victim) as place:
        inner, outer = path_hash(b"/loop/inner"), path_hash(b"/loop")

        def close_a_circle(database: sqlite3.Connection) -> None:
            for own, above, name in (
                (outer, path_hash(b""), "loop"),
                (inner, outer, "inner"),
                (path_hash(b"/x"), inner, "loop"),
                (path_hash(b"/y"), path_hash(b"/x"), "inner"),
            ):
                database.execute(
                    "INSERT INTO catalog (md5path_1, md5path_2, parent_1, parent_2,"
                    " hardlinks, size, mode, mtime, flags, name, symlink, uid, gid)"
                    " VALUES (?, ?, ?, ?, 2, 4096, 16877, 0, 1, ?, '', 0, 0)",
                    (*own, *above, name),
                )

        place.repository.edit(close_a_circle)
        done = place.run("find loop 2>/dev/null | wc -l; cat other")
    count, rest = done.stdout.split("\n", 1)
    assert int(count) < 10
    assert rest == "other content\n"


# Other things in catalogs that are harmless to those who expect them


@pytest.mark.parametrize("value", [2**63 - 1, -(2**63), None])
def test_huge_counters_do_no_harm(
    victim: PublishedRepository, value: int | None
) -> None:
    with hostile_place(victim) as place:
        place.repository.execute("UPDATE statistics SET value = :v", {"v": value})
        done = place.run(f"df -i . >/dev/null && df . >/dev/null && {STILL_GOOD}")
    assert done.stdout == "other content\ncontent\n", done.stderr


def test_counters_that_are_none_are_told(victim: PublishedRepository) -> None:
    with hostile_place(victim) as place:
        place.repository.execute("UPDATE statistics SET value = 'many'")
        check_failure(place, "df .", "is b'many'")


@pytest.mark.parametrize(
    "cells",
    [
        "mtime = 9223372036854775807",
        "mtime = -9223372036854775808",
        "hardlinks = -1",
        "hardlinks = 9223372036854775807",
        "uid = 4294967295, gid = 4294967295",
        "mode = 33279",
        "xattr = x'ffffffff'",
        "xattr = x'0103'",
        "symlink = 'a link that is none'",
    ],
)
def test_extreme_values_are_shown(victim: PublishedRepository, cells: str) -> None:
    with hostile_place(victim) as place:
        place.repository.execute(f"UPDATE catalog SET {cells} WHERE name = 'file'")  # noqa: S608
        done = place.run(f"stat -c %n file; ls -l file >/dev/null; {STILL_GOOD}")
    assert done.stdout == "file\nother content\ncontent\n", done.stderr
    assert done.stderr == ""


def test_a_link_as_long_as_can_be(victim: PublishedRepository) -> None:
    with hostile_place(victim) as place:
        place.repository.execute(
            "UPDATE catalog SET symlink = :target WHERE name = 'link'",
            {"target": "$(X:-" + "y" * 100_000 + ")"},
        )
        done = place.run("readlink link; cat link; cat other")
    assert done.stdout.endswith("other content\n")
    assert "Traceback" not in done.stderr


def test_names_with_control_characters_do_not_forge_log_lines(
    victim: PublishedRepository,
) -> None:
    name = "x\n2026-01-01 ERROR forged"
    with hostile_place(victim) as place:
        digest = ContentHash.of(b"nowhere").digest
        own, top = path_hash(b"/" + name.encode()), path_hash(b"")
        place.repository.edit(
            lambda database: database.execute(
                "INSERT INTO catalog (md5path_1, md5path_2, parent_1, parent_2,"
                " hardlinks, hash, size, mode, mtime, flags, name, symlink, uid, gid)"
                " VALUES (?, ?, ?, ?, 1, ?, 5, 33188, 0, 4, ?, '', 0, 0)",
                (*own, *top, digest, name),
            )
        )
        done = place.run("cat x*; cat other")
        assert done.stdout == "other content\n"
        assert "forged" in place.log
        assert all(FQRN in line for line in place.log.splitlines())


def test_a_directory_of_very_many_entries_is_listed(
    victim: PublishedRepository,
) -> None:
    count = 30_000

    def fill(database: sqlite3.Connection) -> None:
        top = path_hash(b"/many")
        rows = [(*top, *path_hash(b""), 16877, 1, "many")]
        rows += [
            (*path_hash(b"/many/%d" % n), *top, 33188, 4, str(n)) for n in range(count)
        ]
        database.executemany(
            "INSERT INTO catalog (md5path_1, md5path_2, parent_1, parent_2,"
            " mode, flags, name, hardlinks, size, mtime, symlink, uid, gid)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, 1, 1, 0, '', 0, 0)",
            rows,
        )

    with hostile_place(victim) as place:
        place.repository.edit(fill)
        done = place.run("ls many | sort -un | wc -l")
    assert done.stdout == f"{count}\n"
