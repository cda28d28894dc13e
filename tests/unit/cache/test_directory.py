import errno
import functools
import itertools
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cvmfsexec.cache import ledger, scratch
from cvmfsexec.cache.directory import DirectoryStore
from cvmfsexec.cache.private_directory import open_private_directory
from cvmfsexec.cache.read_only import ReadOnlyStore
from cvmfsexec.errors import CacheError
from cvmfsexec.format.digest import ContentHash, HashAlgorithm
from tests.support.descriptors import descriptor_count
from tests.support.file_systems import Lack, file_system, is_pending, is_unnamed
from tests.support.store_contract import CONTENT, NAME, content_of, put
from tests.support.system_calls import count_calls, fail_calls, run_and_die_at

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO)
LONG = bytes(range(256)) * 4096


class Clock:
    """A clock that stands until it is set."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture(params=[Lack.NOTHING, Lack.UNNAMED_FILES])
def lack(request: pytest.FixtureRequest) -> Lack:
    return Lack(request.param)


@pytest.fixture
def store(root: Path, lack: Lack) -> Iterator[DirectoryStore]:
    with file_system(lack):
        store = DirectoryStore.open(str(root))
        store.pending.discard(store.pending.create())  # it knows now
    yield store
    store.close()


NAMED_FILES = pytest.mark.parametrize("lack", [Lack.UNNAMED_FILES], indirect=True)
UNNAMED_FILES = pytest.mark.parametrize("lack", [Lack.NOTHING], indirect=True)


def files_in(root: Path) -> list[Path]:
    return [
        path
        for path in root.rglob("*")
        if path.is_file() and path.name != ledger.FILE_NAME
    ]


def pending_files(root: Path) -> list[Path]:
    return [path for path in files_in(root) if path.parent.name == "txn"]


# Layout


@pytest.mark.parametrize("algorithm", HashAlgorithm)
def test_objects_lie_where_the_original_looks_for_them(
    store: DirectoryStore, root: Path, algorithm: HashAlgorithm
) -> None:
    name = ContentHash(bytes(range(0x10, 0x24)), algorithm)
    os.close(put(store, name, CONTENT))
    rest = "1112131415161718191a1b1c1d1e1f20212223" + algorithm.suffix
    assert (root / "10" / rest).read_bytes() == CONTENT


def test_nobody_else_can_read_anything(store: DirectoryStore, root: Path) -> None:
    before = os.umask(0)
    try:
        os.close(put(store, NAME, CONTENT))
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in files_in(root)} == {0o600}
    directories = [root, *(path for path in root.rglob("*") if path.is_dir())]
    assert {stat.S_IMODE(path.stat().st_mode) for path in directories} == {0o700}
    assert len(directories) >= 2


@UNNAMED_FILES
def test_an_uncommitted_object_is_nowhere(store: DirectoryStore, root: Path) -> None:
    with store.transaction() as transaction:
        transaction.write(CONTENT)
        assert files_in(root) == []
    assert os.listdir(root) == [ledger.FILE_NAME]


@NAMED_FILES
def test_an_uncommitted_object_lies_in_txn_only(
    store: DirectoryStore, root: Path
) -> None:
    with store.transaction() as transaction:
        transaction.write(CONTENT)
        assert files_in(root) == pending_files(root) != []
    assert files_in(root) == []


def test_a_committed_objects_descriptor_leads_to_its_name(
    store: DirectoryStore, root: Path
) -> None:
    for _ in ("first", "again"):
        descriptor = put(store, NAME, CONTENT)
        link = os.readlink(f"/proc/self/fd/{descriptor}")
        os.close(descriptor)
        assert link == str(root / NAME.cache_path())


@UNNAMED_FILES
def test_without_that_the_descriptor_is_still_good_to_read(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_object(path: object, *_: object, **__: object) -> bool:
        return path == NAME.cache_path()

    fail_calls(monkeypatch, "open", errno.EMFILE, is_object)
    descriptor = put(store, NAME, CONTENT)
    assert os.readlink(f"/proc/self/fd/{descriptor}").endswith(" (deleted)")
    assert content_of(descriptor) == CONTENT
    monkeypatch.undo()
    assert store.has(NAME)


def test_what_a_file_system_lacks_is_found_out_once(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = ContentHash.of(b"other")
    for call, when in (("open", is_unnamed), ("link", lambda *_, **__: True)):
        store = DirectoryStore.open(str(root))
        refused = fail_calls(monkeypatch, call, errno.EOPNOTSUPP, when)
        for name in (NAME, other):
            store.remove(name)
            assert content_of(put(store, name, CONTENT)) == CONTENT
            assert content_of(store.open_object(name)) == CONTENT
        # Links of files without names, and of those with names.
        assert len(refused) == (1 if call == "open" else 2)
        assert pending_files(root) == []
        monkeypatch.undo()
        store.close()


def test_commit_leaves_nothing_in_txn(store: DirectoryStore, root: Path) -> None:
    os.close(put(store, NAME, CONTENT))
    assert pending_files(root) == []


def test_a_warm_open_is_two_system_calls(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.close(put(store, NAME, CONTENT))
    calls = count_calls(
        monkeypatch, "open", "stat", "fstat", "access", "listdir", "utime"
    )
    descriptor = store.open_object(NAME)
    monkeypatch.undo()
    assert content_of(descriptor) == CONTENT
    assert calls == ["open", "fstat"]


@pytest.mark.parametrize("missing", ["txn", NAME.cache_path()[:2]])
def test_a_removed_directory_is_made_again(
    store: DirectoryStore, root: Path, missing: str
) -> None:
    os.close(put(store, NAME, CONTENT))
    store.remove(NAME)
    if (root / missing).exists():
        (root / missing).rmdir()
    os.close(put(store, NAME, CONTENT))
    assert content_of(store.open_object(NAME)) == CONTENT


def test_the_store_follows_its_directory_when_that_is_moved(
    store: DirectoryStore, root: Path
) -> None:
    os.close(put(store, NAME, CONTENT))
    root.rename(root.with_name("elsewhere"))
    assert content_of(store.open_object(NAME)) == CONTENT


# Several processes


def test_stores_on_one_directory_see_each_other(
    store: DirectoryStore, root: Path
) -> None:
    other = DirectoryStore.open(str(root))
    os.close(put(other, NAME, CONTENT))
    other.close()
    assert content_of(store.open_object(NAME)) == CONTENT


def test_a_start_leaves_the_files_of_the_living_alone(
    store: DirectoryStore, root: Path
) -> None:
    with store.transaction() as transaction:
        transaction.write(CONTENT)
        DirectoryStore.open(str(root)).close()
        os.close(transaction.commit(NAME))
    assert content_of(store.open_object(NAME)) == CONTENT


@NAMED_FILES
def test_a_live_file_that_was_taken_for_a_dead_one_is_not_kept(
    store: DirectoryStore, root: Path
) -> None:
    with store.transaction() as transaction:
        transaction.write(CONTENT)
        for path in pending_files(root):
            path.unlink()
        assert content_of(transaction.commit(NAME)) == CONTENT
    assert not store.has(NAME)
    os.close(put(store, NAME, CONTENT))
    assert store.has(NAME)


def test_a_forked_child_does_not_write_to_its_parents_file(
    store: DirectoryStore, root: Path
) -> None:
    other = ContentHash.of(b"other")
    mine = store.transaction()  # before and after the fork, both count from here
    assert not run_and_die_at(0, lambda: put(store, other, b"the child's"))
    mine.write(CONTENT)
    assert content_of(store.open_object(other)) == b"the child's"
    assert content_of(mine.commit(NAME)) == CONTENT
    assert pending_files(root) == []


@pytest.mark.parametrize("lack", Lack, indirect=True)
@pytest.mark.parametrize("content", [CONTENT, LONG], ids=["small", "large"])
def test_death_at_any_system_call_leaves_a_whole_object_or_none(
    root: Path, content: bytes, lack: Lack
) -> None:
    def fill(directory: Path) -> None:
        with file_system(lack):
            fill_store(DirectoryStore.open(str(directory)))

    def fill_store(store: DirectoryStore) -> None:
        with store.transaction() as transaction:
            transaction.write(content[: len(content) // 2])
            transaction.write(content[len(content) // 2 :])
            os.close(transaction.commit(NAME))
        store.close()

    was_stored = []
    for call_number in itertools.count(1):
        directory = root / str(call_number)
        if not run_and_die_at(call_number, functools.partial(fill, directory)):
            break
        left = {path.name for path in files_in(directory)}
        assert left <= {NAME.cache_path()[3:]} or lack is not Lack.NOTHING
        store = DirectoryStore.open(str(directory))
        assert pending_files(directory) == []
        was_stored.append(store.has(NAME))
        if store.has(NAME):
            assert content_of(store.open_object(NAME)) == content
        store.close()
    assert was_stored == sorted(was_stored), "first absent, then there"
    assert set(was_stored) == {False, True}


# Without room


@pytest.fixture
def warnings_seen(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    return lambda: [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize("error", NO_ROOM, ids=errno.errorcode.get)
@pytest.mark.parametrize("refused", ["a file", "its name"])
def test_a_directory_that_refuses_is_done_without(
    store: DirectoryStore,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    warnings_seen: Callable[[], list[str]],
    refused: str,
    error: int,
) -> None:
    if refused == "a file":
        fail_calls(monkeypatch, "open", error, is_pending)
    else:
        fail_calls(monkeypatch, "link", error)
        fail_calls(monkeypatch, "rename", error)
    for _ in range(3):
        assert content_of(put(store, NAME, CONTENT)) == CONTENT
    assert not store.has(NAME)
    assert pending_files(root) == []
    (warning,) = warnings_seen()
    assert warning.startswith(
        f"cache directory {root}: {os.strerror(error)}; "
        "what does not fit is read without being kept"
    )


@pytest.mark.parametrize("error", NO_ROOM, ids=errno.errorcode.get)
@pytest.mark.parametrize("full", ["cache", "cache and scratch"])
def test_a_disk_that_fills_while_an_object_is_written(
    store: DirectoryStore,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    warnings_seen: Callable[[], list[str]],
    error: int,
    full: str,
) -> None:
    def is_on_full_disk(descriptor: int, _data: object) -> bool:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        on_disk = path.startswith("/memfd:") is False
        return (path.startswith(str(root)) if full == "cache" else on_disk) and (
            os.fstat(descriptor).st_size >= 600_000
        )

    failed = fail_calls(monkeypatch, "write", error, is_on_full_disk)
    with store.transaction() as transaction:
        for start in range(0, len(LONG), 100_000):
            transaction.write(LONG[start : start + 100_000])
        descriptor = transaction.commit(NAME)
    assert len(failed) == (1 if full == "cache" else 2)
    assert content_of(descriptor) == LONG
    assert not store.has(NAME)
    assert pending_files(root) == []
    assert len(warnings_seen()) == 1


def test_writes_may_be_partial(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write
    monkeypatch.setattr(
        os, "write", lambda descriptor, data: real(descriptor, data[:70_000])
    )
    assert content_of(put(store, NAME, LONG)) == LONG


@NAMED_FILES
def test_what_a_network_file_system_refuses_on_close_is_told(
    store: DirectoryStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_calls(monkeypatch, "dup", errno.EDQUOT)
    with pytest.raises(CacheError, match="quota"):
        put(store, NAME, CONTENT)
    assert not store.has(NAME)
    assert pending_files(root) == []
    assert content_of(put(store, NAME, CONTENT)) == CONTENT, "it is kept elsewhere"


def test_the_directory_is_asked_again_after_a_minute(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    store = DirectoryStore(str(root), open_private_directory(str(root)), clock=clock)
    fail_calls(monkeypatch, "open", errno.ENOSPC, is_pending)
    os.close(put(store, NAME, CONTENT))
    monkeypatch.undo()
    clock.now_s += 59
    os.close(put(store, NAME, CONTENT))
    assert not store.has(NAME)
    clock.now_s += 2
    os.close(put(store, NAME, CONTENT))
    assert store.has(NAME)
    store.close()


def test_a_directory_that_is_deleted_is_done_without(
    store: DirectoryStore, root: Path
) -> None:
    os.close(put(store, NAME, CONTENT))
    for path in sorted(root.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    root.rmdir()
    assert store.open_object(NAME) is None
    assert content_of(put(store, NAME, CONTENT)) == CONTENT
    store.remove(NAME)


def test_no_scratch_directory_leaves_memory(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = DirectoryStore(
        str(root),
        open_private_directory(str(root)),
        scratch_directory=str(root / "missing"),
    )
    fail_calls(monkeypatch, "open", errno.ENOSPC, is_pending)
    descriptor = put(store, NAME, CONTENT)
    assert "memfd" in os.readlink(f"/proc/self/fd/{descriptor}")
    assert content_of(descriptor) == CONTENT
    store.close()


def test_a_large_object_is_not_kept_in_memory(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = DirectoryStore(
        str(root),
        open_private_directory(str(root)),
        scratch_directory=str(root / "missing"),
    )
    fail_calls(monkeypatch, "open", errno.ENOSPC, is_pending)
    monkeypatch.setattr(scratch, "MEMORY_BYTES_MAX", 10)
    with store.transaction() as transaction:
        transaction.write(b"12345")
        transaction.write(b"67890")
        assert content_of(transaction.commit(NAME)) == b"1234567890"
    with store.transaction() as transaction:
        transaction.write(b"1234567890")
        with pytest.raises(CacheError, match="no room") as caught:
            transaction.write(b"1")
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ENOSPC
    store.close()


def test_what_was_written_already_may_be_too_large_for_memory(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = DirectoryStore(
        str(root),
        open_private_directory(str(root)),
        scratch_directory=str(root / "missing"),
    )
    monkeypatch.setattr(scratch, "MEMORY_BYTES_MAX", 10)
    store.quota.begin()
    before = descriptor_count()
    with store.transaction() as transaction:
        transaction.write(b"more than ten")
        fail_calls(monkeypatch, "write", errno.ENOSPC)
        with pytest.raises(CacheError, match="no room"):
            transaction.write(b"!")
    assert descriptor_count() == before
    store.close()


def test_no_room_anywhere_is_an_error(
    store: DirectoryStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_calls(monkeypatch, "write", errno.ENOSPC)
    with (
        pytest.raises(CacheError, match="no room"),
        store.transaction() as transaction,
    ):
        transaction.write(CONTENT)
    monkeypatch.undo()
    assert pending_files(root) == []


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENFILE])
def test_too_many_open_files_is_not_blamed_on_the_directory(
    store: DirectoryStore,
    monkeypatch: pytest.MonkeyPatch,
    warnings_seen: Callable[[], list[str]],
    error: int,
) -> None:
    fail_calls(monkeypatch, "open", error)
    with pytest.raises(CacheError, match="open files"):
        store.transaction()
    with pytest.raises(CacheError, match="open files"):
        store.open_object(NAME)
    monkeypatch.undo()
    os.close(put(store, NAME, CONTENT))
    assert store.has(NAME)
    assert warnings_seen() == []


def test_an_object_on_a_broken_disk_counts_as_absent(
    store: DirectoryStore,
    monkeypatch: pytest.MonkeyPatch,
    warnings_seen: Callable[[], list[str]],
) -> None:
    os.close(put(store, NAME, CONTENT))
    fail_calls(monkeypatch, "open", errno.EIO)
    assert store.open_object(NAME) is None
    assert len(warnings_seen()) == 1


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_called_like_an_object_and_is_no_file_is_not_waited_for(
    store: DirectoryStore,
    root: Path,
    make: Callable[[Path], None],
    warnings_seen: Callable[[], list[str]],
) -> None:
    (root / NAME.cache_path()).parent.mkdir()
    make(root / NAME.cache_path())
    below = ReadOnlyStore.open(str(root), None)
    assert below.open_object(NAME) is None
    assert store.open_object(NAME) is None
    assert content_of(put(store, NAME, CONTENT)) == CONTENT
    store.remove(NAME)
    assert content_of(put(store, NAME, CONTENT)) == CONTENT
    assert (store.open_object(NAME) is None) == (make is os.mkdir)
    assert warnings_seen()[0].endswith("not a file")
    below.close()


def test_no_descriptor_is_lost(store: DirectoryStore, root: Path) -> None:
    before = descriptor_count()
    for _ in range(3):
        DirectoryStore.open(str(root)).close()
        os.close(put(store, NAME, CONTENT))
        store.transaction().abort()
        with pytest.raises(ZeroDivisionError), store.transaction():
            raise ZeroDivisionError
    assert descriptor_count() == before


# Usage


def test_usage_is_exact(store: DirectoryStore, root: Path) -> None:
    other = DirectoryStore.open(str(root))
    for number, size in enumerate((0, 1, 5000, 3_000_000)):
        os.close(put(store, ContentHash.of(b"%d" % number), bytes(size)))
        os.close(put(other, ContentHash.of(b"%d" % number), bytes(size)))
    assert store.used_bytes() == other.used_bytes() == 3_005_001
    store.remove(ContentHash.of(b"2"))
    store.remove(ContentHash.of(b"2"))
    assert store.used_bytes() == other.used_bytes() == 3_000_001
    other.close()
    assert store.used_bytes() == 3_000_001


def test_a_use_is_noted_once_a_minute(
    store: DirectoryStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.close(put(store, NAME, CONTENT))
    path = root / NAME.cache_path()
    now_s = time.time()
    for age_s, is_noted in ((50, False), (70, True), (10**6, True), (-70, True)):
        os.utime(path, (now_s, now_s - age_s))
        calls = count_calls(monkeypatch, "utime")
        os.close(store.open_object(NAME) or -1)
        monkeypatch.undo()
        assert calls == ["utime"] * is_noted
        assert (abs(path.stat().st_mtime - now_s) < 20) == is_noted


def test_an_object_whose_use_cannot_be_noted_does_not_stand_for_others(
    store: DirectoryStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be immutable, or somebody else's."""
    other = ContentHash.of(b"another")
    for name in (NAME, other):
        os.close(put(store, name, CONTENT))
        os.utime(root / name.cache_path(), (0, 0))
    locked = (root / NAME.cache_path()).stat().st_ino
    fail_calls(
        monkeypatch, "utime", errno.EPERM, lambda fd, **_: os.fstat(fd).st_ino == locked
    )
    for name in (NAME, other):
        assert content_of(store.open_object(name)) == CONTENT
    assert (root / NAME.cache_path()).stat().st_mtime == 0
    assert (root / other.cache_path()).stat().st_mtime > 0


def test_a_use_that_cannot_be_noted_is_none_the_less(
    store: DirectoryStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.close(put(store, NAME, CONTENT))
    os.utime(root / NAME.cache_path(), (0, 0))
    failed = fail_calls(monkeypatch, "utime", errno.EROFS)
    for _ in range(2):
        assert content_of(store.open_object(NAME)) == CONTENT
    assert len(failed) == 1


def test_a_file_in_the_way_concerns_only_what_belongs_there(
    store: DirectoryStore, root: Path, warnings_seen: Callable[[], list[str]]
) -> None:
    (root / NAME.cache_path()).parent.touch()
    assert content_of(put(store, NAME, CONTENT)) == CONTENT
    assert store.open_object(NAME) is None
    other = ContentHash.of(b"another directory")
    os.close(put(store, other, CONTENT))
    found = store.open_object(other)
    assert found is not None
    os.close(found)
    assert len(warnings_seen()) == 2
