"""The packed cache against a model, with processes that die at any system call.

The model knows less than the store, as a store may forget anything. But what it gives
is right, nobody waits for the dead, the limit holds within what is written down, and a
new process finds everything in order: packs whose every record is right, and no file
that nobody would find and remove.
"""

import functools
import itertools
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cvmfsexec.cache import pack_tidying, packed, packs, unmanaged
from cvmfsexec.cache.lease import FILE_NAME as LEASE
from cvmfsexec.cache.lease import Lease
from cvmfsexec.cache.pack_writer import DIRECTORY, INDEX, PACK
from cvmfsexec.cache.packed import PackedStore
from cvmfsexec.format.digest import ContentHash
from cvmfsexec.format.pack_index import RECORD_BYTES, Record, RecordKind
from tests.support.network_files import files_of_a_server
from tests.support.store_contract import content_of, put
from tests.support.system_calls import run_and_die_at, run_and_stop_at

LIMIT = 40_000
PACK_BYTES = 8_000
OWN_FROM = 3_000
OBJECTS = 16
SIZES = (0, 1, 700, 2500, OWN_FROM + 1, 9000)
EXAMPLES = int(os.environ.get("STORE_MODEL_EXAMPLES", "30"))
SLACK = LIMIT // 32 + max(SIZES)


@pytest.fixture(autouse=True, scope="module")
def small_scale() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed, "PACKED_BYTES_MAX", OWN_FROM)
        patch.setattr(packed, "_pack_bytes", lambda _limit_bytes: PACK_BYTES)
        patch.setattr(pack_tidying, "PACKS_MAX", 4)
        patch.setattr(pack_tidying, "IDLE_S", 0.0)
        patch.setattr(packs, "OWN_CHECK_S", 0.0)
        patch.setattr(unmanaged, "LOOK_S", 0.0)
        yield


def name(number: int) -> ContentHash:
    return ContentHash.of(b"%d" % number)


def content(number: int) -> bytes:
    start = b"SQLite format 3\0" if number % 5 == 0 else b""
    return (start + bytes([number]) * SIZES[number % len(SIZES)])[:20_000]


def settle(store: PackedStore) -> None:
    """Wait until it has tidied up."""
    if (thread := store._tidying._thread) is not None:
        thread.join()


def put_one(store: PackedStore, number: int) -> None:
    assert content_of(put(store, name(number), content(number))) == content(number)
    settle(store)


def keep_one(store: PackedStore, number: int) -> None:
    with store.transaction() as transaction:
        for start in range(0, len(content(number)), 1000):
            transaction.write(content(number)[start : start + 1000])
        transaction.keep(name(number))
    settle(store)


def get_one(store: PackedStore, number: int) -> bytes | None:
    descriptor = store.open_object(name(number))
    if descriptor is None:
        return None
    found = content_of(descriptor)
    assert found == content(number)
    return found


def remove(store: PackedStore, number: int) -> None:
    store.remove(name(number))


def claim_and_put(store: PackedStore, number: int) -> None:
    with store.claim(name(number), patience_s=60):
        put_one(store, number)


def tidy(store: PackedStore, number: int) -> None:
    del number
    store._tidying._work()


Operation = Callable[[PackedStore, int], object]
OPERATIONS: tuple[Operation, ...] = (
    *(put_one, keep_one, get_one, remove, claim_and_put, tidy),
)


@contextmanager
def opened(root: str) -> Iterator[PackedStore]:
    store = PackedStore.open(root, LIMIT)
    try:
        yield store
    finally:
        store.close()


def files_of(root: str, suffix: str) -> dict[str, Path]:
    return {path.stem: path for path in Path(root, DIRECTORY).glob(f"*{suffix}")}


def own_files(root: str) -> dict[ContentHash, Path]:
    paths = Path(root).glob("[0-9a-f][0-9a-f]/*")
    return {ContentHash.parse(path.parent.name + path.name): path for path in paths}


def true_bytes(root: str) -> int:
    own = sum(path.stat().st_size for path in own_files(root).values())
    return own + sum(path.stat().st_size for path in files_of(root, PACK).values())


def check_packs(root: str) -> None:
    """What an fsck of packs would look at: every record, and what it tells of."""
    found = files_of(root, PACK)
    for pack, path in files_of(root, INDEX).items():
        if pack not in found:
            continue  # somebody has deleted it
        index = path.read_bytes()
        whole = len(index) // RECORD_BYTES * RECORD_BYTES
        for start in range(0, whole, RECORD_BYTES):
            record = Record.parse(index[start : start + RECORD_BYTES])
            if record.kind is RecordKind.PACKED:
                with found[pack].open("rb") as file:
                    file.seek(record.offset)
                    assert zlib.crc32(file.read(record.size_bytes)) == record.checksum


def work(root: str, operation: Operation, number: int) -> None:
    with opened(root) as store:
        operation(store, number)


def forget_lease(root: str) -> None:
    """Let five minutes pass, after which it may be taken over."""
    for path in Path(root).glob(f"{LEASE}*"):
        os.utime(path, (0, 0))


def check(root: str, *, is_damaged: bool = False) -> None:
    """What a new process asks of a cache, whoever died in it."""
    forget_lease(root)
    with opened(root) as store:
        txn = Path(root) / "txn"
        assert not txn.exists() or not list(txn.iterdir())
        if not is_damaged:
            check_packs(root)
        for number in range(OBJECTS):
            get_one(store, number)
        with store.claim(name(99), patience_s=0) as is_ours:
            assert is_ours
        put_one(store, 3)
        tidy(store, 0)
        assert true_bytes(root) <= LIMIT + SLACK
        get_one(store, 3)
        # Whoever is alive has begun one pack; all others are small in number.
        assert len(files_of(root, INDEX)) <= 4 + 4 + LIMIT // PACK_BYTES
        # What is not found takes no room that nobody counts.
        told = {place.record.content_hash for place in store._packs.own_files()}
        untold = own_files(root).keys() - told
        assert sum(own_files(root)[one].stat().st_size for one in untold) <= LIMIT


def remove_all(root: str) -> None:
    shutil.rmtree(root, ignore_errors=True)


def remove_packs(root: str) -> None:
    shutil.rmtree(Path(root) / DIRECTORY, ignore_errors=True)


def put_another_in_its_place(root: str) -> None:
    away = tempfile.mkdtemp(prefix="packed-away-")
    if os.path.exists(root):
        os.rename(root, away)
    os.mkdir(root, 0o700)
    shutil.rmtree(away)


def fill_and_tidy_up(root: str) -> None:
    """Let another process make room, and put packs together."""
    forget_lease(root)
    with opened(root) as store:
        for number in (1, 5, 7, 11):
            put_one(store, number)
        tidy(store, 0)


LOSSES = (remove_all, remove_packs, put_another_in_its_place)


class SharedCache(RuleBasedStateMachine):
    """Two processes that live on (as two stores here), and others that die."""

    numbers = st.integers(0, OBJECTS - 1)

    def __init__(self) -> None:
        super().__init__()
        self.root = tempfile.mkdtemp(prefix="packed-model-")
        self.stores = [PackedStore.open(self.root, LIMIT) for _ in range(2)]
        self.is_damaged = False  # are there packs whose records may be wrong

    @rule(which=st.integers(0, 1), operation=st.sampled_from(OPERATIONS), n=numbers)
    def live(self, which: int, operation: Operation, n: int) -> None:
        operation(self.stores[which], n)

    @rule(which=st.integers(0, 1), n=numbers)
    def what_is_stored_is_found(self, which: int, n: int) -> None:
        forget_lease(self.root)
        self.look_again()
        if get_one(self.stores[which], n) is None:
            claim_and_put(self.stores[which], n)
        with opened(self.root) as store:
            if get_one(store, n) is None:  # others have damaged what is open here
                assert self.is_damaged
                claim_and_put(store, n)
        with opened(self.root) as store:
            assert get_one(store, n) is not None
        self.look_again()
        assert get_one(self.stores[1 - which], n) is not None

    def look_again(self) -> None:
        for store in self.stores:
            store.look_for_another()
            store._packs.lookout._watches.clear()
            store._packs.lookout.look_now()

    @rule(operation=st.sampled_from(OPERATIONS), n=numbers, at=st.integers(1, 60))
    def die(self, operation: Operation, n: int, at: int) -> None:
        run_and_die_at(at, functools.partial(work, self.root, operation, n))

    @rule(which=st.integers(0, 1), n=numbers)
    def removed_is_gone(self, which: int, n: int) -> None:
        self.look_again()
        self.stores[which].remove(name(n))
        assert self.stores[which].open_object(name(n)) is None
        with opened(self.root) as store:
            assert store.open_object(name(n)) is None
            put_one(store, n)
        with opened(self.root) as store:
            assert get_one(store, n) is not None

    @rule(n=numbers)
    def delete_an_own_file(self, n: int) -> None:
        (Path(self.root) / name(n).cache_path()).unlink(missing_ok=True)

    @rule(n=st.integers(0, 9), half=st.sampled_from((INDEX, PACK)))
    def delete_a_file_of_a_pack(self, n: int, half: str) -> None:
        found = sorted(files_of(self.root, half).values())
        if found:
            found[n % len(found)].unlink()

    @rule(n=st.integers(0, 9), half=st.sampled_from((INDEX, PACK)))
    def replace_a_file_of_a_pack(self, n: int, half: str) -> None:
        found = sorted(files_of(self.root, half).values())
        if found:
            other = Path(self.root) / "other"
            other.write_bytes(bytes(found[n % len(found)].stat().st_size))
            other.rename(found[n % len(found)])
            self.is_damaged = True

    @rule(
        n=st.integers(0, 9),
        half=st.sampled_from((INDEX, PACK)),
        at=st.integers(0, 5000),
        text=st.binary(max_size=80),
    )
    def damage_a_file_of_a_pack(self, n: int, half: str, at: int, text: bytes) -> None:
        """Overwrite something, or cut it off."""
        found = sorted(files_of(self.root, half).values())
        if found:
            with found[n % len(found)].open("r+b") as file:
                file.seek(min(at, os.fstat(file.fileno()).st_size))
                file.write(text)
                if not text:
                    file.truncate()
            self.is_damaged = True

    @rule(lose=st.sampled_from(LOSSES))
    def lose_the_directory(self, lose: Callable[[str], None]) -> None:
        lose(self.root)
        self.is_damaged = False

    @rule(which=st.integers(0, 1))
    def restart(self, which: int) -> None:
        self.stores[which].close()
        self.stores[which] = PackedStore.open(self.root, LIMIT)

    @rule()
    def begin_a_new_process(self) -> None:
        task = functools.partial(check, self.root, is_damaged=self.is_damaged)
        assert not run_and_die_at(0, task)

    @invariant()
    def what_is_found_is_right(self) -> None:
        for number in range(OBJECTS):
            for store in self.stores:
                get_one(store, number)

    def teardown(self) -> None:
        for store in self.stores:
            store.close()
        self.begin_a_new_process()
        shutil.rmtree(self.root)


class SharedCacheOnAServer(SharedCache):
    """The same where removed files are gone at once, and sizes are seen late."""

    def __init__(self) -> None:
        self.server = ExitStack()
        self.server.enter_context(files_of_a_server(sizes_are_late=True))
        super().__init__()

    def teardown(self) -> None:
        super().teardown()
        self.server.close()


TestSharedCache = SharedCache.TestCase
TestSharedCacheOnAServer = SharedCacheOnAServer.TestCase
TestSharedCacheOnAServer.settings = settings(
    deadline=None, stateful_step_count=20, max_examples=EXAMPLES
)
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
        for number in (2, 3, 4, 5):
            put_one(store, number)
    died = 0
    for call_number in itertools.count(1):
        if not run_and_die_at(
            call_number, functools.partial(work, root, operation, 3 + call_number % 3)
        ):
            break
        died += 1
        assert not run_and_die_at(0, functools.partial(check, root))
    assert died >= 5


@pytest.mark.parametrize("meanwhile", [*LOSSES, fill_and_tidy_up])
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: one.__name__)
def test_others_may_do_anything_at_every_system_call(
    tmp_path: Path, operation: Operation, meanwhile: Callable[[str], None]
) -> None:
    """It is stopped there, and goes on in what others have left."""
    root = str(tmp_path / "cache")
    stopped = 0
    for call_number in itertools.count(1, 2):
        with opened(root) as store:
            for number in (2, 3, 4):
                put_one(store, number)
        if not run_and_stop_at(
            call_number,
            functools.partial(work, root, operation, 3 + call_number % 4),
            functools.partial(meanwhile, root),
        ):
            break
        stopped += 1
        assert not run_and_die_at(0, functools.partial(check, root))
    assert stopped >= 3


def fill_beyond_limit(root: str) -> None:
    """Let six processes write at once, who know of no limit and never tidy up."""
    stores = [PackedStore.open(root) for _ in range(6)]
    for store in stores:
        store.end_upkeep()
    for number in range(OBJECTS):
        os.close(put(stores[number % 6], name(number), content(number)))
    for store in stores:
        store.close()


@pytest.mark.parametrize("limit_bytes", [LIMIT // 2, 0], ids=["shrink", "merge"])
def test_who_dies_while_tidying_up_leaves_what_the_next_one_tidies_up(
    tmp_path: Path, limit_bytes: int
) -> None:
    def tidy_up(root: str) -> None:
        store = PackedStore.open(root, limit_bytes)
        tidy(store, 0)
        store.close()

    for call_number in itertools.count(1, 3):
        root = str(tmp_path / str(call_number))
        fill_beyond_limit(root)
        has_died = run_and_die_at(call_number, functools.partial(tidy_up, root))
        forget_lease(root)
        tidy_up(root)
        if limit_bytes:
            assert true_bytes(root) <= limit_bytes
        else:
            assert not run_and_die_at(0, functools.partial(find_all, root))
        clear_leases(root)
        assert files_of(root, PACK).keys() <= files_of(root, INDEX).keys()
        if not has_died:
            break
    assert call_number > 15


def find_all(root: str) -> None:
    with opened(root) as store:
        assert None not in {get_one(store, number) for number in range(OBJECTS)}


def clear_leases(root: str) -> None:
    directory = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    lease = Lease(directory)
    assert lease.acquire()
    lease.clear_abandoned(lease.now_s())
    lease.release()
    os.close(directory)
    assert not list(Path(root).glob(f"{LEASE}*"))
