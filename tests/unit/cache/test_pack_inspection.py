"""What ``cvmfs fsck`` finds in packs, and that it is fetched again after a repair."""

import errno
import os
from contextlib import closing
from pathlib import Path

import pytest

from cvmfsexec.cache.faults import Problem, Remedy, Tally
from cvmfsexec.cache.pack_inspection import inspect_packs
from cvmfsexec.cache.packed import PackedStore
from cvmfsexec.errors import CacheError
from cvmfsexec.format.digest import ContentHash
from tests.support.store_contract import content_of, put
from tests.support.system_calls import fail_calls

COUNT, SIZE = 20, 500


def name(number: int) -> ContentHash:
    return ContentHash.of(b"%d" % number)


def content(number: int) -> bytes:
    return bytes([number]) * SIZE


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "cache"
    with closing(PackedStore.open(str(root))) as store:
        for number in range(COUNT):
            assert content_of(put(store, name(number), content(number)))
    return root


def inspected(root: Path, *, repairs: bool = False) -> list[Tally]:
    return list(inspect_packs(str(root), Remedy(repairs=repairs)))


def the_pack(root: Path) -> Path:
    (pack,) = root.glob("cvmfsexec.packs/*.pack")
    return pack


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def test_sound_packs_are_counted(root: Path) -> None:
    (tally,) = inspected(root)
    assert tally == Tally(COUNT, COUNT * SIZE, (), ())


def test_a_flipped_bit_is_found_mended_and_fetched_again(root: Path) -> None:
    flip(the_pack(root), 3 * SIZE + 7)
    for _ in range(2):
        (tally,) = inspected(root)
        (fault,) = tally.faults
        assert fault.path == f"cvmfsexec.packs/{the_pack(root).name}"
        assert fault.problem is Problem.CORRUPT
        assert fault.detail == f"object {name(3)}"
        assert not fault.is_fixed
    assert [f.is_fixed for tally in inspected(root, repairs=True) for f in tally.faults]
    tallies = inspected(root)
    assert sum(tally.object_count for tally in tallies) == COUNT - 1
    assert not any(tally.faults for tally in tallies)
    with closing(PackedStore.open(str(root))) as store:
        assert store.open_object(name(3)) is None
        assert content_of(put(store, name(3), content(3))) == content(3)
    assert sum(tally.object_count for tally in inspected(root)) == COUNT


def test_a_pack_that_was_cut_off(root: Path) -> None:
    os.truncate(the_pack(root), 4 * SIZE)
    (tally,) = inspected(root)
    assert len(tally.faults) == COUNT - 4
    inspected(root, repairs=True)
    assert not any(tally.faults for tally in inspected(root))


def test_what_cannot_be_mended_is_told(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flip(the_pack(root), 0)

    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("cvmfsexec.cache.packs.Packs.remove", refuse)
    (tally,) = inspected(root, repairs=True)
    (fault,) = tally.faults
    assert not fault.is_fixed
    assert fault.detail.endswith("; Read-only file system")


def test_a_directory_without_packs_has_none(tmp_path: Path) -> None:
    assert inspected(tmp_path) == []
    with pytest.raises(CacheError, match="cannot open"):
        inspected(tmp_path / "nowhere")


def the_index(root: Path) -> Path:
    (index,) = root.glob("cvmfsexec.packs/*.index")
    return index


@pytest.mark.parametrize(
    ("record", "left_count"), [(0, 0), (5, COUNT - 1)], ids=["header", "one object"]
)
def test_a_damaged_index_is_found_and_mended(
    root: Path, record: int, left_count: int
) -> None:
    large = ContentHash.of(b"large")
    with closing(PackedStore.open(str(root))) as store:
        assert content_of(put(store, large, bytes(1 << 20))) == bytes(1 << 20)
    flip(the_index(root), record * 64 + 30)
    before = the_index(root).name
    for repairs in (False, True):
        (tally,) = inspected(root, repairs=repairs)
        (fault,) = tally.faults
        assert fault.path == f"cvmfsexec.packs/{before}"
        assert fault.problem is Problem.DAMAGED_RECORD
        assert fault.is_fixed == repairs
    assert the_index(root).name != before
    (tally,) = inspected(root)
    assert (tally.object_count, tally.faults) == (left_count, ())
    with closing(PackedStore.open(str(root))) as store:
        found = [number for number in range(COUNT) if store.has(name(number))]
        assert len(found) == left_count
        for number in found:
            assert content_of(store.open_object(name(number))) == content(number)
        assert content_of(store.open_object(large)) == bytes(1 << 20)


def test_a_damaged_index_that_is_written_is_left_to_its_writer(root: Path) -> None:
    flip(the_index(root), 5 * 64 + 30)
    with closing(PackedStore.open(str(root))) as store:
        assert content_of(put(store, name(99), b"one more")) == b"one more"
        (tally,) = inspected(root, repairs=True)
        (fault,) = tally.faults
        assert not fault.is_fixed
    (tally,) = inspected(root, repairs=True)
    assert [fault.is_fixed for fault in tally.faults] == [True]
    (tally,) = inspected(root)
    assert (tally.object_count, tally.faults) == (COUNT, ())


def test_the_torn_end_of_an_index_is_no_fault(root: Path) -> None:
    with the_index(root).open("ab") as file:
        file.write(b"x" * 100)
    (tally,) = inspected(root)
    assert (tally.object_count, tally.faults) == (COUNT, ())


def test_a_pack_that_is_just_being_made_is_no_fault(root: Path) -> None:
    for suffix in (".pack", ".index"):
        (root / "cvmfsexec.packs" / f"{'0' * 16}{suffix}").touch()
    assert not any(tally.faults for tally in inspected(root, repairs=True))


@pytest.mark.parametrize("call", ["unlink", "pwrite"])
def test_an_index_that_cannot_be_mended_is_told(
    root: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    flip(the_index(root), 5 * 64 + 30)
    with monkeypatch.context() as patch:
        fail_calls(patch, call, errno.EROFS)
        (tally,) = inspected(root, repairs=True)
        assert [fault.is_fixed for fault in tally.faults] == [False]
    with closing(PackedStore.open(str(root))) as store:
        assert content_of(store.open_object(name(7))) == content(7)
