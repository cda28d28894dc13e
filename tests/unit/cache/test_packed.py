"""The packed cache: what goes where, its limit, and full disks."""

import contextlib
import errno
import fcntl
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cvmfsexec import log
from cvmfsexec.cache import packed
from cvmfsexec.cache.lease import FILE_NAME as LEASE
from cvmfsexec.cache.lease import Lease
from cvmfsexec.cache.packed import PackedStore
from cvmfsexec.cache.packs import DIRECTORY, PACK, PACKED_BYTES_MAX
from cvmfsexec.errors import CacheError
from cvmfsexec.format.digest import ContentHash
from tests.support.file_systems import Lack, file_system
from tests.support.store_contract import NAME, content_of, put
from tests.support.system_calls import fail_calls

LIMIT_BYTES = 64 << 20
LARGE = ContentHash.of(b"a large object")
LONG_AGO_S = 1_000_000_000


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def store(directory: Path) -> Iterator[PackedStore]:
    made = PackedStore.open(str(directory), LIMIT_BYTES)
    yield made
    made.close()


def names(count: int) -> list[ContentHash]:
    return [ContentHash.of(b"%d" % number) for number in range(count)]


def packs_in(directory: Path) -> list[Path]:
    return sorted((directory / DIRECTORY).glob(f"*{PACK}"))


def own_files_in(directory: Path) -> list[Path]:
    return sorted(directory.glob("[0-9a-f][0-9a-f]/*"))


def test_small_objects_share_a_pack(directory: Path, store: PackedStore) -> None:
    for name in names(100):
        os.close(put(store, name, b"x" * 1000))
    assert [path.stat().st_size for path in packs_in(directory)] == [100_000]
    assert own_files_in(directory) == []


def test_large_objects_have_files_of_their_own(
    directory: Path, store: PackedStore
) -> None:
    content = bytes(PACKED_BYTES_MAX + 1)
    assert content_of(put(store, NAME, content)) == content
    (path,) = own_files_in(directory)
    assert path == directory / NAME.cache_path()
    other = PackedStore.open(str(directory))
    assert content_of(other.open_object(NAME)) == content
    other.close()


@pytest.mark.parametrize("lack", list(Lack))
def test_file_systems_may_lack_unnamed_files_links_and_locks(
    directory: Path, monkeypatch: pytest.MonkeyPatch, lack: Lack
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    monkeypatch.setattr(fcntl, "fcntl", no_locks)
    with file_system(lack):
        one, two = (PackedStore.open(str(directory), LIMIT_BYTES) for _ in range(2))
        for size in (100, PACKED_BYTES_MAX + 1):
            name = ContentHash.of(b"%d" % size)
            with one.claim(name, patience_s=0) as is_ours:
                assert is_ours
                assert content_of(put(one, name, b"x" * size)) == b"x" * size
            with two.claim(name, patience_s=0):
                assert content_of(two.open_object(name)) == b"x" * size
        one.close()
        two.close()
    assert not list(directory.glob("txn/*"))


def test_a_database_is_reached_by_a_name(directory: Path, store: PackedStore) -> None:
    descriptor = put(store, NAME, b"SQLite format 3\0" + bytes(100))
    assert os.readlink(f"/proc/self/fd/{descriptor}") == str(
        directory / NAME.cache_path()
    )
    os.close(descriptor)


def test_what_was_removed_beside_the_store_is_absent(
    directory: Path, store: PackedStore
) -> None:
    os.close(put(store, NAME, bytes(PACKED_BYTES_MAX + 1)))
    (directory / NAME.cache_path()).unlink()
    assert store.open_object(NAME) is None
    assert not store.has(NAME)
    os.close(put(store, NAME, bytes(PACKED_BYTES_MAX + 1)))
    assert store.has(NAME)


def test_a_directory_of_others_is_refused(directory: Path) -> None:
    directory.mkdir()
    directory.chmod(0o770)
    with pytest.raises(CacheError, match="other users can write"):
        PackedStore.open(str(directory))


@pytest.mark.parametrize("size", [1000, PACKED_BYTES_MAX + 1], ids=["small", "large"])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_without_room_objects_are_read_and_not_kept(
    directory: Path, monkeypatch: pytest.MonkeyPatch, size: int, error: int
) -> None:
    directory.mkdir(mode=0o700)
    store = PackedStore.open(str(directory))
    warnings: list[str] = []
    monkeypatch.setattr(
        log, "warning", lambda text, *rest: warnings.append(text % rest)
    )
    fail_calls(
        monkeypatch,
        "open",
        error,
        lambda _path, flags, *_, dir_fd=None: bool(
            dir_fd is not None and flags & (os.O_CREAT | os.O_TMPFILE & ~os.O_DIRECTORY)
        ),
    )
    for name in names(3):
        assert content_of(put(store, name, b"x" * size)) == b"x" * size
        assert store.open_object(name) is None
        with store.transaction() as transaction:
            transaction.write(b"x" * size)
            assert not transaction.keep(name)
    assert len(warnings) == 1
    assert os.strerror(error) in warnings[0]
    monkeypatch.undo()
    store.close()


def test_old_packs_make_room(directory: Path) -> None:
    for number, name in enumerate(names(20)):
        store = PackedStore.open(str(directory))
        os.close(put(store, name, b"x" * 400_000))
        store.close()
        newest = max(packs_in(directory), key=lambda path: path.stat().st_mtime_ns)
        os.utime(newest, (LONG_AGO_S + number, LONG_AGO_S + number))
    limited = PackedStore.open(str(directory), 5_000_000)
    os.close(put(limited, NAME, b"y" * 400_000))
    limited.close()
    left = sum(path.stat().st_size for path in packs_in(directory))
    assert left <= 5_000_000 * 3 // 4
    reader = PackedStore.open(str(directory))
    kept = [name for name in names(20) if reader.has(name)]
    assert kept == names(20)[-len(kept) :]
    assert reader.has(NAME)
    reader.close()
    assert not (directory / LEASE).exists()


def test_old_own_files_make_room(directory: Path) -> None:
    store = PackedStore.open(str(directory))
    size = PACKED_BYTES_MAX + 1
    for number, name in enumerate(names(10)):
        os.close(put(store, name, bytes(size)))
        path = directory / name.cache_path()
        os.utime(path, (LONG_AGO_S + number, LONG_AGO_S + number))
    store.close()
    limited = PackedStore.open(str(directory), 4 * size)
    os.close(put(limited, NAME, b"y"))
    limited.close()
    assert len(own_files_in(directory)) == 2
    assert (directory / names(10)[-1].cache_path()).exists()


def test_nobody_tidies_up_while_another_node_has_the_lease(directory: Path) -> None:
    directory.mkdir(mode=0o700)
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    lease = Lease(descriptor)
    assert lease.acquire()
    store = PackedStore.open(str(directory), 1)
    for name in names(3):
        os.close(put(store, name, b"x" * 1000))
    store.close()
    assert len(packs_in(directory)) == 1
    lease.release()
    os.close(descriptor)


def test_many_small_idle_packs_are_put_together(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed, "PACKS_MAX", 4)
    for name in names(8):
        store = PackedStore.open(str(directory))
        os.close(put(store, name, b"content of " + name.digest))
        store.close()
    store = PackedStore.open(str(directory))
    os.close(put(store, LARGE, bytes(PACKED_BYTES_MAX + 1)))
    store.close()
    for path in packs_in(directory):
        os.utime(path, (LONG_AGO_S, LONG_AGO_S))
    store = PackedStore.open(str(directory), LIMIT_BYTES)
    assert store.open_object(NAME) is None
    os.close(put(store, NAME, b"one more"))
    store.close()
    assert len(packs_in(directory)) == 1
    reader = PackedStore.open(str(directory))
    for name in names(8):
        assert content_of(reader.open_object(name)) == b"content of " + name.digest
    assert reader.has(LARGE)
    reader.close()


def test_the_claim_of_who_was_killed_is_free(directory: Path) -> None:
    store = PackedStore.open(str(directory))
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        other = PackedStore.open(str(directory))
        with other.claim(NAME, patience_s=0):
            os.write(tell, b".")
            signal.pause()
    os.read(told, 1)
    with store.claim(NAME, patience_s=0) as is_ours:
        assert not is_ours
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with store.claim(NAME, patience_s=60) as is_ours:
        assert is_ours
    os.close(told)
    os.close(tell)
    store.close()


@settings(max_examples=20, stateful_step_count=25, deadline=None)
class Model(RuleBasedStateMachine):
    """Processes come, go, store, remove; packs vanish and are torn."""

    NAMES = tuple(ContentHash(bytes([number]) * 20) for number in range(4))

    def __init__(self) -> None:
        super().__init__()
        self.top = tempfile.TemporaryDirectory()
        self.directory = Path(self.top.name) / "cache"
        self.stores = [PackedStore.open(str(self.directory)) for _ in range(2)]

    def teardown(self) -> None:
        for store in self.stores:
            store.close()
        self.top.cleanup()

    @staticmethod
    def content(name: ContentHash) -> bytes:
        size = PACKED_BYTES_MAX + 1 if name.digest[0] == 0 else 100
        return name.digest[:1] * size

    @rule(which=st.integers(0, 1), name=st.sampled_from(NAMES))
    def store(self, which: int, name: ContentHash) -> None:
        content = self.content(name)
        assert content_of(put(self.stores[which], name, content)) == content
        assert content_of(self.stores[which].open_object(name)) == content

    @rule(which=st.integers(0, 1), name=st.sampled_from(NAMES))
    def remove(self, which: int, name: ContentHash) -> None:
        self.stores[which].remove(name)
        assert self.stores[which].open_object(name) is None

    @rule(which=st.integers(0, 1))
    def restart(self, which: int) -> None:
        self.stores[which].close()
        self.stores[which] = PackedStore.open(str(self.directory))

    @rule(number=st.integers(0, 9))
    def lose_a_pack(self, number: int) -> None:
        found = packs_in(self.directory)
        if found:
            path = found[number % len(found)]
            path.with_suffix(".index").unlink(missing_ok=True)
            path.unlink()
            self.restart(0)
            self.restart(1)

    @rule(number=st.integers(0, 9), where=st.integers(0, 400), byte=st.integers(0, 255))
    def damage(self, number: int, where: int, byte: int) -> None:
        found = sorted((self.directory / DIRECTORY).glob("*"))
        if found:
            path = found[number % len(found)]
            text = bytearray(path.read_bytes())
            text[where : where + 1] = bytes([byte])
            path.write_bytes(text)
            self.restart(0)
            self.restart(1)

    @invariant()
    def what_is_found_is_right(self) -> None:
        for store in self.stores:
            for name in self.NAMES:
                descriptor = store.open_object(name)
                if descriptor is not None:
                    assert content_of(descriptor) == self.content(name)


TestModel = Model.TestCase


def test_two_processes_of_a_node_claim_the_same_object_once(directory: Path) -> None:
    one, two = PackedStore.open(str(directory)), PackedStore.open(str(directory))
    with contextlib.ExitStack() as stack:
        assert stack.enter_context(one.claim(NAME, patience_s=0))
        assert not stack.enter_context(two.claim(NAME, patience_s=0))
    with two.claim(NAME, patience_s=0) as is_ours:
        assert is_ours
    with one.claim(NAME, patience_s=0):
        os.close(put(one, NAME, b"stored meanwhile"))
        with two.claim(NAME, patience_s=60) as is_ours:
            assert not is_ours
            assert content_of(two.open_object(NAME)) == b"stored meanwhile"
    one.close()
    two.close()
