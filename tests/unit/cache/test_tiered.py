"""Tiers: what is asked first, what is copied, what is never written."""

import errno
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvmfsexec.cache.directory import DirectoryStore
from cvmfsexec.cache.memory import MemoryStore
from cvmfsexec.cache.read_only import ReadOnlyStore
from cvmfsexec.cache.tiered import TieredStore
from cvmfsexec.errors import CacheError
from cvmfsexec.format.digest import ContentHash
from tests.support.store_contract import content_of, put
from tests.support.system_calls import fail_calls

CONTENT = b"what both may have\n" * 10
NAME = ContentHash.of(zlib.compress(CONTENT, 6))


@pytest.fixture
def lower_directory(tmp_path: Path) -> Path:
    path = tmp_path / "lower"
    path.mkdir()
    return path


@pytest.fixture(params=[False, True], ids=["believed", "verified"])
def lower(
    request: pytest.FixtureRequest, lower_directory: Path, tmp_path: Path
) -> ReadOnlyStore:
    workspace = str(tmp_path / "workspace") if request.param else None
    return ReadOnlyStore.open(str(lower_directory), workspace)


@pytest.fixture
def upper(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore.open(str(tmp_path / "upper"))


@pytest.fixture
def tiers(upper: DirectoryStore, lower: ReadOnlyStore) -> Iterator[TieredStore]:
    store = TieredStore(upper, lower, is_lower_written=False)
    yield store
    store.close()


def fill(directory: Path, content: bytes = CONTENT) -> Path:
    path = directory / NAME.cache_path()
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


def test_what_the_lower_one_has_is_copied_up(
    tiers: TieredStore, upper: DirectoryStore, lower_directory: Path
) -> None:
    fill(lower_directory)
    assert tiers.has(NAME)
    assert not upper.has(NAME)
    assert content_of(tiers.open_object(NAME)) == CONTENT
    assert upper.has(NAME)
    fill(lower_directory, b"changed")
    assert content_of(tiers.open_object(NAME)) == CONTENT


def test_what_both_lack_goes_to_the_upper_one(
    tiers: TieredStore, upper: DirectoryStore, lower_directory: Path
) -> None:
    assert tiers.open_object(NAME) is None
    assert content_of(put(tiers, NAME, CONTENT)) == CONTENT
    assert upper.has(NAME)
    assert list(lower_directory.iterdir()) == []


def test_removing_passes_over_the_lower_one(
    tiers: TieredStore, lower_directory: Path
) -> None:
    path = fill(lower_directory)
    os.close(put(tiers, NAME, CONTENT))
    tiers.remove(NAME)
    assert tiers.open_object(NAME) is None
    assert not tiers.has(NAME)
    assert path.read_bytes() == CONTENT
    os.close(put(tiers, NAME, CONTENT))
    assert content_of(tiers.open_object(NAME)) == CONTENT


def test_a_lower_one_that_is_written_gets_all(tmp_path: Path) -> None:
    upper, lower = MemoryStore(), DirectoryStore.open(str(tmp_path / "lower"))
    tiers = TieredStore(upper, lower, is_lower_written=True)
    os.close(put(tiers, NAME, CONTENT))
    assert upper.has(NAME)
    assert lower.has(NAME)
    lower.remove(NAME)
    upper.remove(NAME)
    with tiers.transaction() as transaction:
        transaction.write(CONTENT)
        assert transaction.keep(NAME)
    assert content_of(lower.open_object(NAME)) == CONTENT
    tiers.close()


def test_a_verified_lower_one_is_not_believed_blindly(
    tmp_path: Path, lower_directory: Path
) -> None:
    lower = ReadOnlyStore.open(str(lower_directory), str(tmp_path / "workspace"))
    fill(lower_directory, b"wrong")
    assert lower.has(NAME)
    assert lower.open_object(NAME) is None
    assert not lower.has(NAME)
    lower.close()


def test_a_read_only_store_keeps_nothing(lower: ReadOnlyStore) -> None:
    with pytest.raises(CacheError, match="only read"):
        lower.transaction()
    with lower.claim(NAME, patience_s=1) as is_ours:
        assert not is_ours
    lower.pin(NAME).release()
    assert lower.used_bytes() == 0
    lower.close()


def test_a_lower_cache_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="cannot read the lower cache"):
        ReadOnlyStore.open(str(tmp_path / "nothing"), None)


def test_what_a_disk_does_not_give_back_is_passed_over(
    tiers: TieredStore, lower_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inode = fill(lower_directory).stat().st_ino
    fail_calls(
        monkeypatch, "pread", errno.EIO, lambda fd, *_: os.fstat(fd).st_ino == inode
    )
    assert tiers.open_object(NAME) is None
    assert not tiers.has(NAME)
    assert content_of(put(tiers, NAME, CONTENT)) == CONTENT
    assert content_of(tiers.open_object(NAME)) == CONTENT


def test_what_a_disk_does_not_give_back_is_replaced_where_we_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lower = DirectoryStore.open(str(tmp_path / "lower"))
    tiers = TieredStore(MemoryStore(), lower, is_lower_written=True)
    os.close(put(lower, NAME, CONTENT))
    held = os.open(tmp_path / "lower" / NAME.cache_path(), os.O_RDONLY)
    inode = os.fstat(held).st_ino
    fail_calls(
        monkeypatch, "pread", errno.EIO, lambda fd, *_: os.fstat(fd).st_ino == inode
    )
    assert tiers.open_object(NAME) is None
    os.close(put(tiers, NAME, CONTENT))
    assert content_of(lower.open_object(NAME)) == CONTENT
    os.close(held)
    tiers.close()


def test_without_room_above_what_is_below_is_read(
    lower_directory: Path, lower: ReadOnlyStore
) -> None:
    tiers = TieredStore(ReadOnlyStore.open("/", None), lower, is_lower_written=False)
    fill(lower_directory)
    assert content_of(tiers.open_object(NAME)) == CONTENT
    tiers.close()


def test_without_descriptors_an_object_is_not_taken_for_absent(
    lower: ReadOnlyStore, lower_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(lower_directory)
    with monkeypatch.context() as patch:
        fail_calls(patch, "open", errno.EMFILE)
        with pytest.raises(CacheError, match="Too many open files"):
            lower.open_object(NAME)
    assert content_of(lower.open_object(NAME)) == CONTENT
    lower.close()
