"""Directories that nobody manages, and that are lost under those who use them."""

import errno
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import pytest

from cvmfsexec import log
from cvmfsexec.cache import packs, unmanaged
from cvmfsexec.cache.alien import AlienStore
from cvmfsexec.cache.packed import PackedStore
from cvmfsexec.format.digest import ContentHash
from tests.support.network_files import files_of_a_server
from tests.support.store_contract import content_of, put
from tests.support.system_calls import fail_calls

Store = PackedStore | AlienStore
SMALL, LARGE = 1000, 600_000


@pytest.fixture(autouse=True)
def every_look_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "OWN_CHECK_S", 0.0)
    monkeypatch.setattr(unmanaged, "LOOK_S", 0.0)


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    said: list[str] = []
    monkeypatch.setattr(log, "warning", lambda text, *rest: said.append(text % rest))
    return said


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "top").mkdir()
    return tmp_path / "top/cache"


@contextmanager
def packed(place: Path) -> Iterator[PackedStore]:
    with closing(PackedStore.open(str(place))) as store:
        yield store


@contextmanager
def alien(place: Path) -> Iterator[AlienStore]:
    workspace = place.parent.parent / "workspace"
    with closing(AlienStore.open(str(place), str(workspace))) as store:
        yield store


Opening = Callable[[Path], AbstractContextManager[Store]]
kinds = pytest.mark.parametrize("opened", [packed, alien])
sizes = pytest.mark.parametrize("size", [SMALL, LARGE], ids=["small", "large"])


def name(number: int) -> ContentHash:
    return ContentHash.of(b"%d" % number)


def store_one(store: Store, number: int, size: int = SMALL) -> None:
    """Fetch an object as sessions do."""
    with store.claim(name(number), patience_s=0):
        content = bytes([number]) * size
        assert content_of(put(store, name(number), content)) == content


def has_one(store: Store, number: int, size: int = SMALL) -> bool:
    descriptor = store.open_object(name(number))
    if descriptor is None:
        return False
    assert content_of(descriptor) == bytes([number]) * size
    return True


def remove(place: Path) -> None:
    shutil.rmtree(place)


def remove_parents(place: Path) -> None:
    shutil.rmtree(place.parent)


def rename_and_remove(place: Path) -> None:
    place.rename(place.with_name("away"))
    shutil.rmtree(place.with_name("away"))


def replace(place: Path) -> None:
    place.rename(place.with_name("away"))
    place.mkdir(mode=0o700)


@kinds
@sizes
@pytest.mark.parametrize("lose", [remove, remove_parents, rename_and_remove, replace])
def test_a_directory_that_is_lost_begins_anew(
    place: Path,
    warnings: list[str],
    opened: Opening,
    lose: Callable[[Path], None],
    size: int,
) -> None:
    with opened(place) as store, opened(place) as other:
        for number in (1, 2):
            store_one(store, number, size)
        assert has_one(other, 1, size)
        for time in range(3):
            lose(place)
            for one in (store, other):
                for number in range(3):
                    has_one(one, number, size)
            store_one(store, 10 + time, size)
            store_one(other, 20 + time, size)
            assert has_one(store, 10 + time, size)
            with opened(place) as newcomer:
                assert has_one(newcomer, 10 + time, size)
                assert has_one(newcomer, 20 + time, size)
                assert not has_one(newcomer, 1, size)
            shutil.rmtree(place.with_name("away"), ignore_errors=True)
        assert len(warnings) == 2 * (time + 1)
        assert {text.partition(f" {place} ")[2] for text in warnings} == {
            "was removed, and begins anew"
        }


@kinds
@sizes
def test_what_another_node_removed_begins_anew(
    place: Path, warnings: list[str], opened: Opening, size: int
) -> None:
    """Its file server says so with another error."""
    with files_of_a_server(), opened(place) as store:
        store_one(store, 1, size)
        shutil.rmtree(place)
        has_one(store, 1, size)
        store_one(store, 2, size)
        store_one(store, 3, size)
        with opened(place) as newcomer:
            assert has_one(newcomer, 2, size)
            assert has_one(newcomer, 3, size)
    assert len(warnings) == 1


@kinds
@sizes
def test_what_cannot_be_made_again_is_told_once(
    place: Path, warnings: list[str], opened: Opening, size: int
) -> None:
    with opened(place) as store:
        store_one(store, 1, size)
        shutil.rmtree(place)
        place.touch()
        for number in (1, 2, 3):
            has_one(store, number, size)
            store_one(store, number, size)
        assert len(warnings) == 1
        assert "the directory was removed; what does not fit" in warnings[0]
        place.unlink()
        store._refusals._rests_until_s = 0.0  # a minute later
        store_one(store, 4, size)
        with opened(place) as newcomer:
            assert has_one(newcomer, 4, size)


def test_a_directory_of_others_does_not_take_its_place(
    place: Path, warnings: list[str]
) -> None:
    """Who may write the parent could otherwise decide what programs run."""
    with packed(place) as store:
        store_one(store, 1)
        place.rename(place.with_name("away"))
        place.mkdir()
        place.chmod(0o777)
        store_one(store, 2)
        assert has_one(store, 1)
        assert os.listdir(place) == []
        shutil.rmtree(place.with_name("away"))
        store_one(store, 3)
        assert os.listdir(place) == []
    assert len(warnings) == 1
    assert "the directory was removed; what does not fit" in warnings[0]


@kinds
def test_a_file_system_that_counts_no_links_has_removed_nothing(
    place: Path, warnings: list[str], monkeypatch: pytest.MonkeyPatch, opened: Opening
) -> None:
    with opened(place) as store:
        fstat = os.fstat

        def without_links(descriptor: int) -> os.stat_result:
            status = list(fstat(descriptor))
            status[3] = 0
            return os.stat_result(status)

        monkeypatch.setattr(os, "fstat", without_links)
        for call in ("pwrite", "sendfile"):
            fail_calls(monkeypatch, call, errno.ENOSPC)
        for number in range(3):
            store_one(store, number)
    assert len(warnings) == 1
    assert "No space left on device" in warnings[0]


@kinds
def test_many_threads_see_it_begin_anew_once(
    place: Path, warnings: list[str], opened: Opening
) -> None:
    with opened(place) as store:
        store_one(store, 0)
        shutil.rmtree(place)
        threads = [
            threading.Thread(target=store_one, args=(store, number))
            for number in range(1, 9)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(warnings) == 1
        for number in range(1, 9):
            if not has_one(store, number):  # it was on its way to the old one
                store_one(store, number)
        with opened(place) as newcomer:
            assert all(has_one(newcomer, number) for number in range(1, 9))


def test_claims_are_those_of_the_new_directory(place: Path) -> None:
    with packed(place) as store:
        store_one(store, 1)
        shutil.rmtree(place)
        store_one(store, 2)
        with packed(place) as newcomer, store.claim(name(3), patience_s=0) as is_ours:
            assert is_ours
            with newcomer.claim(name(3), patience_s=0) as is_theirs:
                assert not is_theirs
