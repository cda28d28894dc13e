"""The ledger never counts too little: whoever dies, stops, or removes at a bad moment.

Each store here stands for a process: it has an account, and locks, of its own.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import pytest

from cvmfsexec.cache import byte_locks, contents, eviction, ledger_format, usage
from cvmfsexec.cache.directory import DirectoryStore
from cvmfsexec.cache.ledger import FILE_NAME, Ledger
from cvmfsexec.cache.ledger_book import account_start
from cvmfsexec.cache.ledger_format import Account
from cvmfsexec.cache.usage import Usage
from tests.support.filled_cache import LIMIT, SIZE, fill, name, true_bytes

Act = Callable[[], object]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def store(root: Path) -> Iterator[DirectoryStore]:
    with closing(DirectoryStore.open(str(root), LIMIT)) as store:
        yield store


@pytest.fixture
def other(root: Path) -> Iterator[DirectoryStore]:
    with closing(DirectoryStore.open(str(root), LIMIT)) as store:
        yield store


def ledger_of(store: DirectoryStore) -> Ledger:
    return store.quota._ledger


def kill(store: DirectoryStore) -> None:
    """Let a process be gone: its descriptors are closed, and nothing else is done."""
    ledger_of(store)._leave()


@contextmanager
def about_to_link(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch, act: Act
) -> Iterator[None]:
    """Do something each time that an object is counted, and not visible yet."""
    keep = store.pending.keep

    def act_and_keep(*arguments: object) -> bool:
        act()
        return keep(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(store.pending, "keep", act_and_keep)
        yield


def during_the_scan(monkeypatch: pytest.MonkeyPatch, act: Act, *, before: str) -> None:
    """Do something, once, before a directory is looked at by who counts."""
    real = contents.object_files
    acts = [act]

    def act_and_look(directory: int, prefix: str) -> list[tuple[str, os.stat_result]]:
        if prefix == before and acts:
            acts.pop()()
        return real(directory, prefix)

    monkeypatch.setattr(eviction, "object_files", act_and_look)


def count_again(store: DirectoryStore) -> None:
    with ledger_of(store).broom() as is_ours:
        assert is_ours
        eviction.recount(store._directory, ledger_of(store))


def test_what_the_dying_wrote_last_is_counted(
    root: Path, store: DirectoryStore
) -> None:
    """It stored an object after its account was read, and died before it was closed."""
    dying = DirectoryStore.open(str(root), LIMIT)
    fill(dying, range(1), 100)
    with ledger_of(store).locked() as book:
        fill(dying, range(1, 2), 100)  # of what it has been granted
        kill(dying)
        book.settle_dead()
        assert book.used_bytes == true_bytes(root) == 200
    assert store.quota.used_bytes() == 200


def test_what_is_linked_after_a_long_while_is_counted(
    root: Path,
    store: DirectoryStore,
    other: DirectoryStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A process may be stopped between counting an object and linking it."""
    fill(store, range(2))
    with about_to_link(store, monkeypatch, partial(count_again, other)):
        fill(store, range(2, 3))
    assert other.quota.used_bytes() == true_bytes(root) == 3 * SIZE


def store_three(store: DirectoryStore) -> None:
    fill(store, range(6, 9))


def remove_three(store: DirectoryStore) -> None:
    for number in range(3):
        store.remove(name(number))


@pytest.mark.parametrize("before", ["00", "80", "ff"])
@pytest.mark.parametrize("change", [store_three, remove_three])
def test_what_changes_during_a_count_makes_it_too_high_at_most(
    root: Path,
    store: DirectoryStore,
    other: DirectoryStore,
    monkeypatch: pytest.MonkeyPatch,
    before: str,
    change: Callable[[DirectoryStore], None],
) -> None:
    left = 9 if change is store_three else 3
    fill(store, range(6))
    during_the_scan(monkeypatch, partial(change, store), before=before)
    count_again(other)
    assert true_bytes(root) == left * SIZE
    assert left * SIZE <= other.quota.used_bytes() <= (left + 3) * SIZE
    monkeypatch.undo()
    count_again(other)
    assert other.quota.used_bytes() == left * SIZE


def test_a_count_says_nothing_about_a_ledger_begun_meanwhile(
    root: Path,
    store: DirectoryStore,
    other: DirectoryStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else what was wrong with the old one would be corrected in the new one."""
    fill(store, range(6))
    for number in range(4):
        (root / name(number).cache_path()).unlink()

    def begin_anew() -> None:
        (root / FILE_NAME).unlink()
        fill(other, range(6, 7))

    during_the_scan(monkeypatch, begin_anew, before="00")
    count_again(store)
    # The store had all it knew of counted by the other, and cannot tell.
    assert store.quota.used_bytes() >= true_bytes(root) == 3 * SIZE
    monkeypatch.undo()
    count_again(store)
    assert store.quota.used_bytes() == 3 * SIZE


def delete(ledger: Path) -> None:
    ledger.unlink()


def truncate(ledger: Path) -> None:
    os.truncate(ledger, 0)


def garble(ledger: Path) -> None:
    ledger.write_bytes(os.urandom(ledger.stat().st_size))


def garble_accounts(ledger: Path) -> None:
    with ledger.open("r+b") as file:
        file.seek(account_start(0))
        file.write(os.urandom(1000))


HARMS = (delete, truncate, garble, garble_accounts)


@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__)
def test_a_ledger_made_anew_counts_what_comes_before_the_next_look(
    root: Path, store: DirectoryStore, harm: Callable[[Path], None]
) -> None:
    """The storing process has room granted, and no other reason to look."""
    fill(store, range(3), 100)
    harm(root / FILE_NAME)
    with closing(DirectoryStore.open(str(root), LIMIT)) as third:
        fill(store, range(3, 6), 100)
        assert true_bytes(root) == 600
        kill(store)
        assert third.quota.used_bytes() >= 600
        count_again(third)
        assert third.quota.used_bytes() == 600


@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__)
def test_what_was_about_to_be_linked_when_the_ledger_was_lost_is_counted_in_the_end(
    root: Path,
    store: DirectoryStore,
    other: DirectoryStore,
    monkeypatch: pytest.MonkeyPatch,
    harm: Callable[[Path], None],
) -> None:
    def lose() -> None:
        harm(root / FILE_NAME)
        assert other.quota.used_bytes() >= 0

    fill(store, range(3), 100)
    with about_to_link(store, monkeypatch, lose):
        fill(store, range(3, 4), 100)
    fill(store, range(4, 5), 100)
    assert other.quota.used_bytes() >= true_bytes(root) == 500
    with ledger_of(other).locked() as book:
        assert harm is garble_accounts or not book.summary.counted_at_s


def test_accounts_behind_the_first_are_found_in_a_ledger_made_anew(root: Path) -> None:
    """They are written again by their owners, who do not look."""
    stores = [DirectoryStore.open(str(root), LIMIT) for _ in range(66)]
    fill(stores[0], range(1), 100)
    fill(stores[-1], range(1, 2), 100)
    garble(root / FILE_NAME)
    assert stores[0].quota.used_bytes() == 200
    fill(stores[-1], range(2, 3), 100)
    assert stores[0].quota.used_bytes() >= true_bytes(root) == 300
    for store in stores:
        store.close()


def test_a_damaged_account_is_lost_for_no_longer_than_the_next_object(
    root: Path, store: DirectoryStore, other: DirectoryStore
) -> None:
    fill(store, range(2))
    garble_accounts(root / FILE_NAME)
    assert store.quota.used_bytes() == true_bytes(root) == 2 * SIZE
    assert other.quota.used_bytes() == 2 * SIZE


def test_an_account_that_is_being_written_is_read_again(
    store: DirectoryStore,
    other: DirectoryStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Half of it old and half of it new, it looks damaged for a moment."""
    fill(store, range(2))
    number = ledger_of(store)._number
    real = os.pread

    def torn_pread(file: int, size: int, start: int) -> bytes:
        data = bytearray(real(file, size, start))
        if size > ledger_format.ACCOUNT_BYTES and start == 0:
            data[account_start(number) + 20] ^= 1
        return bytes(data)

    monkeypatch.setattr(os, "pread", torn_pread)
    assert other.quota.used_bytes() == 2 * SIZE


def test_nothing_is_stored_uncounted_while_a_store_is_closed(
    root: Path, store: DirectoryStore
) -> None:
    closing_store = DirectoryStore.open(str(root), LIMIT)
    fill(closing_store, range(1))
    ledger_of(closing_store).close()
    fill(closing_store, range(1, 3))
    assert true_bytes(root) == SIZE
    assert store.quota.used_bytes() == SIZE
    closing_store.close()


def test_what_cannot_be_counted_is_not_stored_and_given_back(
    root: Path, store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store, range(1))

    def refuse(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(Account, "serialize", refuse)
        fill(store, range(1, 2))
    assert true_bytes(root) == SIZE
    with ledger_of(store).locked() as book:
        assert book.used_bytes == SIZE
        account = book.accounts[ledger_of(store)._number]
        promised_bytes = account.charged_bytes - account.stored_bytes
        assert promised_bytes == store.quota._room_bytes


def test_the_last_lock_of_a_range(tmp_path: Path) -> None:
    files = [os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT) for _ in range(3)]
    assert byte_locks.last_locked(files[0], 0, 100) is None
    for file, offset in ((1, 50), (2, 10), (1, 90), (2, 60), (0, 99), (1, 100)):
        assert byte_locks.try_lock(files[file], offset)
    assert byte_locks.last_locked(files[0], 0, 100) == 90
    assert byte_locks.last_locked(files[0], 0, 90) == 60
    assert byte_locks.last_locked(files[1], 0, 100) == 99
    assert byte_locks.last_locked(files[0], 91, 100) is None
    for file in files:
        os.close(file)


@pytest.mark.parametrize(("is_exact", "used_bytes"), [(True, 800), (False, 900)])
def test_an_estimate_leaves_a_margin(
    root: Path, monkeypatch: pytest.MonkeyPatch, used_bytes: int, *, is_exact: bool
) -> None:
    monkeypatch.setattr(usage, "estimate_usage", lambda _: Usage(800, is_exact))
    with closing(DirectoryStore.open(str(root), LIMIT)) as store:
        assert store.quota.used_bytes() == used_bytes
