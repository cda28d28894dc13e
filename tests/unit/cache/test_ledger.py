"""The ledger when something happens to it: hostile hands, other file systems."""

import errno
import fcntl
import itertools
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvmfsexec.cache import (
    byte_locks,
    eviction,
    ledger,
    ledger_book,
    ledger_format,
    quota,
)
from cvmfsexec.cache.directory import DirectoryStore
from cvmfsexec.cache.ledger_format import ACCOUNTS_START, Account, Summary
from tests.support.filled_cache import LIMIT, SIZE, fill, name, true_bytes
from tests.support.system_calls import fail_calls


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def store(root: Path) -> Iterator[DirectoryStore]:
    store = DirectoryStore.open(str(root), LIMIT)
    yield store
    store.close()


def _delete(path: Path) -> None:
    path.unlink()


def _truncate(path: Path) -> None:
    os.truncate(path, 0)


def _cut(path: Path) -> None:
    os.truncate(path, ACCOUNTS_START + 10)


def _fill_with_garbage(path: Path) -> None:
    path.write_bytes(os.urandom(path.stat().st_size))


def _fill_with_zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def _replace_by_another(path: Path) -> None:
    path.rename(path.with_name("away"))
    path.write_bytes(Summary(12345, 1_700_000_000).serialize())


def _forge(path: Path) -> None:
    _write_ledger(path, Summary(-(10**15), 2**62, 2**62, 4096))


def _write_ledger(path: Path, summary: Summary, accounts: bytes = b"") -> None:
    """Let a summary be the one of this file, and be believed."""
    with path.open("ab"):
        pass
    with path.open("r+b") as file:
        data = summary._replace(inode=path.stat().st_ino).serialize()
        file.write(data.ljust(ACCOUNTS_START, b"\0") + accounts if accounts else data)


DAMAGES = (
    *(_delete, _truncate, _cut, _fill_with_garbage, _fill_with_zeros),
    *(_replace_by_another, _forge),
)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damage_under_two_processes_does_no_harm(
    root: Path, damage: Callable[[Path], None]
) -> None:
    """The limit may be passed by what was granted before, and holds again after."""
    stores = [DirectoryStore.open(str(root), LIMIT) for _ in range(2)]
    pins = [store.pin(name(1000 + n)) for n, store in enumerate(stores)]
    fill(stores[0], range(4))
    fill(stores[1], range(4, 8))
    damage(root / ledger.FILE_NAME)
    for store in stores:
        fill(store, range(8, 20))
    if damage is not _forge:
        assert true_bytes(root) <= LIMIT
    assert stores[0].quota.in_use() == {name(1000), name(1001)}
    third = DirectoryStore.open(str(root), LIMIT)
    assert third.quota.clean(LIMIT // 4)  # counts, too
    fill(third, range(20, 40))
    assert third.used_bytes() == true_bytes(root) <= LIMIT
    for store in (*stores, third):
        store.close()
    for pin in pins:
        pin.release()


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=9000), st.integers(0, 9000))
def test_any_bytes_in_the_ledger_are_survived(data: bytes, at: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory) / "cache"
        store = DirectoryStore.open(str(root), LIMIT)
        fill(store, range(3))
        with (root / ledger.FILE_NAME).open("r+b") as file:
            file.seek(at)
            file.write(data)
        fill(store, range(3, 6))
        other = DirectoryStore.open(str(root), LIMIT)
        fill(other, range(6, 12))
        assert other.quota.used_bytes() >= 0
        assert other.quota.pinned_bytes() == 0
        assert other.quota.cleanings_within(10) >= 0
        assert other.quota.clean(0)
        assert true_bytes(root) == 0
        other.close()
        store.close()


def test_a_directory_in_place_of_the_ledger(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (root / ledger.FILE_NAME).mkdir(parents=True)
    root.chmod(0o700)
    store = DirectoryStore.open(str(root), LIMIT)
    fill(store, range(3))
    assert true_bytes(root) == 0
    assert len(caplog.records) == 1
    pin = store.pin(name(1))
    pin.release()
    assert store.quota.cleanings_within(10) == 0
    assert not store.quota.clean(-1)
    store.close()


def test_a_link_in_place_of_the_ledger_is_not_followed(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root.mkdir(mode=0o700)
    (tmp_path / "victim").write_bytes(b"precious")
    (root / ledger.FILE_NAME).symlink_to(tmp_path / "victim")
    store = DirectoryStore.open(str(root), LIMIT)
    fill(store, range(3))
    assert (tmp_path / "victim").read_bytes() == b"precious"
    assert len(caplog.records) == 1
    store.close()


def test_objects_that_others_delete_are_noticed_when_it_matters(
    store: DirectoryStore, root: Path
) -> None:
    fill(store, range(9))
    for number in range(8):
        (root / name(number).cache_path()).unlink()
    assert store.used_bytes() == 9 * SIZE
    fill(store, range(20, 28))
    assert true_bytes(root) == store.used_bytes() == 9 * SIZE
    assert store.quota.cleanings_within(60) == 0


def test_a_cache_from_before_there_were_ledgers(root: Path) -> None:
    store = DirectoryStore.open(str(root))
    fill(store, range(15))
    store.close()
    (root / ledger.FILE_NAME).unlink()
    store = DirectoryStore.open(str(root), LIMIT)
    assert store.used_bytes() == 15 * SIZE
    fill(store, range(15, 16))
    assert true_bytes(root) <= LIMIT
    store.close()


def _since_boot_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@pytest.mark.parametrize(
    ("age_s", "is_old"),
    [
        (lambda: 5, False),
        (lambda: 86_500, True),
        (lambda: -1000, True),
        (lambda: _since_boot_s() + 5, True),  # the disk may know more than the ledger
        (time.time, True),  # estimated, not counted
    ],
    ids=["now", "yesterday", "tomorrow", "before boot", "never"],
)
def test_what_was_estimated_or_is_old_is_counted_later(
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    age_s: Callable[[], float],
    *,
    is_old: bool,
) -> None:
    monkeypatch.setattr(quota, "_COUNT_AFTER_S", 0.0)
    monkeypatch.setattr(quota, "_COUNT_PAUSE_S", 0.0)
    counted = threading.Event()

    def recount_and_tell(*arguments: Any) -> None:  # noqa: ANN401
        recount(*arguments)
        counted.set()

    recount = eviction.recount
    monkeypatch.setattr(eviction, "recount", recount_and_tell)
    root.mkdir(mode=0o700)
    (root / "ab").mkdir()
    (root / "ab" / ("0" * 38)).write_bytes(bytes(SIZE))
    at_s = int(time.time() - age_s())
    _write_ledger(root / ledger.FILE_NAME, Summary(777, at_s))
    store = DirectoryStore.open(str(root), LIMIT)
    store.quota.put_in_order()
    assert counted.wait(10 if is_old else 0.1) == is_old
    assert store.used_bytes() == (SIZE if is_old else 777)
    store.close()


def test_a_limit_that_was_lowered_is_reached_without_storing_anything(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quota, "_COUNT_AFTER_S", 3600.0)  # to count can wait
    store = DirectoryStore.open(str(root))
    fill(store, range(15))
    store.close()
    store = DirectoryStore.open(str(root), LIMIT)
    store.quota.put_in_order()
    for thread in threading.enumerate():
        if thread.name == "cache count":
            thread.join(10)
    assert true_bytes(root) <= LIMIT // 2
    store.close()


# Copies, and what is older


def copy_anew(source: Path, target: Path) -> None:
    """Copy as ``rsync`` and ``tar`` do: into a new file, with the time of the old."""
    shutil.copy2(source, target.with_name("new"))
    target.with_name("new").rename(target)


def test_a_copy_of_an_older_ledger_is_not_believed(root: Path, tmp_path: Path) -> None:
    """Sessions go on while a backup is made: it knows of less than it holds."""
    store = DirectoryStore.open(str(root), LIMIT)
    fill(store, range(2))
    assert store.quota.clean(LIMIT)  # counts
    copy_anew(root / ledger.FILE_NAME, tmp_path / "ledger")
    fill(store, range(2, 9))
    store.close()
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    for place in (root, copy):
        copy_anew(tmp_path / "ledger", place / ledger.FILE_NAME)
        store = DirectoryStore.open(str(place), LIMIT)
        assert store.used_bytes() == 9 * SIZE
        fill(store, range(9, 12))
        assert store.used_bytes() == true_bytes(place) <= LIMIT
        store.close()


def test_a_cache_that_was_copied_by_links_has_a_limit_of_its_own(
    root: Path, tmp_path: Path
) -> None:
    first = DirectoryStore.open(str(root), LIMIT)
    fill(first, range(9))
    copy = tmp_path / "copy"
    shutil.copytree(root, copy, copy_function=os.link)
    second = DirectoryStore.open(str(copy), LIMIT)
    fill(second, range(9, 12))
    assert true_bytes(copy) <= LIMIT // 2 + 3 * SIZE
    fill(first, range(20, 21))
    assert first.used_bytes() == true_bytes(root) == 10 * SIZE
    fill(first, range(21, 30))
    assert first.used_bytes() == true_bytes(root) <= LIMIT
    assert second.used_bytes() == true_bytes(copy)
    first.close()
    second.close()


def test_a_ledger_of_another_version_is_begun_anew(root: Path) -> None:
    store = DirectoryStore.open(str(root), LIMIT)
    fill(store, range(4))
    store.close()
    path = root / ledger.FILE_NAME
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger_format, "_VERSION", ledger_format._VERSION - 1)
        _write_ledger(path, Summary(-777, int(time.time())))
    store = DirectoryStore.open(str(root), LIMIT)
    assert store.used_bytes() == 4 * SIZE
    store.close()


def test_who_cannot_get_the_lock_does_without_the_cache(
    store: DirectoryStore,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(ledger, "LOCK_PATIENCE_S", 0.05)
    other = DirectoryStore.open(str(root), LIMIT)
    with other.quota._ledger.locked():
        fill(store, range(5))
        pin = store.pin(name(0))
        assert store.quota.in_use() == frozenset()
    assert true_bytes(root) == 0
    assert len(caplog.records) == 1
    pin.release()
    other.close()


def test_more_processes_than_accounts(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ledger_format, "ACCOUNTS_MAX", 3)
    stores = [DirectoryStore.open(str(root), LIMIT) for _ in range(4)]
    for number, store in enumerate(stores):
        fill(store, range(number, number + 1))
    assert true_bytes(root) == 3 * SIZE
    assert "users already" in caplog.text
    for store in stores:
        store.close()


def test_many_processes_and_few_after_them(root: Path) -> None:
    """The last of them has an account behind those that are read at first."""
    stores = [DirectoryStore.open(str(root), LIMIT) for _ in range(70)]
    for store in stores[:-1]:
        store.close()
    last = stores[-1]
    pin = last.pin(name(0))
    fill(last, range(2))
    other = DirectoryStore.open(str(root), 5 * LIMIT)
    assert other.used_bytes() == 2 * SIZE
    assert other.quota.binding_limit_bytes() == LIMIT
    assert other.quota.in_use() == {name(0)}
    pin.release()
    last.close()
    other.close()


def test_a_closed_store_has_no_say(store: DirectoryStore, root: Path) -> None:
    other = DirectoryStore.open(str(root), LIMIT)
    pin = other.pin(name(1))
    other.close()
    pin.release()
    other.quota.limit_bytes = 1
    assert store.quota.binding_limit_bytes() == LIMIT
    assert other.quota.used_bytes() == 0


def test_the_ledger_is_small_and_private(store: DirectoryStore, root: Path) -> None:
    pin = store.pin(name(0))
    status = (root / ledger.FILE_NAME).stat()
    assert status.st_mode & 0o777 == 0o600
    assert status.st_blocks * 512 < 64 << 10
    pin.release()


def test_locks_of_bytes(tmp_path: Path) -> None:
    files = [os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT) for _ in range(2)]
    assert byte_locks.try_lock(files[0], 1 << 62)
    assert byte_locks.try_lock(files[0], 1 << 62)
    assert not byte_locks.is_locked(files[0], 1 << 62)
    assert byte_locks.is_locked(files[1], 1 << 62)
    assert not byte_locks.try_lock(files[1], 1 << 62)
    assert byte_locks.try_lock(files[1], 1)
    byte_locks.unlock(files[0], 1 << 62)
    byte_locks.unlock(files[0], 1 << 62)
    assert byte_locks.try_lock(files[1], 1 << 62)
    os.close(files[1])
    assert byte_locks.try_lock(files[0], 1)
    os.close(files[0])
    with pytest.raises(OSError, match="Bad file") as caught:
        byte_locks.try_lock(files[0], 1)
    assert not byte_locks.means_no_locks(caught.value)
    assert byte_locks.means_no_locks(OSError(errno.ENOLCK, "No locks"))


def test_an_account_of_a_dead_process_is_taken_over(root: Path) -> None:
    root.mkdir(mode=0o700)
    account = Account(1, 50_000, 30_000, 0).serialize()
    summary = Summary(1000, 2**40, account_count=1)
    _write_ledger(root / ledger.FILE_NAME, summary, account)
    store = DirectoryStore.open(str(root), LIMIT)
    assert store.used_bytes() == 31_000
    assert store.quota.binding_limit_bytes() == LIMIT
    store.close()


@pytest.fixture
def no_locks(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the file system of the cache have no locks."""
    real = fcntl.fcntl

    def refuse(descriptor: int, command: int, *arguments: Any) -> Any:  # noqa: ANN401
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        if command == fcntl.F_OFD_SETLK and path.startswith(str(root)):
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
        return real(descriptor, command, *arguments)

    monkeypatch.setattr(fcntl, "fcntl", refuse)


@pytest.mark.usefixtures("no_locks")
def test_without_locks_the_limit_holds_by_estimates(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ledger_book, "_ESTIMATE_VALID_S", 0.0)
    stores = [DirectoryStore.open(str(root), LIMIT) for _ in range(2)]
    assert "has no locks" in caplog.text
    assert "ext4" in caplog.text or "(" in caplog.text
    warnings = len(caplog.records)
    pin = stores[0].pin(name(0))
    for number in range(40):
        fill(stores[number % 2], range(number, number + 1))
        assert true_bytes(root) <= LIMIT + 2 * quota.GRANT_BYTES_MAX // 64
    assert true_bytes(root) >= LIMIT // 2
    assert stores[0].quota.in_use() == {name(0)}
    assert stores[1].quota.clean(0)
    assert true_bytes(root) == stores[0].used_bytes() == 0
    assert len(caplog.records) == warnings == 2
    assert not (root / ledger.FILE_NAME).read_bytes()
    pin.release()
    for store in stores:
        store.close()


@pytest.mark.usefixtures("no_locks")
def test_a_lack_of_locks_may_show_later(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """At the start, another node is just making the ledger."""
    denied = itertools.count()
    fail_calls(
        monkeypatch,
        "open",
        errno.EACCES,
        lambda path, *_, **__: path == ledger.FILE_NAME and not next(denied),
    )
    store = DirectoryStore.open(str(root), LIMIT)
    fill(store, range(3))
    assert all(store.has(name(number)) for number in range(3))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "has no locks" in caplog.text
    store.close()


def test_a_stopped_holder_of_the_lock_is_waited_for_once(
    store: DirectoryStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "LOCK_PATIENCE_S", 1.0)
    other = DirectoryStore.open(str(root), LIMIT)
    with other.quota._ledger.locked():
        begun_s = time.monotonic()
        pins = [store.pin(name(number)) for number in range(20)]
        assert time.monotonic() - begun_s < 10  # not 20 times the patience
    for pin in pins:
        pin.release()
    other.close()


def test_threads_of_a_process_do_not_sweep_at_once(store: DirectoryStore) -> None:
    with (
        store.quota._ledger.broom() as is_first,
        store.quota._ledger.broom() as is_second,
    ):
        assert (is_first, is_second) == (True, False)
    with store.quota._ledger.broom() as is_third:
        assert is_third


def test_a_store_may_be_closed_while_it_is_counted(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = threading.Event()
    pace = quota.Quota._pace

    def tell_and_pace(self: quota.Quota) -> bool:
        counting.set()
        return pace(self)

    monkeypatch.setattr(quota, "_COUNT_AFTER_S", 0.0)
    monkeypatch.setattr(quota, "_COUNT_PAUSE_S", 3600.0)
    monkeypatch.setattr(quota.Quota, "_pace", tell_and_pace)
    root.mkdir(mode=0o700)
    _write_ledger(root / ledger.FILE_NAME, Summary(LIMIT, 1))
    store = DirectoryStore.open(str(root), LIMIT)
    store.quota.put_in_order()
    assert counting.wait(10)
    store.close()
    assert "cache count" not in {thread.name for thread in threading.enumerate()}
