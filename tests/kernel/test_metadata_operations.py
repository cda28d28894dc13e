"""How many metadata operations each kind of cache needs for a thousand small files."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from cvmfsexec.cache.pack_tidying import PACKS_MAX
from cvmfsexec.cache.pack_writer import DIRECTORY
from tests.support.metadata_operations import OBJECTS, PACKED_MAX, metadata_operations

pytestmark = pytest.mark.kernel

ONE_FILE_EACH_MIN = 4000


def test_a_packed_cache_asks_little_of_its_file_system(tmp_path: Path) -> None:
    cache = tmp_path / "packed"
    cache.mkdir(mode=0o700)
    fetched, cold = metadata_operations("packed", cache, tmp_path / "cold")
    assert fetched == OBJECTS
    again, warm = metadata_operations("packed", cache, tmp_path / "warm")
    assert again == 0
    assert (cold <= PACKED_MAX, warm <= PACKED_MAX) == (True, True), (cold, warm)


def test_so_do_sessions_one_after_the_other(tmp_path: Path) -> None:
    """Each fetches what none had before; the last one finds it all."""
    cache = tmp_path / "packed"
    cache.mkdir(mode=0o700)
    counts = []
    for start in range(0, 4 * OBJECTS, OBJECTS):
        numbers = range(start, start + OBJECTS)
        fetched, count = metadata_operations(
            "packed", cache, tmp_path / "cold", numbers
        )
        assert fetched == OBJECTS
        counts.append(count)
    assert len(list((cache / DIRECTORY).iterdir())) == 2
    fetched, count = metadata_operations(
        "packed", cache, tmp_path / "warm", range(4 * OBJECTS)
    )
    assert fetched == 0
    assert max(*counts, count) <= PACKED_MAX, (counts, count)


def test_packs_of_other_nodes_cost_little(tmp_path: Path) -> None:
    """As many as are left before they are put together."""
    cache = tmp_path / "packed"
    cache.mkdir(mode=0o700)
    for node in range(PACKS_MAX):
        numbers = range(node * 10, node * 10 + 10)
        metadata_operations("packed", cache, tmp_path / "other", numbers)
        for path in (cache / DIRECTORY).glob("????????????????.*"):
            if not path.name.startswith("0000"):
                path.rename(path.with_name(f"{node:08x}{path.name[8:]}"))
    fetched, cold = metadata_operations(
        "packed", cache, tmp_path / "cold", range(1000, 2000)
    )
    assert fetched == OBJECTS
    fetched, warm = metadata_operations(
        "packed", cache, tmp_path / "warm", range(PACKS_MAX * 10)
    )
    assert fetched == 0
    assert (cold <= PACKED_MAX, warm <= PACKED_MAX) == (True, True), (cold, warm)


def test_packs_that_neighbours_have_left_cost_little(tmp_path: Path) -> None:
    """As many jobs as ran at once on the node leave as many packs."""
    cache = tmp_path / "packed"
    cache.mkdir(mode=0o700)
    away = tmp_path / "away"  # where the next job does not go on with a pack
    away.mkdir()
    for job in range(4):
        numbers = range(job * 10, job * 10 + 10)
        metadata_operations("packed", cache, tmp_path / "other", numbers)
        for path in (cache / DIRECTORY).iterdir():
            path.rename(away / path.name)
    for path in away.iterdir():
        path.rename(cache / DIRECTORY / path.name)
    assert len(list((cache / DIRECTORY).iterdir())) == 4 * 2
    fetched, cold = metadata_operations(
        "packed", cache, tmp_path / "cold", range(1000, 2000)
    )
    assert (fetched, cold <= PACKED_MAX) == (OBJECTS, True), cold


def test_neighbours_at_work_cost_little(tmp_path: Path) -> None:
    """Jobs that start at once fetch each object once, and tell each other cheaply."""
    cache = tmp_path / "packed"
    cache.mkdir(mode=0o700)
    with ThreadPoolExecutor(4) as pool:
        traces = [tmp_path / f"trace{number}" for number in range(4)]
        done = list(pool.map(partial(metadata_operations, "packed", cache), traces))
    counts = [count for _, count in done]
    assert sum(fetched for fetched, _ in done) <= OBJECTS * 1.1
    assert max(counts) <= PACKED_MAX, counts


def test_one_file_for_each_object_asks_for_much_more(tmp_path: Path) -> None:
    cache = tmp_path / "posix"
    cache.mkdir(mode=0o700)
    fetched, cold = metadata_operations("posix", cache, tmp_path / "cold")
    assert fetched == OBJECTS
    assert cold > ONE_FILE_EACH_MIN
