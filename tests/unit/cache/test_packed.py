"""The packed cache: what goes where, its limit, and full disks."""

import contextlib
import errno
import fcntl
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cvmfsexec import log
from cvmfsexec.cache import pack_lookout, pack_tidying, packed, packs, scratch
from cvmfsexec.cache.lease import DURATION_S, Lease
from cvmfsexec.cache.lease import FILE_NAME as LEASE
from cvmfsexec.cache.pack_reader import PACKED_BYTES_MAX
from cvmfsexec.cache.pack_writer import DIRECTORY, INDEX, PACK
from cvmfsexec.cache.packed import PackedStore
from cvmfsexec.errors import CacheError
from cvmfsexec.format.digest import ContentHash
from cvmfsexec.format.pack_index import RECORD_BYTES
from tests.support.file_systems import Lack, file_system
from tests.support.network_files import files_of_a_server
from tests.support.store_contract import NAME, content_of, put
from tests.support.system_calls import count_calls, fail_calls

LIMIT_BYTES = 64 << 20
LARGE = ContentHash.of(b"a large object")
LARGE_ONE = {LARGE: b"z" * (PACKED_BYTES_MAX + 1)}
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


def write_at_once(directory: Path, contents: dict[ContentHash, bytes]) -> None:
    """Let each object be stored by a process of its own, in a pack of its own."""
    stores = [PackedStore.open(str(directory)) for _ in contents]
    for store, name in zip(stores, contents, strict=True):
        os.close(put(store, name, contents[name]))
    written = [store._packs.own_name() for store in stores]
    for store in stores:
        store.close()
    assert len(packs_in(directory)) == len(contents)
    for number, pack in enumerate(written):
        for suffix in (PACK, INDEX):
            path = directory / DIRECTORY / f"{pack}{suffix}"
            os.utime(path, (LONG_AGO_S + number, LONG_AGO_S + number))


def test_old_packs_make_room(directory: Path) -> None:
    write_at_once(directory, dict.fromkeys(names(20), b"x" * 400_000))
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


def test_what_only_a_removed_pack_told_of_is_still_found(directory: Path) -> None:
    """Or it would be fetched again, and the file be counted by nobody."""
    write_at_once(
        directory, dict.fromkeys(names(8), b"x" * PACKED_BYTES_MAX) | LARGE_ONE
    )
    os.utime(directory / LARGE.cache_path())  # in use, unlike the packs
    limited = PackedStore.open(str(directory), 4 * PACKED_BYTES_MAX)
    os.close(put(limited, NAME, b"y"))
    limited.close()
    reader = PackedStore.open(str(directory))
    assert content_of(reader.open_object(LARGE)) == LARGE_ONE[LARGE]
    assert len(packs_in(directory)) < 5
    reader.close()


def test_own_files_that_were_removed_are_not_counted_for_ever(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or each process that begins would look at all files for nothing."""
    size = PACKED_BYTES_MAX + 1
    store = PackedStore.open(str(directory))
    for number, name in enumerate(names(10)):
        os.close(put(store, name, bytes(size)))
        path = directory / name.cache_path()
        os.utime(path, (LONG_AGO_S + number, LONG_AGO_S + number))
    store.close()
    (directory / names(10)[9].cache_path()).unlink()  # by hand
    limited = PackedStore.open(str(directory), 4 * size)
    os.close(put(limited, NAME, b"y"))
    limited.close()
    assert len(own_files_in(directory)) == 2
    later = PackedStore.open(str(directory), 4 * size)
    later.has(LARGE)
    assert later.used_bytes() == 2 * size + 1
    looked = count_calls(monkeypatch, "scandir")
    os.close(put(later, LARGE, b"z"))
    later.close()
    assert looked == []


def test_a_full_disk_does_not_keep_packs_from_being_removed(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_at_once(
        directory, dict.fromkeys(names(8), b"x" * PACKED_BYTES_MAX) | LARGE_ONE
    )
    os.utime(directory / LARGE.cache_path())
    limited = PackedStore.open(str(directory), 4 * PACKED_BYTES_MAX)
    limited.has(NAME)
    with monkeypatch.context() as patch:
        fail_calls(patch, "pwrite", errno.ENOSPC)
        limited._tidying._tidy()
    limited.close()
    left = sum(path.stat().st_size for path in packs_in(directory))
    own = sum(path.stat().st_size for path in own_files_in(directory))
    assert left + own <= 4 * PACKED_BYTES_MAX


def test_half_a_pack_goes_with_the_rest(directory: Path) -> None:
    """As who was killed between two removals leaves it."""
    write_at_once(directory, dict.fromkeys(names(4), b"x" * PACKED_BYTES_MAX))
    for path in packs_in(directory):
        path.with_suffix(INDEX).unlink()
    limited = PackedStore.open(str(directory), 2 * PACKED_BYTES_MAX)
    os.close(put(limited, NAME, b"y"))
    limited.close()
    assert sum(path.stat().st_size for path in packs_in(directory)) < 1_000_000


def test_a_holder_that_was_stopped_removes_no_more(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one takes its lease over, and has done its work when it goes on."""
    write_at_once(directory, dict.fromkeys(names(12), b"x" * PACKED_BYTES_MAX))
    stopped = PackedStore.open(str(directory), 8 * PACKED_BYTES_MAX)
    stopped.has(NAME)
    unlink = os.unlink
    now_s = [0.0]
    monkeypatch.setattr("cvmfsexec.cache.lease.time.monotonic", lambda: now_s[0])

    def stop(path: str, *, dir_fd: int | None = None) -> None:
        unlink(path, dir_fd=dir_fd)
        monkeypatch.setattr(os, "unlink", unlink)
        now_s[0] += 2 * DURATION_S
        os.utime(directory / LEASE, (LONG_AGO_S, LONG_AGO_S))
        other = PackedStore.open(str(directory), 8 * PACKED_BYTES_MAX)
        other._tidying._tidy()
        other.close()

    monkeypatch.setattr(os, "unlink", stop)
    stopped._tidying._tidy()
    stopped.close()
    assert len(packs_in(directory)) in (5, 6)


def test_what_a_network_file_system_lost_is_fetched_again(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says so when a file is closed; what then is read would be anything."""
    store = PackedStore.open(str(directory))
    content = os.urandom(PACKED_BYTES_MAX + 1)

    def lose(descriptor: int) -> None:
        os.ftruncate(descriptor, 100)
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    with file_system(Lack.UNNAMED_FILES), monkeypatch.context() as patch:
        patch.setattr(scratch, "flush", lose)
        with pytest.raises(CacheError, match="lost an object"):
            put(store, NAME, content)
        assert content_of(put(store, NAME, content)) == content
    assert not store.has(NAME)
    assert not list(directory.glob("txn/*"))
    store.close()


def test_a_full_scratch_directory_is_no_reason_not_to_read(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = PackedStore.open(str(directory))
    content = os.urandom(3_000_000)

    def is_on_disk(descriptor: int, *_: object) -> bool:
        return not os.readlink(f"/proc/self/fd/{descriptor}").startswith("/memfd:")

    fail_calls(monkeypatch, "write", errno.ENOSPC, is_on_disk)
    with store.transaction() as transaction:
        for start in range(0, len(content), 100_000):
            transaction.write(content[start : start + 100_000])
        assert content_of(transaction.commit(NAME)) == content
    assert store.open_object(NAME) is None
    store.close()


@pytest.mark.parametrize("torn", [b"", b"SQLite format 3\0"])
def test_what_a_crash_has_left_of_a_file_is_replaced(
    directory: Path, store: PackedStore, torn: bytes
) -> None:
    """The record that told of it may be lost as well."""
    path = directory / NAME.cache_path()
    path.parent.mkdir()
    path.write_bytes(torn)
    content = b"SQLite format 3\0" + bytes(1000)
    assert content_of(put(store, NAME, content)) == content
    assert content_of(store.open_object(NAME)) == content


def test_the_use_of_an_own_file_is_noted(directory: Path, store: PackedStore) -> None:
    """Where times of access are not kept, the oldest catalog would go first."""
    os.close(put(store, NAME, bytes(PACKED_BYTES_MAX + 1)))
    path = directory / NAME.cache_path()
    os.utime(path, (LONG_AGO_S, LONG_AGO_S))
    os.close(store.open_object(NAME) or -1)
    assert path.stat().st_mtime > LONG_AGO_S


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
    monkeypatch.setattr(pack_tidying, "PACKS_MAX", 4)
    write_at_once(directory, {name: b"content of " + name.digest for name in names(8)})
    store = PackedStore.open(str(directory))
    os.close(put(store, LARGE, bytes(PACKED_BYTES_MAX + 1)))
    store.close()
    for path in (directory / DIRECTORY).iterdir():
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


def test_far_from_the_limit_nobody_is_asked_for_sizes_or_the_lease(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is a message to the file server, for every job that begins."""
    monkeypatch.setattr(pack_tidying, "PACKS_MAX", 4)
    write_at_once(directory, {name: b"content of " + name.digest for name in names(8)})
    for path in (directory / DIRECTORY).iterdir():
        os.utime(path)
    asked: list[str] = []

    def note(path: object, *_arguments: object, **_keywords: object) -> bool:
        asked.append(str(path))
        return False

    fail_calls(monkeypatch, "stat", errno.EIO, note)
    fail_calls(monkeypatch, "open", errno.EIO, note)
    store = PackedStore.open(str(directory), LIMIT_BYTES)
    assert store.open_object(NAME) is None
    os.close(put(store, NAME, b"one more"))
    settle(store)
    store.close()
    assert len([path for path in asked if path.endswith(INDEX)]) >= 8
    assert len([path for path in asked if path.endswith(PACK)]) == 1  # to go on with
    assert not [path for path in asked if LEASE in path]


# -- what the limit counts ------------------------------------------------------------


def settle(store: PackedStore) -> None:
    """Wait until it has tidied up."""
    if (thread := store._tidying._thread) is not None:
        thread.join()


def all_bytes(directory: Path) -> int:
    files = [*(directory / DIRECTORY).iterdir(), *own_files_in(directory)]
    return sum(path.stat().st_size for path in files)


def on_another_node(store: PackedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a store write packs that are not those of neighbours."""
    monkeypatch.setattr(store._packs, "_node", "0" * 8)


def test_what_other_nodes_store_is_counted_when_they_begin_to(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their packs were rarely looked at, since they had not grown for long."""
    limit_bytes = 32_000_000
    ours = PackedStore.open(str(directory), limit_bytes)
    theirs = PackedStore.open(str(directory))  # does not tidy up
    on_another_node(theirs, monkeypatch)
    os.close(put(theirs, NAME, b"x"))
    os.close(put(ours, LARGE, b"x"))
    now_s = time.monotonic()
    monkeypatch.setattr(ours._packs.lookout, "_clock", lambda: now_s)
    for _ in range(20):
        now_s += 700
        ours._packs.lookout.look_again()
    for name in names(75):
        os.close(put(theirs, name, b"x" * 400_000))
    now_s += pack_lookout.REFRESH_S + 1
    for name in names(85)[75:]:
        os.close(put(ours, name, b"x" * 400_000))
        settle(ours)
        assert all_bytes(directory) <= limit_bytes * 34 // 32
    ours.close()
    theirs.close()


def test_the_indexes_count_as_well(directory: Path) -> None:
    """Of many tiny objects they are larger than the packs."""
    limit_bytes = 64_000
    for start in range(0, 3000, 300):
        store = PackedStore.open(str(directory), limit_bytes)
        store._packs._pack_bytes = 2000
        for name in names(start + 300)[start:]:
            os.close(put(store, name, b"tiny"))
            settle(store)
        assert all_bytes(directory) <= limit_bytes * 34 // 32
        store.close()


def damaged(directory: Path, suffix: str) -> None:
    for path in (directory / DIRECTORY).glob(f"*{suffix}"):
        path.write_bytes(b"x" * path.stat().st_size)
        os.utime(path, (LONG_AGO_S, LONG_AGO_S))


def test_packs_that_nobody_can_read_count_and_go(directory: Path) -> None:
    write_at_once(directory, dict.fromkeys(names(6), b"x" * PACKED_BYTES_MAX))
    damaged(directory, INDEX)
    store = PackedStore.open(str(directory), 4 * PACKED_BYTES_MAX)
    os.close(put(store, NAME, b"y"))
    store.close()
    assert all_bytes(directory) < 1000


@pytest.mark.parametrize("lost", ["all", "index"])
@pytest.mark.parametrize("limit_bytes", [0, LIMIT_BYTES])
def test_files_that_no_pack_tells_of_any_more_are_told_of_anew(
    directory: Path, lost: str, limit_bytes: int
) -> None:
    """Or nobody would find them, count them, or remove them."""
    write_at_once(directory, LARGE_ONE)
    if lost == "all":
        shutil.rmtree(directory / DIRECTORY)
    else:
        damaged(directory, INDEX)
    store = PackedStore.open(str(directory), limit_bytes)
    assert not store.has(LARGE)
    os.close(put(store, NAME, b"y"))
    store.close()
    reader = PackedStore.open(str(directory))
    assert content_of(reader.open_object(LARGE)) == LARGE_ONE[LARGE]
    assert reader.used_bytes() == len(LARGE_ONE[LARGE]) + 1
    reader.close()


def test_a_new_cache_is_not_searched_for_files(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = PackedStore.open(str(directory), LIMIT_BYTES)
    calls = count_calls(monkeypatch, "open", "stat", "listdir", "scandir", "mkdir")
    for name in names(100):
        os.close(put(store, name, b"x"))
    store.close()
    assert len(calls) < 20


def test_many_packs_are_put_together_by_who_only_reads(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While others read them, too: each time of use is recent."""
    write_at_once(directory, {name: b"content of " + name.digest for name in names(9)})
    for path in packs_in(directory):
        os.utime(path)
    other = PackedStore.open(str(directory))  # which does not find them too many
    for name in names(9):
        assert content_of(other.open_object(name)) == b"content of " + name.digest
    with files_of_a_server():
        with monkeypatch.context() as patch:
            patch.setattr(pack_tidying, "PACKS_MAX", 4)
            patch.setattr(packed, "MANY_PACKS", 6)
            store = PackedStore.open(str(directory), LIMIT_BYTES)
            assert store.open_object(NAME) is None
            store.close()
        assert len(packs_in(directory)) == 1
        monkeypatch.setattr(other._packs.lookout, "_looked_s", -100.0)
        for name in names(9):
            found = other.open_object(name)
            assert content_of(found) == b"content of " + name.digest
        other.close()


def test_few_packs_are_left_alone_by_who_only_reads(directory: Path) -> None:
    write_at_once(directory, dict.fromkeys(names(packed.MANY_PACKS - 1), b"x"))
    before = sorted((directory / DIRECTORY).iterdir())
    store = PackedStore.open(str(directory), LIMIT_BYTES)
    os.close(store.open_object(names(1)[0]) or -1)
    store.close()
    assert sorted((directory / DIRECTORY).iterdir()) == before


def test_packs_of_tiny_objects_are_not_put_together_for_ever(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An index that is full is no reason to take a pack for small."""
    for module in (packs, pack_lookout, pack_tidying):
        monkeypatch.setattr(module, "INDEX_BYTES_MAX", 8 * RECORD_BYTES)
    monkeypatch.setattr(pack_tidying, "PACKS_MAX", 2)
    store = PackedStore.open(str(directory))
    for name in names(35):
        os.close(put(store, name, b"tiny"))
    store.close()
    for path in (directory / DIRECTORY).iterdir():
        os.utime(path, (LONG_AGO_S, LONG_AGO_S))
    before = {path.name: path.stat().st_size for path in packs_in(directory)}
    assert len(before) == 5
    store = PackedStore.open(str(directory), LIMIT_BYTES)
    os.close(put(store, NAME, b"one more"))
    store.close()
    left = {path.name for path in packs_in(directory)}
    assert len(left & before.keys()) == 5


@pytest.mark.parametrize("fails", [errno.EIO, errno.ESTALE])
def test_a_disk_that_fails_is_read_past(
    directory: Path, monkeypatch: pytest.MonkeyPatch, fails: int
) -> None:
    """Whatever is asked of it: no error reaches a reader, one warning the user."""
    store = PackedStore.open(str(directory), LIMIT_BYTES)
    for name in names(4):
        os.close(put(store, name, b"x" * 1000))
    os.close(put(store, LARGE, LARGE_ONE[LARGE]))
    said: list[str] = []
    monkeypatch.setattr(log, "warning", lambda text, *rest: said.append(text % rest))

    def is_of_the_cache(*arguments: object, dir_fd: int | None = None) -> bool:
        if isinstance(arguments[0], str):
            return dir_fd is not None
        return str(directory) in os.readlink(f"/proc/self/fd/{arguments[0]}")

    with monkeypatch.context() as patch:
        patch.setattr("cvmfsexec.cache.refusals._FLEETING_S", 0.0)
        for call in ("open", "pread", "pwrite", "stat", "write", "utime"):
            fail_calls(patch, call, fails, is_of_the_cache)
        for name in names(20):
            found = store.open_object(name)
            assert found is None
            assert content_of(put(store, name, b"x" * 1000)) == b"x" * 1000
        assert store.open_object(LARGE) is None
        assert content_of(put(store, LARGE, LARGE_ONE[LARGE])) == LARGE_ONE[LARGE]
        store.used_bytes()
    assert len([text for text in said if "cannot read" not in text]) == 1
    store.close()


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
