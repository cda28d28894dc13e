"""The limit of a cache directory: kept by all who share it, whoever dies."""

import errno
import os
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cvmfsexec.cache import eviction, ledger, quota
from cvmfsexec.cache.contents import StoredObject, object_files, stored_objects
from cvmfsexec.cache.directory import DirectoryStore
from cvmfsexec.cache.lasting_pins import pin_for_good, unpin
from cvmfsexec.format.digest import HashAlgorithm
from tests.support.file_systems import is_pending
from tests.support.filled_cache import (
    LIMIT,
    SIZE,
    bytes_at_one_moment,
    fill,
    name,
    true_bytes,
)
from tests.support.store_contract import content_of, put
from tests.support.system_calls import count_calls, fail_calls, run_and_die_at


def used_at(root: Path, number: int, time_s: float) -> None:
    os.utime(root / name(number).cache_path(), (time_s, time_s))


def objects_in(root: Path) -> list[StoredObject]:
    descriptor = os.open(root, os.O_RDONLY)
    try:
        return list(stored_objects(descriptor))
    finally:
        os.close(descriptor)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def store(root: Path) -> Iterator[DirectoryStore]:
    store = DirectoryStore.open(str(root), LIMIT)
    yield store
    store.close()


# Least recently used


def test_a_full_cache_is_cleaned_to_half_of_the_limit(
    store: DirectoryStore, root: Path
) -> None:
    fill(store, range(9))
    assert store.quota.cleanings_within(60) == 0
    fill(store, range(9, 12))
    assert true_bytes(root) == store.used_bytes()
    assert true_bytes(root) <= LIMIT // 2 + 2 * SIZE
    assert store.quota.cleanings_within(60) == 1
    assert store.quota.cleanings_within(-60) == 0


def test_what_was_used_least_recently_goes_first(
    store: DirectoryStore, root: Path
) -> None:
    fill(store, range(9))
    for number in range(9):
        used_at(root, number, 1000 + (number * 5) % 9)
    os.close(store.open_object(name(0)) or -1)  # the oldest, but for this
    assert store.quota.clean(4 * SIZE)
    kept = [number for number in range(9) if store.has(name(number))]
    assert kept == sorted([0, *sorted(range(9), key=lambda n: n * 5 % 9)[-3:]])


def test_what_was_used_by_a_wrong_clock_takes_no_room_from_what_is_used_now(
    store: DirectoryStore, root: Path
) -> None:
    """A clock that was a year ahead; or was right, and is a year behind by now."""
    year_s = 365 * 86_400.0
    fill(store, range(8))
    now_s = time.time()
    for number in range(4):
        used_at(root, number, now_s + year_s)
    for number in range(4, 8):
        used_at(root, number, now_s - year_s)
    os.close(store.open_object(name(0)) or -1)  # set right
    used_at(root, 5, now_s + 3600)  # a file server is a little ahead
    used_at(root, 6, -year_s)
    assert store.quota.clean(4 * SIZE)
    assert [number for number in range(8) if store.has(name(number))] == [0, 4, 5, 7]


def test_uses_by_others_count(store: DirectoryStore, root: Path) -> None:
    fill(store, range(4))
    for number in range(4):
        used_at(root, number, 1000 + number)
    other = DirectoryStore.open(str(root), LIMIT)
    os.close(other.open_object(name(0)) or -1)
    other.close()
    assert store.quota.clean(SIZE)
    assert [number for number in range(4) if store.has(name(number))] == [0]


def test_volatile_objects_go_before_all_others(
    store: DirectoryStore, root: Path
) -> None:
    fill(store, range(4))
    store.quota.stores_volatile = True
    fill(store, range(4, 8))
    assert [o.is_volatile for o in objects_in(root)].count(True) == 4
    for number in range(8):
        used_at(root, number, 1000 + number)
    assert store.quota.clean(5 * SIZE)
    assert [number for number in range(8) if store.has(name(number))] == [0, 1, 2, 3, 7]


def test_an_evicted_object_stays_readable(store: DirectoryStore) -> None:
    descriptor = put(store, name(0), b"still here")
    assert store.quota.clean(0)
    assert not store.has(name(0))
    assert content_of(descriptor) == b"still here"


def test_nothing_but_objects_is_removed(store: DirectoryStore, root: Path) -> None:
    fill(store, range(3))
    others = [
        root / "cvmfschecksum.a.example.org",
        root / "ab" / "fetchXYZ",
        root / "x",
    ]
    (root / "ab").mkdir(exist_ok=True)
    for path in others:
        path.write_bytes(b"not ours")
    assert store.quota.clean(0)
    assert objects_in(root) == []
    assert all(path.exists() for path in others)
    assert (root / ledger.FILE_NAME).exists()


# Pins


def test_what_is_pinned_is_never_removed(store: DirectoryStore, root: Path) -> None:
    pin = store.pin(name(0))
    fill(store, range(3))
    used_at(root, 0, 1)
    assert store.quota.pinned_bytes() == SIZE
    assert not store.quota.clean(0)
    assert [number for number in range(3) if store.has(name(number))] == [0]
    pin.release()
    pin.release()
    assert store.quota.pinned_bytes() == 0
    assert store.quota.clean(0)
    assert not store.has(name(0))


def test_a_pin_holds_for_all_processes(store: DirectoryStore, root: Path) -> None:
    other = DirectoryStore.open(str(root))
    pins = [other.pin(name(0)), store.pin(name(0)), other.pin(name(1))]
    fill(store, range(3))
    assert store.quota.in_use() == {name(0), name(1)}
    assert store.quota.pinned_bytes() == 2 * SIZE
    pins.pop(0).release()
    assert store.quota.in_use() == other.quota.in_use() == {name(0), name(1)}
    other.close()
    assert store.quota.in_use() == {name(0)}


def test_who_forgets_a_pin_lets_it_go(store: DirectoryStore) -> None:
    pin = store.pin(name(0))
    assert store.quota.in_use() == {name(0)}
    del pin
    assert store.quota.in_use() == frozenset()


def test_a_pin_ends_with_its_process(store: DirectoryStore, root: Path) -> None:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        mine = DirectoryStore.open(str(root), LIMIT)
        pin = mine.pin(name(0))
        os.write(writing, b"pinned")
        time.sleep(60)
        pin.release()
        os._exit(1)
    try:
        os.read(reading, 6)
        fill(store, range(2))
        assert not store.quota.clean(0)
        assert store.has(name(0))
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
        os.close(reading)
        os.close(writing)
    assert store.quota.clean(0)
    assert not store.has(name(0))


def test_more_pins_than_there_is_room_for(store: DirectoryStore) -> None:
    algorithms = list(HashAlgorithm)
    names = [name(n)._replace(algorithm=algorithms[n % 3]) for n in range(300)]
    pins = [store.pin(one) for one in names]
    assert store.quota.in_use() == set(names[:160])
    for pin in pins:
        pin.release()
    assert store.quota.in_use() == frozenset()
    again = store.pin(name(7))
    assert store.quota.in_use() == {name(7)}
    again.release()


def test_a_cache_full_of_pins_reads_without_keeping(
    store: DirectoryStore, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pins = [store.pin(name(number)) for number in range(9)]
    fill(store, range(9))
    for number in range(9, 15):
        assert content_of(put(store, name(number), bytes(2 * SIZE))) == bytes(2 * SIZE)
        assert not store.has(name(number))
        with store.claim(name(number), patience_s=60) as is_ours:
            assert not is_ours
    assert true_bytes(root) == 9 * SIZE
    assert len(caplog.records) == 1
    assert "is in use" in caplog.text
    for pin in pins:
        pin.release()


def test_what_the_user_pins_stays_until_it_is_unpinned(
    store: DirectoryStore, root: Path
) -> None:
    fill(store, range(2))
    directory = os.open(root, os.O_RDONLY)
    assert not pin_for_good(directory, name(7))
    for _ in range(2):
        assert pin_for_good(directory, name(0))
    assert store.quota.pinned_bytes() == SIZE
    assert {o.content_hash for o in objects_in(root) if o.is_pinned} == {name(0)}
    assert not store.quota.clean(0)
    assert [store.has(name(0)), store.has(name(1))] == [True, False]
    store.remove(name(0))  # it is damaged
    fill(store, range(1))
    assert pin_for_good(directory, name(0))
    assert {o.content_hash for o in objects_in(root) if o.is_pinned} == {name(0)}
    assert unpin(directory, name(0))
    assert not unpin(directory, name(0))
    assert store.quota.clean(0)
    os.close(directory)


# Large objects, odd limits


def test_other_links_to_objects_pin_nothing(
    store: DirectoryStore, root: Path, tmp_path: Path
) -> None:
    fill(store, range(9))
    for path in root.glob("??/*"):
        os.link(path, tmp_path / path.name)
    fill(store, range(9, 12))
    assert true_bytes(root) <= LIMIT // 2 + 2 * SIZE
    assert store.quota.clean(0)


def test_what_is_pinned_or_used_while_room_is_made_stays(
    store: DirectoryStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store, range(4))
    for number in range(4):
        used_at(root, number, 1000 + number)
    looks: list[str] = []

    def look_and_let_others_act(directory: int, prefix: str) -> object:
        files = object_files(directory, prefix)
        looks.append(prefix)
        if looks.count(prefix) == 2:  # what is found now is to be removed
            if prefix == name(0).cache_path()[:2]:
                assert pin_for_good(directory, name(0))
            if prefix == name(1).cache_path()[:2]:
                os.close(store.open_object(name(1)) or -1)
        return files

    monkeypatch.setattr(eviction, "object_files", look_and_let_others_act)
    assert not store.quota.clean(0)
    assert [number for number in range(4) if store.has(name(number))] == [0, 1]
    assert store.used_bytes() == true_bytes(root) == 2 * SIZE


def test_an_object_larger_than_half_of_the_limit_is_not_kept(
    store: DirectoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    fill(store, range(3))
    for size, is_kept in ((LIMIT // 2, True), (LIMIT // 2 + 1, False), (LIMIT, False)):
        with store.claim(name(100), patience_s=60, size_bytes=size) as is_ours:
            assert is_ours == is_kept
        with store.transaction() as transaction:
            for start in range(0, size, 7000):
                transaction.write(b"x" * min(7000, size - start))
            assert content_of(transaction.commit(name(100))) == b"x" * size
        assert store.has(name(100)) == is_kept
        store.remove(name(100))
    assert [number for number in range(3) if store.has(name(number))] == [0, 1, 2]
    assert store.used_bytes() == 3 * SIZE
    assert caplog.records == []


@pytest.mark.parametrize("limit", [1, 2, 5000])
def test_a_limit_smaller_than_any_object(root: Path, limit: int) -> None:
    store = DirectoryStore.open(str(root), limit)
    fill(store, range(3))
    assert objects_in(root) == []
    store.close()


def test_an_object_as_large_as_may_be_pushes_out_others(
    store: DirectoryStore, root: Path
) -> None:
    fill(store, range(8))
    os.close(put(store, name(100), bytes(LIMIT // 2)))
    assert store.has(name(100))
    assert true_bytes(root) <= LIMIT


def test_without_a_limit_nothing_is_removed(root: Path) -> None:
    store = DirectoryStore.open(str(root))
    fill(store, range(20), LIMIT)
    assert true_bytes(root) == store.used_bytes() == 20 * LIMIT
    assert store.quota.binding_limit_bytes() == 0
    store.close()


def test_the_lowest_limit_of_the_living_binds(root: Path) -> None:
    generous = DirectoryStore.open(str(root), 10 * LIMIT)
    unlimited = DirectoryStore.open(str(root))
    frugal = DirectoryStore.open(str(root), LIMIT)
    for store in (generous, unlimited):
        assert store.quota.binding_limit_bytes() == LIMIT
        fill(store, range(30))
        assert true_bytes(root) <= LIMIT
    frugal.close()
    assert unlimited.quota.binding_limit_bytes() == 10 * LIMIT
    fill(unlimited, range(30))
    assert true_bytes(root) == 30 * SIZE
    generous.quota.limit_bytes = 2 * LIMIT
    fill(unlimited, range(30, 40))
    assert true_bytes(root) <= 2 * LIMIT
    unlimited.close()
    generous.close()


def test_what_is_too_large_for_the_lowest_limit_does_not_empty_the_cache(
    root: Path,
) -> None:
    generous = DirectoryStore.open(str(root), 10 * LIMIT)
    frugal = DirectoryStore.open(str(root), LIMIT)
    fill(frugal, range(4))
    for size in (LIMIT // 2 + 1, 2 * LIMIT):
        with generous.transaction() as transaction:
            for start in range(0, size, 7000):
                transaction.write(b"x" * min(7000, size - start))
            assert content_of(transaction.commit(name(100))) == b"x" * size
    fill(frugal, range(4, 5))
    assert [number for number in range(6) if frugal.has(name(number))] == [
        0,
        1,
        2,
        3,
        4,
    ]
    assert not generous.has(name(100))
    frugal.close()
    os.close(put(generous, name(100), bytes(2 * LIMIT)))
    assert generous.has(name(100))
    generous.close()


# Several processes


def test_what_was_granted_to_the_dead_is_free_again(root: Path) -> None:
    for _ in range(50):
        assert run_and_die_at(40, lambda: _open_and_fill(root))
    store = DirectoryStore.open(str(root), LIMIT)
    assert store.used_bytes() == true_bytes(root)
    store.quota.clean(0)
    fill(store, range(9))
    assert true_bytes(root) == 9 * SIZE
    store.close()


def _open_and_fill(root: Path) -> None:
    fill(DirectoryStore.open(str(root), LIMIT), range(1000), 1000)


def test_threads_of_many_stores_keep_to_the_limit(root: Path) -> None:
    stores = [DirectoryStore.open(str(root), LIMIT) for _ in range(4)]
    seen: list[tuple[int, int]] = []
    threads = [
        threading.Thread(
            target=fill, args=(stores[n % 4], range(n * 100, n * 100 + 40), 3000)
        )
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        seen.append(bytes_at_one_moment(root, stores[0].quota.used_bytes))
    assert all(there <= min(told, LIMIT) for there, told in seen)
    assert stores[0].quota.used_bytes() >= true_bytes(root)
    for store in stores:
        store.close()


def test_a_sweeper_that_stands_still_is_waited_for_once(
    store: DirectoryStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quota, "WAIT_S", 0.05)
    fill(store, range(9))
    other = DirectoryStore.open(str(root), LIMIT)
    with other.quota._ledger.broom() as is_others:
        assert is_others
        begun_s = time.monotonic()
        for number in range(10, 30):
            assert content_of(put(store, name(number), bytes(2 * SIZE)))
            with store.claim(name(number), patience_s=60) as is_ours:
                assert not is_ours
        assert time.monotonic() - begun_s < 10  # not 20 times the patience
    other.close()
    assert true_bytes(root) == 9 * SIZE


def test_who_waits_gets_the_room_that_the_first_directories_bring(
    store: DirectoryStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store, range(9))
    other = DirectoryStore.open(str(root), LIMIT)
    sleep = time.sleep

    def clean_and_sleep(pause_s: float) -> None:
        if other.quota.used_bytes() > LIMIT // 2:
            eviction.evict(other._directory, other.quota._ledger, LIMIT // 2)
        sleep(pause_s)

    with other.quota._ledger.broom():
        monkeypatch.setattr(time, "sleep", clean_and_sleep)
        fill(store, range(10, 11), 2 * SIZE)
    assert store.has(name(10))
    other.close()


# Full disks


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT], ids=errno.errorcode.get)
@pytest.mark.parametrize("refused", ["open", "write", "link"])
def test_a_full_disk_takes_what_is_used_least(
    store: DirectoryStore,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    refused: str,
    error: int,
) -> None:
    """The limit is not reached, but the disk is shared with others."""
    fill(store, range(8), 4000)
    for number in range(8):
        used_at(root, number, 1000 + number)

    def is_full(*arguments: object, **keywords: object) -> bool:
        if refused == "open" and not is_pending(*arguments, **keywords):  # type: ignore[arg-type]
            return False
        if refused == "write" and len(arguments[1]) < 4000:  # type: ignore[arg-type]
            return False
        return true_bytes(root) > 25_000

    failed = fail_calls(monkeypatch, refused, error, is_full)
    assert content_of(put(store, name(100), bytes(4000))) == bytes(4000)
    assert len(failed) == (2 if refused == "open" else 1)
    assert store.has(name(100))
    assert not store.has(name(0))
    assert store.has(name(7))
    assert store.used_bytes() == true_bytes(root)


def test_a_full_disk_that_cannot_change_a_byte_of_the_ledger_is_no_obstacle(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing is written in place, as on btrfs; for the old and for the new."""
    with closing(DirectoryStore.open(str(root), LIMIT)) as old:
        fill(old, range(8), 4000)
        for number in range(8):
            used_at(root, number, 1000 + number)
        failed = fail_calls(
            monkeypatch,
            "pwrite",
            errno.EDQUOT,
            lambda *_: true_bytes(root) > 25_000,
        )
        with closing(DirectoryStore.open(str(root), LIMIT)) as new:
            for store, number in ((new, 100), (old, 101)):
                assert content_of(put(store, name(number), bytes(4000))) == bytes(4000)
                assert store.has(name(number))
        assert failed
        assert old.has(name(7))
        assert not old.has(name(0))
        assert (old.used_bytes() or 0) >= true_bytes(root)
        assert old.quota.clean(12_000)
        assert old.used_bytes() == true_bytes(root) <= 12_000


def test_a_disk_that_stays_full_is_done_without(
    store: DirectoryStore,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    fill(store, range(4), 4000)
    failed = fail_calls(monkeypatch, "open", errno.ENOSPC, is_pending)
    for _ in range(5):
        assert content_of(put(store, name(100), bytes(4000))) == bytes(4000)
    assert len(failed) == 3
    assert not store.has(name(100))
    assert len(caplog.records) == 1
    assert "No space left" in caplog.text
    with store.claim(name(100), patience_s=60) as is_ours:
        assert not is_ours


def test_without_a_limit_a_full_disk_removes_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = DirectoryStore.open(str(root))
    fill(store, range(4))
    fail_calls(monkeypatch, "open", errno.ENOSPC, is_pending)
    fill(store, range(4, 5))
    assert true_bytes(root) == 4 * SIZE
    assert len(caplog.records) == 1
    store.close()


# Costs


def test_a_small_object_costs_two_writes_and_two_looks_more(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store, range(1), 100)
    os.mkdir(name(1).cache_path()[:2], dir_fd=store._directory)
    calls = count_calls(
        monkeypatch, *("open", "write", "pwrite", "pread", "stat", "link", "close")
    )
    os.close(put(store, name(1), bytes(100)))
    monkeypatch.undo()
    assert calls == [
        *("open", "write", "stat", "pwrite", "link", "pwrite", "stat"),
        *("open", "close", "close"),
    ]
