from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.catalog.reader import Catalog
from cvmfsexec.format.dirent import Flag
from cvmfsexec.format.names import path_hash
from cvmfsexec.vfs.succession import (
    SMALL_FILE_BYTES_MAX,
    SmallFile,
    small_files_after,
    small_files_of,
)
from tests.support.catalog_files import (
    NEWEST,
    Cells,
    directory,
    entry,
    link,
    write_catalog,
)

TREE = [
    entry(b"/a", size=1),
    directory(b"/d"),
    entry(b"/z", size=2),
    directory(b"/e"),
    entry(b"/d/1", size=3),
    directory(b"/d/sub"),
    entry(b"/d/2", size=4),
    entry(b"/d/sub/x", size=5),
    entry(b"/e/last", size=6),
]
"""Sizes tell the files apart."""


def catalog_of(place: Path, rows: list[Cells]) -> Catalog:
    path = place / "catalog"
    path.unlink(missing_ok=True)
    write_catalog(path, NEWEST, catalog=[directory(b""), *rows])
    return Catalog.open(str(path))


def sizes(files: Iterator[SmallFile | None]) -> list[int | None]:
    return [file.request.size_bytes for file in files if file is not None]


def row_of(catalog: Catalog, path: bytes) -> int:
    found = catalog.find(path_hash(path))
    assert found is not None
    return found.row


def test_files_of_one_directory_come_in_the_order_of_rows(tmp_path: Path) -> None:
    catalog = catalog_of(tmp_path, TREE)
    assert sizes(small_files_of(catalog, path_hash(b""))) == [1, 2]
    assert sizes(small_files_of(catalog, path_hash(b"/d"))) == [3, 4]


@pytest.mark.parametrize(
    ("place", "after", "expected"),
    [
        (b"", b"/a", [3, 5, 4, 2, 6]),
        (b"", b"/z", [6]),
        (b"/d", b"/d/1", [5, 4, 2, 6]),
        (b"/d/sub", b"/d/sub/x", [4, 2, 6]),
        (b"/e", b"/e/last", []),
    ],
)
def test_files_come_as_a_walk_meets_them(
    tmp_path: Path, place: bytes, after: bytes, expected: list[int]
) -> None:
    catalog = catalog_of(tmp_path, TREE)
    row = row_of(catalog, after)
    assert sizes(small_files_after(catalog, path_hash(place), row)) == expected


def test_what_is_no_small_file_of_one_object_is_left_out(tmp_path: Path) -> None:
    rows = [
        entry(b"/empty", size=0),
        entry(b"/large", size=SMALL_FILE_BYTES_MAX + 1),
        entry(b"/chunked", size=10, flags=Flag.FILE | Flag.CHUNKED, hash=None),
        entry(b"/external", size=10, flags=Flag.FILE | Flag.EXTERNAL),
        entry(b"/hidden", size=10, flags=Flag.FILE | Flag.HIDDEN),
        entry(b"/without", size=10, hash=None),
        entry(b"/null", size=10, hash=bytes(20)),
        link(b"/link", b"target"),
        directory(b"/nested", flags=Flag.DIRECTORY | Flag.NESTED_MOUNTPOINT),
        entry(b"/nested/file", size=10),
        directory(b"/hidden-too", flags=Flag.DIRECTORY | Flag.HIDDEN),
        entry(b"/fine", size=7),
    ]
    catalog = catalog_of(tmp_path, rows)
    assert sizes(small_files_after(catalog, path_hash(b""), 0)) == [7]


def test_a_nested_catalog_ends_at_its_top(tmp_path: Path) -> None:
    path = tmp_path / "catalog"
    rows = [directory(b"/n"), entry(b"/n/a", size=1), entry(b"/n/b", size=2)]
    properties = {"root_prefix": b"/n"}
    write_catalog(path, NEWEST, properties=properties, catalog=rows)
    catalog = Catalog.open(str(path))
    assert sizes(small_files_after(catalog, path_hash(b"/n"), 0)) == [1, 2]


def test_many_files_are_all_found(tmp_path: Path) -> None:
    rows = [entry(b"/%04d" % number, size=1 + number) for number in range(300)]
    catalog = catalog_of(tmp_path, rows)
    found = sizes(small_files_of(catalog, path_hash(b"")))
    assert found == list(range(1, 301))


@given(
    parents=st.lists(st.integers(0, 6), min_size=1, max_size=12),
    start=st.integers(0, 6),
)
def test_odd_trees_end_or_tell_that_they_go_on(
    tmp_path_factory: pytest.TempPathFactory, parents: list[int], start: int
) -> None:
    """Directories that lie in each other, or in themselves."""
    names = [b"/%d" % number for number in range(7)]
    rows: list[Cells] = []
    for number, parent in enumerate(parents):
        above = path_hash(names[parent])
        cells = directory(names[number % 7] if number < 7 else b"/x%d" % number)
        rows.append({**cells, "parent_1": above.md5_1, "parent_2": above.md5_2})
    catalog = catalog_of(tmp_path_factory.mktemp("odd"), rows)
    steps = islice(small_files_after(catalog, path_hash(names[start]), 0), 1000)
    assert list(steps).count(None) <= 1000
