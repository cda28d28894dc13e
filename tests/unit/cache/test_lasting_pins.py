"""A pin outlives the bytes that it was made for."""

import os
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cvmfsexec.cache import lasting_pins
from cvmfsexec.cache.directory import DirectoryStore
from cvmfsexec.cache.faults import Problem, Remedy
from cvmfsexec.cache.inspection import PARTS, Inspector
from cvmfsexec.format.digest import ContentHash
from tests.support.store_contract import put

CONTENT = b"".join(b"line %d\n" % number for number in range(2_000))
NAME = ContentHash.of(zlib.compress(CONTENT, 6))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def store(root: Path) -> Iterator[DirectoryStore]:
    """Return a store with an object that is pinned."""
    with closing(DirectoryStore.open(str(root))) as store:
        os.close(put(store, NAME, CONTENT))
        with closing_directory(root) as directory:
            assert lasting_pins.pin_for_good(directory, NAME)
        yield store


class closing_directory:  # noqa: N801 -- used as contextlib.closing is
    """The descriptor of a directory for the time of a ``with``."""

    def __init__(self, root: Path) -> None:
        self._descriptor = os.open(root, os.O_RDONLY)

    def __enter__(self) -> int:
        return self._descriptor

    def __exit__(self, *_error: object) -> None:
        os.close(self._descriptor)


def is_pinned(root: Path) -> bool:
    with closing_directory(root) as directory:
        assert lasting_pins.pinned_for_good(directory) == {NAME}
    return (root / NAME.cache_path()).stat().st_nlink == 2


def pinned_file(root: Path) -> Path:
    return root / lasting_pins.DIRECTORY / str(NAME)


def inspect(root: Path) -> list[tuple[Problem, bool]]:
    remedy = Remedy(repairs=True)
    with closing(Inspector(str(root), remedy)) as inspector:
        faults = [fault for part in PARTS for fault in inspector.inspect(part).faults]
    return [(fault.problem, fault.is_fixed) for fault in faults]


def test_what_is_fetched_again_is_pinned_again(
    root: Path, store: DirectoryStore
) -> None:
    os.truncate(root / NAME.cache_path(), 7)
    store.remove(NAME)
    assert pinned_file(root).stat().st_size == 0
    os.close(put(store, NAME, CONTENT))
    assert is_pinned(root)
    assert inspect(root) == []


@pytest.mark.usefixtures("store")
def test_whoever_fetches_it_pins_it(root: Path) -> None:
    os.truncate(root / NAME.cache_path(), 7)
    assert inspect(root) == [(Problem.CORRUPT, True)]
    assert inspect(root) == []
    with closing(DirectoryStore.open(str(root))) as other:
        os.close(put(other, NAME, CONTENT))
    assert is_pinned(root)


def test_what_others_find_damaged_is_pinned_by_who_was_there_before(
    root: Path, store: DirectoryStore
) -> None:
    os.close(put(store, ContentHash.of(zlib.compress(b"", 6)), b""))
    os.truncate(root / NAME.cache_path(), 7)
    assert inspect(root) == [(Problem.CORRUPT, True)]
    os.close(put(store, NAME, CONTENT))
    assert is_pinned(root)


def test_what_has_lost_its_place_is_pinned_when_it_is_stored(
    root: Path, store: DirectoryStore
) -> None:
    (root / NAME.cache_path()).unlink()
    os.close(put(store, NAME, CONTENT))
    assert is_pinned(root)


@pytest.mark.usefixtures("store")
def test_what_only_the_pin_has_kept_gets_its_place_again(root: Path) -> None:
    (root / NAME.cache_path()).unlink()
    (root / NAME.cache_path()).parent.rmdir()
    assert inspect(root) == [(Problem.LOST_PIN, True)]
    assert (root / NAME.cache_path()).read_bytes() == CONTENT
    assert is_pinned(root)


@pytest.mark.usefixtures("store")
def test_damage_that_only_the_pin_has_kept_goes(root: Path) -> None:
    (root / NAME.cache_path()).unlink()
    os.truncate(pinned_file(root), 7)
    assert inspect(root) == [(Problem.CORRUPT, True)]
    assert pinned_file(root).stat().st_size == 0
    assert inspect(root) == []


def test_a_pin_of_another_file_is_made_anew(root: Path, store: DirectoryStore) -> None:
    (root / NAME.cache_path()).unlink()
    os.truncate(pinned_file(root), 7)
    with closing_directory(root) as directory:
        lasting_pins.unpin(directory, NAME)
    os.close(put(store, NAME, CONTENT))
    pinned_file(root).write_bytes(b"else")
    assert inspect(root) == [(Problem.LOST_PIN, True)]
    assert is_pinned(root)


@pytest.mark.usefixtures("store")
def test_what_is_pinned_and_no_file_is_removed(root: Path) -> None:
    pinned_file(root).unlink()
    os.mkfifo(pinned_file(root))
    assert inspect(root) == [(Problem.WRONG_TYPE, True)]
    assert not pinned_file(root).exists()


@pytest.mark.usefixtures("store")
def test_a_wish_ends_with_its_pin(root: Path) -> None:
    os.truncate(root / NAME.cache_path(), 7)
    inspect(root)
    with closing_directory(root) as directory:
        assert lasting_pins.unpin(directory, NAME)
        assert list(lasting_pins.wished(directory)) == []
