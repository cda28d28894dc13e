"""A directory of objects against a model, with processes that die at any system call.

The model knows less than the store, as a store may forget whatever is not pinned. But
what it has is right, what is pinned and was there stays, the limit holds, nobody waits
for the dead, and a new process finds everything in order.
"""

import fcntl
import functools
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cvmfsexec.cache import byte_locks, eviction, ledger, quota
from cvmfsexec.cache.directory import DirectoryStore
from cvmfsexec.format.digest import ContentHash
from tests.support.store_contract import content_of, put
from tests.support.system_calls import run_and_die_at, run_and_stop_at

if TYPE_CHECKING:
    from cvmfsexec.cache.pins import Pin

LIMIT = 30_000
OBJECTS = 24
EXAMPLES = int(os.environ.get("STORE_MODEL_EXAMPLES", "30"))
SIZES = (0, 1, 700, 3000, 9000, LIMIT // 2, LIMIT // 2 + 1)


def name(number: int) -> ContentHash:
    return ContentHash.of(b"%d" % number)


def content(number: int) -> bytes:
    return bytes([number]) * SIZES[number % len(SIZES)]


def put_one(store: DirectoryStore, number: int) -> None:
    assert content_of(put(store, name(number), content(number))) == content(number)


def put_in_pieces(store: DirectoryStore, number: int) -> None:
    with store.transaction() as transaction:
        for start in range(0, len(content(number)), 1000):
            transaction.write(content(number)[start : start + 1000])
        transaction.keep(name(number))


def get_one(store: DirectoryStore, number: int) -> None:
    descriptor = store.open_object(name(number))
    if descriptor is not None:
        assert content_of(descriptor) == content(number)


def pin_one(store: DirectoryStore, number: int) -> None:
    pin = store.pin(name(number))
    put_one(store, number)
    pin.release()


def evict(store: DirectoryStore, number: int) -> None:
    store.quota.clean(number * LIMIT // OBJECTS)


def remove(store: DirectoryStore, number: int) -> None:
    store.remove(name(number))


def claim_and_put(store: DirectoryStore, number: int) -> None:
    with store.claim(name(number), patience_s=60, size_bytes=len(content(number))):
        put_one(store, number)


Operation = Callable[[DirectoryStore, int], object]
OPERATIONS: tuple[Operation, ...] = (
    *(put_one, put_in_pieces, get_one, pin_one, evict, remove, claim_and_put),
)


def count(store: DirectoryStore, number: int) -> None:  # noqa: ARG001
    ledger_of_it = store.quota._ledger
    with suppress(OSError), ledger_of_it.broom() as is_ours:
        if is_ours:
            eviction.recount(store._directory, ledger_of_it)


MEANWHILE: tuple[Operation, ...] = (put_one, get_one, pin_one, evict, remove, count)


@contextmanager
def impatient() -> Iterator[None]:
    """Do not wait for those who are stopped."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger, "LOCK_PATIENCE_S", 0.02)
        patch.setattr(ledger, "_LOW_PATIENCE_FOR_S", 0.0)
        patch.setattr(quota, "WAIT_S", 0.02)
        patch.setattr(quota, "REST_S", 0.0)
        patch.setattr(quota, "_BROOM_WAIT_S", 0.02)
        yield


@contextmanager
def opened(root: str) -> Iterator[DirectoryStore]:
    store = DirectoryStore.open(root, LIMIT)
    try:
        yield store
    finally:
        store.close()


def stored(root: str) -> dict[ContentHash, Path]:
    paths = Path(root).glob("??/*")
    return {ContentHash.parse(path.parent.name + path.name): path for path in paths}


def true_bytes(root: str) -> int:
    return sum(path.stat().st_size for path in stored(root).values())


def work(root: str, operation: Operation, number: int) -> None:
    with opened(root) as store:
        operation(store, number)


def check(root: str) -> None:
    """What a new process asks of a cache, whoever died in it."""
    with opened(root) as store:
        txn = Path(root) / "txn"
        assert not txn.exists() or not list(txn.iterdir())
        assert true_bytes(root) <= LIMIT
        for number in range(OBJECTS):
            get_one(store, number)
        # Nobody has a claim any more, and the locks are free.
        with store.claim(name(99), patience_s=0) as is_ours:
            assert is_ours
        put_one(store, 2)
        assert store.quota.used_bytes() >= true_bytes(root)
        before = true_bytes(root)
        store.quota.clean(before // 2)
        assert store.quota.used_bytes() == true_bytes(root)


class SharedCache(RuleBasedStateMachine):
    """Two processes that live on (as two stores here), and others that die."""

    numbers = st.integers(0, OBJECTS - 1)
    ages = st.integers(0, 10**6)

    def __init__(self) -> None:
        super().__init__()
        self.root = tempfile.mkdtemp(prefix="store-model-")
        self.stores = [DirectoryStore.open(self.root, LIMIT) for _ in range(2)]
        self.pins: dict[int, Pin] = {}
        self.pinned_and_there: set[int] = set()

    @rule(which=st.integers(0, 1), operation=st.sampled_from(OPERATIONS), n=numbers)
    def live(self, which: int, operation: Operation, n: int) -> None:
        if operation is remove:
            self.pinned_and_there.discard(n)
        operation(self.stores[which], n)
        self._note_pinned()

    @rule(operation=st.sampled_from(OPERATIONS), n=numbers, at=st.integers(1, 45))
    def die(self, operation: Operation, n: int, at: int) -> None:
        if operation is remove:
            self.pinned_and_there.discard(n)
        run_and_die_at(at, functools.partial(work, self.root, operation, n))
        self._note_pinned()

    @rule(
        operation=st.sampled_from(OPERATIONS),
        n=numbers,
        at=st.integers(1, 45),
        meanwhile=st.sampled_from(MEANWHILE),
        m=numbers,
    )
    def stop(
        self, operation: Operation, n: int, at: int, meanwhile: Operation, m: int
    ) -> None:
        for one, number in ((operation, n), (meanwhile, m)):
            if one is remove:
                self.pinned_and_there.discard(number)
        with impatient():
            run_and_stop_at(
                at,
                functools.partial(work, self.root, operation, n),
                functools.partial(meanwhile, self.stores[0], m),
            )
        self._note_pinned()

    @rule(which=st.integers(0, 1), n=st.integers(0, 3))
    def pin(self, which: int, n: int) -> None:
        self.pins.setdefault(n, self.stores[which].pin(name(n)))
        self._note_pinned()

    @precondition(lambda self: self.pins)
    @rule(data=st.data())
    def unpin(self, data: st.DataObject) -> None:
        n = data.draw(st.sampled_from(sorted(self.pins)))
        self.pins.pop(n).release()
        self.pinned_and_there.discard(n)

    @rule(n=numbers, age_s=ages)
    def grow_old(self, n: int, age_s: int) -> None:
        path = Path(self.root) / name(n).cache_path()
        if path.exists():
            os.utime(path, (age_s, age_s))

    @rule(n=numbers)
    def delete_an_object(self, n: int) -> None:
        (Path(self.root) / name(n).cache_path()).unlink(missing_ok=True)
        self.pinned_and_there.discard(n)

    @rule(which=st.integers(0, 1))
    def restart(self, which: int) -> None:
        for n in list(self.pins):
            self.pins.pop(n).release()
        self.pinned_and_there.clear()
        self.stores[which].close()
        self.stores[which] = DirectoryStore.open(self.root, LIMIT)

    @rule()
    def begin_a_new_process(self) -> None:
        assert not run_and_die_at(0, functools.partial(check, self.root))
        self._note_pinned()

    def _note_pinned(self) -> None:
        there = stored(self.root)
        self.pinned_and_there |= {n for n in self.pins if name(n) in there}

    @invariant()
    def the_limit_holds(self) -> None:
        assert true_bytes(self.root) <= LIMIT

    @invariant()
    def not_too_little_is_counted(self) -> None:
        assert self.stores[0].quota.used_bytes() >= true_bytes(self.root)

    @invariant()
    def what_is_there_is_right(self) -> None:
        there = stored(self.root)
        for number in range(OBJECTS):
            if (path := there.pop(name(number), None)) is not None:
                assert path.read_bytes() == content(number)
        assert not there

    @invariant()
    def what_is_pinned_stays(self) -> None:
        there = stored(self.root)
        assert all(name(n) in there for n in self.pinned_and_there)
        pinned = {name(n) for n in self.pins}
        assert self.stores[0].quota.in_use() == pinned

    def teardown(self) -> None:
        for store in self.stores:
            store.close()
        assert not run_and_die_at(0, functools.partial(check, self.root))
        for pin in self.pins.values():
            pin.release()
        shutil.rmtree(self.root)


TestSharedCache = SharedCache.TestCase
TestSharedCache.settings = settings(
    deadline=None, stateful_step_count=20, max_examples=EXAMPLES
)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: one.__name__)
def test_death_at_every_system_call_is_survived(
    tmp_path: Path, operation: Operation
) -> None:
    """One after the other in the same cache, so that what they leave would add up."""
    root = str(tmp_path / "cache")
    with opened(root) as store:
        for number in (2, 3, 4):
            put_one(store, number)
    died = 0
    for call_number in itertools.count(1):
        if not run_and_die_at(
            call_number, functools.partial(work, root, operation, 3 + call_number % 2)
        ):
            break
        died += 1
        assert not run_and_die_at(0, functools.partial(check, root))
    assert died >= 10


@pytest.mark.parametrize("meanwhile", MEANWHILE, ids=lambda one: one.__name__)
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: one.__name__)
def test_whatever_is_done_while_a_process_stands_still_is_counted(
    tmp_path: Path, operation: Operation, meanwhile: Operation
) -> None:
    root = str(tmp_path / "cache")
    with opened(root) as store, impatient():
        for number in (2, 3, 4):
            put_one(store, number)
        for call_number in itertools.count(1):
            if not run_and_stop_at(
                call_number,
                functools.partial(work, root, operation, 3 + call_number % 2),
                functools.partial(meanwhile, store, 3 + call_number // 2 % 2),
            ):
                break
            assert store.quota.used_bytes() >= true_bytes(root)
            assert true_bytes(root) <= LIMIT
    check(root)


def test_no_lock_survives_its_holder(tmp_path: Path) -> None:
    root = str(tmp_path / "cache")
    for call_number in itertools.count(1):
        if not run_and_die_at(call_number, functools.partial(work, root, pin_one, 3)):
            break
    ledger_file = os.open(tmp_path / "cache" / ledger.FILE_NAME, os.O_RDWR)
    everything = byte_locks._FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    fcntl.fcntl(ledger_file, fcntl.F_OFD_SETLK, everything)  # or it raises
    os.close(ledger_file)
