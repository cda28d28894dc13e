"""What ``df`` shows."""

import os
from pathlib import Path

import pytest

from cvmfsexec.cache.memory import MemoryStore
from cvmfsexec.client.file_system_statistics import file_system_statistics
from cvmfsexec.format.digest import ContentHash
from cvmfsexec.vfs.attributes import FilesystemStatistics
from tests.support.catalog_files import Cells, directory, nested
from tests.support.catalog_repository import NESTED_POINT, CatalogRepository

MIB_BLOCKS = 2048


def counters(own: int, below: int) -> list[Cells]:
    return [
        {"counter": f"{half}_{kind}", "value": value}
        for half, value in (("self", own), ("subtree", below))
        for kind in ("regular", "symlink", "special", "dir")
    ]


@pytest.fixture
def made(tmp_path: Path) -> CatalogRepository:
    return CatalogRepository(tmp_path)


def store_of(size_bytes: int) -> MemoryStore:
    store = MemoryStore()
    with store.transaction() as transaction:
        transaction.write(bytes(size_bytes))
        os.close(transaction.commit(ContentHash.of(b"x")))
    return store


@pytest.mark.parametrize(
    ("limit_mb", "used_bytes", "blocks", "free_blocks"),
    [
        (4, 0, 4 * MIB_BLOCKS, 4 * MIB_BLOCKS),
        (4, 1 << 20, 4 * MIB_BLOCKS, 3 * MIB_BLOCKS),
        (1, 3 << 20, MIB_BLOCKS, 0),
        (0, 1 << 20, 0, 0),
    ],
    ids=["empty", "part", "more than full", "no limit"],
)
def test_the_limit_of_the_cache_is_the_size(
    made: CatalogRepository,
    limit_mb: int,
    used_bytes: int,
    blocks: int,
    free_blocks: int,
) -> None:
    tree = made.tree(made.add_catalog())
    found = file_system_statistics(tree, store_of(used_bytes), limit_mb)()
    assert (found.blocks, found.free_blocks) == (blocks, free_blocks)


def test_entries_are_counted_and_those_of_open_catalogs_are_used(
    made: CatalogRepository,
) -> None:
    inner = made.add_catalog(b"/n", statistics=counters(10, 0))
    root = made.add_catalog(
        catalog=[directory(b"/n", flags=NESTED_POINT)],
        nested_catalogs=[nested(b"/n", str(inner), 0)],
        statistics=counters(5, 10),
    )
    tree = made.tree(root)
    statfs = file_system_statistics(tree, MemoryStore(), 0)
    assert statfs() == FilesystemStatistics(0, 0, 60, 40)
    tree.catalog(tree.child(tree.root, b"/n"))
    assert statfs() == FilesystemStatistics(0, 0, 60, 0)


@pytest.mark.parametrize("own", [2**63 - 1, 2**62, -1, -(2**63)])
@pytest.mark.parametrize("below", [2**63 - 1, 0, -(2**63)])
def test_wrong_counters_do_no_harm(
    made: CatalogRepository, own: int, below: int
) -> None:
    root = made.add_catalog(statistics=counters(own, below))
    statfs = file_system_statistics(made.tree(root), MemoryStore(), 0)
    files, free_files = statfs()[2:]
    assert 0 <= free_files < 1 << 64
    assert 0 <= files < 1 << 64
