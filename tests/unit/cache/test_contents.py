"""One scan of a cache directory; and who gets by without any."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cvmfsexec.cache import ledger
from cvmfsexec.cache.contents import StoredObject, object_files, stored_objects
from cvmfsexec.cache.directory import DirectoryStore
from cvmfsexec.cache.lasting_pins import pin_for_good
from cvmfsexec.format.digest import ContentHash, HashAlgorithm
from tests.support.store_contract import CONTENT, NAME, put


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def store(root: Path) -> Iterator[DirectoryStore]:
    store = DirectoryStore.open(str(root), 10**6)
    yield store
    store.close()


@pytest.fixture
def directory(store: DirectoryStore, root: Path) -> Iterator[int]:  # noqa: ARG001
    descriptor = os.open(root, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Note each look into a directory."""
    looks: list[object] = []

    def noting(real: Callable[..., Any]) -> Callable[..., Any]:
        def look(*arguments: object) -> object:
            looks.append(arguments)
            return real(*arguments)

        return look

    for name in ("scandir", "listdir"):
        monkeypatch.setattr(os, name, noting(getattr(os, name)))
    return looks


def test_every_object_is_told_with_its_facts(
    store: DirectoryStore, root: Path, directory: int
) -> None:
    names = [NAME._replace(algorithm=algorithm) for algorithm in HashAlgorithm]
    for number, name in enumerate(names):
        os.close(put(store, name, CONTENT * number))
        os.utime(root / name.cache_path(), ns=(5, 1000 + number))
    assert pin_for_good(directory, names[2])
    found = sorted(
        stored_objects(directory, {names[1]}), key=lambda one: one.size_bytes
    )
    assert found == [
        StoredObject(names[0], 0, 1000, is_volatile=False, is_pinned=False),
        StoredObject(names[1], 31, 1001, is_volatile=False, is_pinned=True),
        StoredObject(names[2], 62, 1002, is_volatile=False, is_pinned=True),
    ]


def test_what_is_no_object_is_passed_over(root: Path, directory: int) -> None:
    place = root / "ab"
    place.mkdir()
    (place / ("0" * 38)).write_bytes(b"an object")
    (place / ("1" * 38)).symlink_to("0" * 38)
    (place / ("2" * 38)).mkdir()
    for name in (
        "0" * 37,
        "0" * 39,
        "A" * 38,
        "0" * 38 + "-md5",
        "fetchab",
        "0" * 38 + "T",
    ):
        (place / name).write_bytes(b"none")
    assert [name for name, _ in object_files(directory, "ab")] == ["0" * 38]
    assert object_files(directory, "cd") == []
    (root / "ef").write_bytes(b"no directory")
    assert object_files(directory, "ef") == []


def test_an_object_that_is_removed_meanwhile_is_passed_over(
    store: DirectoryStore, directory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        os.close(put(store, ContentHash(bytes([7] * 19 + [number])), CONTENT))
    real = os.scandir

    def scan_and_remove(descriptor: int) -> Any:  # noqa: ANN401
        entries = real(descriptor)
        store.remove(ContentHash(bytes([7] * 19 + [1])))
        return entries

    monkeypatch.setattr(os, "scandir", scan_and_remove)
    assert len(object_files(directory, "07")) == 2


def test_no_start_looks_at_objects(
    store: DirectoryStore, root: Path, looks: list[object]
) -> None:
    for number in range(300):
        os.close(put(store, ContentHash.of(b"%d" % number), CONTENT))
    for limit in (0, 10**6):
        DirectoryStore.open(str(root), limit).close()
    assert looks == []


def test_a_start_without_a_ledger_looks_at_some(
    store: DirectoryStore,
    root: Path,
    looks: list[object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for number in range(600):
        os.close(put(store, ContentHash.of(b"%d" % number), CONTENT))
    monkeypatch.setattr(
        "cvmfsexec.cache.usage.estimate_usage.__kwdefaults__", {"enough_objects": 100}
    )
    (root / ledger.FILE_NAME).unlink()
    other = DirectoryStore.open(str(root), 10**6)
    assert 0 < len(looks) < 128
    assert other.used_bytes() == pytest.approx(600 * len(CONTENT), rel=0.5)
    other.close()


def test_no_insertion_looks_at_objects_unless_the_limit_is_reached(
    store: DirectoryStore, looks: list[object]
) -> None:
    for number in range(300):
        os.close(put(store, ContentHash.of(b"%d" % number), bytes(3000)))
    assert looks == []
    for number in range(300, 340):
        os.close(put(store, ContentHash.of(b"%d" % number), bytes(3000)))
    assert 256 < len(looks) <= 2 * 256
