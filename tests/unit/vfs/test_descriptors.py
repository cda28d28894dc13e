"""Open objects: shared, bounded, and never closed under a reader."""

import errno
import itertools
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.errors import TransferError, UnreadableObjectError
from cvmfsexec.fetch import ObjectRequest
from cvmfsexec.format.digest import ContentHash, ObjectKind
from cvmfsexec.format.dirent import Compression
from cvmfsexec.vfs.descriptors import DescriptorCache
from tests.support.descriptors import descriptor_count, descriptors_below
from tests.support.system_calls import fail_calls

Missed = Callable[[], object] | None

SIZE = 4096


def request(number: int) -> ObjectRequest:
    name = ContentHash.of(b"%d" % number)
    return ObjectRequest(name, ObjectKind.FILE, SIZE, Compression.ZLIB, SIZE)


def content(number: int) -> bytes:
    return bytes([number % 256]) * SIZE


class Opener:
    """Opens files in a directory by content hash.

    Attributes:
        opened: How often.
        gate: Opening waits until it is set; it is, unless a test clears it.
        waiting: Set while somebody waits at the gate.
        discarded: What was replaced.
    """

    def __init__(self, directory: Path, count: int) -> None:
        self.opened = 0
        self.gate = threading.Event()
        self.gate.set()
        self.waiting = threading.Event()
        self.discarded: list[ContentHash] = []
        self._directory = directory
        self._replacing = threading.Lock()
        for number in range(count):
            self.path(number).write_bytes(content(number))

    def path(self, number: int) -> Path:
        return self._directory / str(request(number).content_hash)

    def replace(self, content_hash: ContentHash, damaged: int) -> None:
        """Do what a cache does that is told to discard, with the next fetch."""
        path = self._directory / str(content_hash)
        with self._replacing:
            if not os.path.samestat(path.stat(), os.fstat(damaged)):
                return
            self.discarded.append(content_hash)
            self.put(content_hash)

    def put(self, content_hash: ContentHash) -> None:
        """Put a sound object in place of what is there."""
        path = self._directory / str(content_hash)
        fresh = path.with_suffix(f".{threading.get_ident()}")
        names = {request(number).content_hash: number for number in range(20)}
        fresh.write_bytes(content(names[content_hash]))
        fresh.rename(path)

    def __call__(self, wanted: ObjectRequest, missed: Missed = None) -> int:
        if missed is not None:
            missed()
        self.waiting.set()
        assert self.gate.wait(10)
        self.opened += 1
        try:
            return os.open(self._directory / str(wanted.content_hash), os.O_RDONLY)
        except FileNotFoundError:
            raise TransferError("nowhere") from None


@pytest.fixture
def opener(tmp_path: Path) -> Opener:
    return Opener(tmp_path, 20)


def test_an_object_is_opened_once(opener: Opener) -> None:
    cache = DescriptorCache(opener)
    for start in range(0, SIZE, 100):
        assert cache.read(request(1), start, 10) == content(1)[:10]
    assert (opener.opened, len(cache)) == (1, 1)


def test_who_opens_an_object_hears_that_it_is_missing(opener: Opener) -> None:
    cache = DescriptorCache(opener)
    heard: list[int] = []
    for number in (1, 1, 2):
        cache.read(request(number), 0, 1, partial(heard.append, number))
    assert heard == [1, 2]


def test_the_least_recently_used_is_closed(opener: Opener) -> None:
    before = descriptor_count()
    cache = DescriptorCache(opener, limit=3)
    for number in (0, 1, 2, 0, 3):  # 1 is the oldest now
        cache.read(request(number), 0, 1)
    assert descriptor_count() == before + 3
    opened = opener.opened
    for number in (0, 2, 3):
        cache.read(request(number), 0, 1)
    assert opener.opened == opened
    cache.read(request(1), 0, 1)
    assert opener.opened == opened + 1


def test_closing_gives_everything_back(opener: Opener) -> None:
    before = descriptor_count()
    cache = DescriptorCache(opener)
    for number in range(20):
        cache.read(request(number), 0, 1)
    cache.close()
    assert (descriptor_count(), len(cache)) == (before, 0)
    assert cache.read(request(1), 0, 1) == content(1)[:1]


def test_two_who_open_the_same_keep_one(opener: Opener) -> None:
    before = descriptor_count()
    cache = DescriptorCache(opener)
    opener.gate.clear()
    with ThreadPoolExecutor(4) as pool:
        reads = [pool.submit(cache.read, request(1), 0, SIZE) for _ in range(4)]
        opener.gate.set()
    assert {read.result() for read in reads} == {content(1)}
    assert descriptor_count() == before + 1


def test_a_descriptor_that_is_read_is_closed_by_its_reader(
    opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = descriptor_count()
    cache = DescriptorCache(opener, limit=1)
    reading, go_on = threading.Event(), threading.Event()
    pread = os.pread

    def slow_pread(descriptor: int, length: int, start: int) -> bytes:
        if length == SIZE:
            reading.set()
            assert go_on.wait(10)
        return pread(descriptor, length, start)

    monkeypatch.setattr(os, "pread", slow_pread)
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(cache.read, request(1), 0, SIZE)
        assert reading.wait(10)
        cache.read(request(2), 0, 1)  # pushes the other out
        assert len(cache) == 1
        assert descriptor_count() == before + 2
        go_on.set()
        assert slow.result(10) == content(1)
    assert descriptor_count() == before + 1


def test_many_threads_read_right_bytes_from_few_descriptors(opener: Opener) -> None:
    before = descriptor_count()
    cache = DescriptorCache(opener, limit=2)

    def read(number: int) -> bool:
        return cache.read(request(number % 20), 7, 100) == content(number % 20)[:100]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(2000)))
    assert len(cache) <= 2
    assert descriptor_count() <= before + 2


def test_an_object_that_was_cut_is_not_read_short(opener: Opener) -> None:
    cache = DescriptorCache(opener)
    os.truncate(opener.path(1), 100)
    assert cache.read(request(1), 0, 100) == content(1)[:100]
    with pytest.raises(UnreadableObjectError, match="cut short"):
        cache.read(request(1), 50, 100)


def test_a_failing_disk_is_an_error_of_the_object(tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)  # reading it fails as a disk might
    cache = DescriptorCache(lambda _request, _missed: directory)
    with pytest.raises(UnreadableObjectError, match="cannot read object"):
        cache.read(request(1), 0, 100)
    cache.close()


def test_a_cut_object_is_fetched_again_before_it_is_read_short(opener: Opener) -> None:
    before = descriptor_count()
    cache = DescriptorCache(opener, discard=opener.replace)
    assert cache.read(request(1), 0, 100) == content(1)[:100]
    os.truncate(opener.path(1), 100)
    assert cache.read(request(1), 50, 100) == content(1)[50:150]
    assert opener.discarded == [request(1).content_hash]
    assert descriptor_count() == before + 1


def test_an_unreadable_object_is_fetched_again(
    opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = DescriptorCache(opener, discard=opener.replace)
    bad = os.stat(opener.path(1)).st_ino
    pread = os.pread

    def failing_pread(descriptor: int, length: int, start: int) -> bytes:
        if os.fstat(descriptor).st_ino == bad:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return pread(descriptor, length, start)

    monkeypatch.setattr(os, "pread", failing_pread)
    assert cache.read(request(1), 0, SIZE) == content(1)
    assert cache.read(request(1), 0, SIZE) == content(1)
    assert opener.discarded == [request(1).content_hash]


@pytest.mark.parametrize("stale_reads", [1, 5, 10_000])
@pytest.mark.parametrize("fails", [errno.ESTALE, errno.ENOENT])
def test_what_another_node_has_replaced_is_opened_again_and_never_removed(
    opener: Opener, monkeypatch: pytest.MonkeyPatch, stale_reads: int, fails: int
) -> None:
    cache = DescriptorCache(opener, discard=opener.replace)
    calls = itertools.count(1)
    fail_calls(monkeypatch, "pread", fails, lambda *_: next(calls) <= stale_reads)
    monkeypatch.setattr("cvmfsexec.cache.open_files._PAUSE_S", 0.0)
    if stale_reads < 10:
        assert cache.read(request(1), 0, SIZE) == content(1)
        assert opener.opened == stale_reads + 1
    else:
        with pytest.raises(UnreadableObjectError, match="cannot read object"):
            cache.read(request(1), 0, SIZE)
    assert opener.discarded == []


def test_what_somebody_else_has_replaced_stays(opener: Opener) -> None:
    cache = DescriptorCache(opener, discard=opener.replace)
    cache.read(request(1), 0, 1)
    os.truncate(opener.path(1), 0)
    opener.put(request(1).content_hash)
    assert cache.read(request(1), 0, SIZE) == content(1)
    assert opener.discarded == []


def test_an_object_that_is_damaged_twice_is_an_error(opener: Opener) -> None:
    cache = DescriptorCache(opener, discard=lambda _hash, _damaged: None)
    os.truncate(opener.path(1), 100)
    with pytest.raises(UnreadableObjectError, match="cut short"):
        cache.read(request(1), 50, 100)


def test_readers_of_one_damaged_object_all_get_it_right(opener: Opener) -> None:
    before = descriptor_count()
    cache = DescriptorCache(opener, discard=opener.replace)
    cache.read(request(1), 0, 1)
    os.truncate(opener.path(1), 100)
    with ThreadPoolExecutor(8) as pool:
        reads = [pool.submit(cache.read, request(1), 50, 100) for _ in range(8)]
    assert {read.result() for read in reads} == {content(1)[50:150]}
    cache.close()
    assert descriptor_count() == before


def test_what_cannot_be_opened_is_not_remembered(opener: Opener) -> None:
    cache = DescriptorCache(opener)
    with pytest.raises(TransferError):
        cache.read(request(99), 0, 1)
    assert len(cache) == 0
    opener.path(99).write_bytes(content(99))
    assert cache.read(request(99), 0, 1) == content(99)[:1]


@given(reads=st.lists(st.integers(0, 19), max_size=60), limit=st.integers(1, 5))
def test_however_it_is_used_the_bound_holds(
    tmp_path_factory: pytest.TempPathFactory, reads: list[int], limit: int
) -> None:
    top = tmp_path_factory.mktemp("objects")
    cache = DescriptorCache(Opener(top, 20), limit)
    for number in reads:
        assert cache.read(request(number), 0, 10) == content(number)[:10]
        assert len(descriptors_below(top)) == len(cache) <= limit
    cache.close()
    assert not descriptors_below(top)
