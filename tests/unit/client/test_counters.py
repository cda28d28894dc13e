"""Counters as text."""

from cvmfsexec.catalog.schema import COUNTER_NAMES
from cvmfsexec.client.counters import (
    NAMES,
    counter_lines,
    entry_count,
    own_entry_count,
)

COUNTERS = {
    name: (1 if name.startswith("self_") else 100) * (number + 1)
    for number, name in enumerate(COUNTER_NAMES)
}


def total(name: str) -> int:
    return COUNTERS[f"self_{name}"] + COUNTERS[f"subtree_{name}"]


def test_there_are_twelve_in_alphabetical_order() -> None:
    lines = counter_lines(COUNTERS).splitlines()
    assert [line.split(",")[0] for line in lines] == sorted(NAMES) == list(NAMES)
    assert len(lines) == 12


def test_a_catalog_counts_with_all_below_it() -> None:
    for line in counter_lines(COUNTERS).splitlines():
        name, value = line.split(",")
        assert int(value) == total(name)


def test_entries_are_files_links_directories_and_the_rest() -> None:
    kinds = ("regular", "symlink", "special", "dir")
    assert entry_count(COUNTERS) == sum(map(total, kinds))
    assert own_entry_count(COUNTERS) == sum(COUNTERS[f"self_{k}"] for k in kinds)


def test_all_that_catalogs_have_is_shown() -> None:
    assert {f"{half}_{name}" for half in ("self", "subtree") for name in NAMES} == set(
        COUNTER_NAMES
    )
