import errno
import os
import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest

from cvmfsexec.cache import claims
from cvmfsexec.cache.directory import DirectoryStore
from cvmfsexec.errors import (
    CacheError,
    CvmfsError,
    FormatError,
    IntegrityError,
    NoRouteError,
    ObjectTooLargeError,
    TransferError,
)
from cvmfsexec.fetch import Fetcher, ObjectRequest, fetcher
from cvmfsexec.format.digest import ContentHash, HashAlgorithm, ObjectKind
from cvmfsexec.format.dirent import Compression
from tests.support.descriptors import descriptor_count
from tests.support.file_systems import Lack, file_system
from tests.support.memory_source import MemorySource
from tests.support.store_contract import content_of, put
from tests.support.system_calls import fail_calls

SMALL = b"".join(b"line %d\n" % number for number in range(300))
LARGE = b"".join(b"line %d\n" % number for number in range(60_000))
VERY_LARGE = bytes(range(256)) * 65_537
assert len(SMALL) <= fetcher.SMALL_BYTES < len(LARGE) <= fetcher.LARGE_BYTES
assert len(VERY_LARGE) > fetcher.LARGE_BYTES

Ask = Callable[[ObjectRequest], ObjectRequest]
Damage = Callable[[bytes], bytes]

SIZES = pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])


@pytest.fixture
def source() -> MemorySource:
    return MemorySource()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def store(root: Path) -> Iterator[DirectoryStore]:
    store = DirectoryStore.open(str(root))
    yield store
    store.close()


@pytest.fixture
def objects(source: MemorySource, store: DirectoryStore) -> Fetcher:
    return Fetcher(source, store)


@pytest.fixture(params=["size known", "size unknown"])
def asked(request: pytest.FixtureRequest) -> Ask:
    """Ask as a file's entry does, or as somebody who knows the hash only."""
    if request.param == "size known":
        return lambda wanted: wanted
    return lambda wanted: wanted._replace(size_bytes=None)


def files_in(root: Path) -> list[Path]:
    files = (path for path in root.glob("*/*") if path.is_file())
    return [path for path in files if path.name != claims.FILE_NAME]


# What is right


@pytest.mark.parametrize("compression", Compression)
@pytest.mark.parametrize("algorithm", HashAlgorithm)
@pytest.mark.parametrize("kind", ObjectKind)
def test_an_object_is_fetched_once_and_cached_decompressed(
    source: MemorySource,
    objects: Fetcher,
    root: Path,
    kind: ObjectKind,
    algorithm: HashAlgorithm,
    compression: Compression,
) -> None:
    request = source.publish(
        SMALL, kind=kind, algorithm=algorithm, compression=compression
    )
    for _ in range(2):
        assert content_of(objects.open(request)) == SMALL
    assert source.requests == [request.content_hash.object_path(kind)]
    assert (root / request.content_hash.cache_path()).read_bytes() == SMALL


@pytest.mark.parametrize("compression", Compression)
@pytest.mark.parametrize(
    "content", [b"", b"x", SMALL, LARGE, VERY_LARGE], ids=lambda c: str(len(c))
)
def test_objects_of_every_size(
    source: MemorySource,
    objects: Fetcher,
    content: bytes,
    compression: Compression,
) -> None:
    request = source.publish(content, compression=compression)
    for _ in range(2):
        assert content_of(objects.open(request)) == content
    assert len(source.requests) == 1
    assert source.limits == [request.stored_max_bytes]


@SIZES
def test_an_object_of_unknown_size(
    source: MemorySource, objects: Fetcher, content: bytes
) -> None:
    request = source.publish(content, kind=ObjectKind.CATALOG)
    request = request._replace(size_bytes=None)
    for _ in range(2):
        assert content_of(objects.open(request)) == content
    assert len(source.requests) == 1


def test_the_memory_for_large_objects_is_bounded(
    source: MemorySource, objects: Fetcher
) -> None:
    """Those that come when it is used up stream to the cache."""
    contents = [LARGE + b"%d" % number for number in range(6)]
    requests = [source.publish(content) for content in contents]
    source.gate.clear()
    with ThreadPoolExecutor(6) as pool:
        futures = [pool.submit(objects.open, request) for request in requests]
        while len(source.requests) < 6:
            threading.Event().wait(0.001)
        assert not objects._large.acquire(blocking=False)
        source.gate.set()
    assert [content_of(future.result()) for future in futures] == contents
    assert objects._large.acquire(blocking=False)


def test_read_returns_the_content(source: MemorySource, objects: Fetcher) -> None:
    request = source.publish(SMALL, kind=ObjectKind.CERTIFICATE)
    request = request._replace(size_bytes=None)
    assert objects.read(request, len(SMALL)) == SMALL
    assert objects.read(request, len(SMALL)) == SMALL
    with pytest.raises(ObjectTooLargeError):
        objects.read(request, len(SMALL) - 1)


def test_hits_and_misses_are_counted(source: MemorySource, objects: Fetcher) -> None:
    assert (objects.opened_count, objects.missed_count) == (0, 0)
    request, other = source.publish(SMALL), source.publish(LARGE)
    for wanted in (request, request, other, request):
        os.close(objects.open(wanted))
    assert (objects.opened_count, objects.missed_count) == (4, 2)
    source.answer(other.path)
    objects.discard(other.content_hash)
    with pytest.raises(TransferError):
        objects.open(other)
    assert (objects.opened_count, objects.missed_count) == (5, 3)


# What is wrong


@SIZES
@pytest.mark.parametrize(
    "damage",
    [
        lambda _: b"",
        lambda stored: stored[:-1],
        lambda stored: stored + b"\0",
        lambda stored: stored[:50] + bytes([stored[50] ^ 1]) + stored[51:],
        lambda _: b"<html>Welcome to our hotel</html>",
        lambda _: zlib.compress(b"another object"),
        lambda stored: stored * 100,
    ],
    ids=["empty", "cut", "longer", "bit", "portal", "other", "endless"],
)
def test_bytes_that_are_not_the_object_are_refused(
    source: MemorySource,
    objects: Fetcher,
    root: Path,
    content: bytes,
    damage: Damage,
    asked: Ask,
) -> None:
    request = asked(source.publish(content))
    source.answer(request.path, damage(zlib.compress(content)))
    with pytest.raises(IntegrityError):
        objects.open(request)
    assert files_in(root) == []


@SIZES
def test_the_right_bytes_may_come_with_the_second_attempt(
    source: MemorySource,
    objects: Fetcher,
    root: Path,
    content: bytes,
    asked: Ask,
) -> None:
    request = asked(source.publish(content))
    stored = zlib.compress(content)
    source.answer(request.path, stored[:-9], b"x" + stored, stored)
    assert content_of(objects.open(request)) == content
    assert [path.name for path in files_in(root)] == [
        request.content_hash.cache_path()[3:]
    ]


@SIZES
@pytest.mark.parametrize("wrong_by", [-1, 1, 10**6])
def test_another_size_than_announced_is_refused(
    source: MemorySource, objects: Fetcher, root: Path, content: bytes, wrong_by: int
) -> None:
    request = source.publish(content)
    request = request._replace(size_bytes=len(content) + wrong_by)
    with pytest.raises(IntegrityError):
        objects.open(request)
    assert files_in(root) == []


@pytest.mark.parametrize("compression", Compression)
def test_content_beyond_the_limit_is_refused(
    source: MemorySource, objects: Fetcher, root: Path, compression: Compression
) -> None:
    request = source.publish(LARGE, compression=compression)
    request = request._replace(size_bytes=None, size_limit_bytes=len(LARGE) - 1)
    with pytest.raises(ObjectTooLargeError):
        objects.open(request)
    assert files_in(root) == []


@pytest.mark.parametrize(
    "stored",
    [zlib.compress(SMALL)[:-2], zlib.compress(SMALL) + b"more", SMALL],
    ids=["cut", "trailing", "not compressed"],
)
def test_a_published_object_that_is_no_zlib_stream_is_refused(
    source: MemorySource,
    objects: Fetcher,
    root: Path,
    stored: bytes,
    asked: Ask,
) -> None:
    """Its hash is right: the publisher did it."""
    request = source.publish_stored(stored, size_bytes=len(SMALL))
    with pytest.raises(IntegrityError):
        objects.open(asked(request))
    assert files_in(root) == []


def test_a_client_that_never_finishes_cannot_store_anything(
    source: MemorySource, objects: Fetcher, root: Path, asked: Ask
) -> None:
    source.finishes = False
    request = source.publish(SMALL)
    with pytest.raises(IntegrityError, match="did not arrive in full"):
        objects.open(asked(request))
    assert files_in(root) == []


def test_what_no_server_has_is_a_transfer_error(
    source: MemorySource, objects: Fetcher, root: Path
) -> None:
    request = source.publish(SMALL)
    source.answer(request.path)
    with pytest.raises(TransferError):
        objects.open(request)
    assert files_in(root) == []


def test_an_impossible_object_is_not_asked_for(
    source: MemorySource, objects: Fetcher
) -> None:
    request = source.publish(SMALL)
    with pytest.raises(FormatError):
        objects.open(request._replace(content_hash=ContentHash(bytes(20))))
    with pytest.raises(ObjectTooLargeError):
        objects.open(request._replace(size_limit_bytes=10))
    assert source.requests == []


# What is wrong in the cache


@pytest.mark.parametrize("torn", [b"", SMALL[:-1], SMALL + b"x"])
def test_a_cached_object_of_the_wrong_size_is_fetched_again(
    source: MemorySource,
    objects: Fetcher,
    store: DirectoryStore,
    caplog: pytest.LogCaptureFixture,
    torn: bytes,
) -> None:
    request = source.publish(SMALL)
    os.close(put(store, request.content_hash, torn))
    for _ in range(2):
        assert content_of(objects.open(request)) == SMALL
    assert len(source.requests) == 1
    assert "wrong size" in caplog.text


def test_an_empty_object_of_unknown_size_is_fetched_again(
    source: MemorySource,
    objects: Fetcher,
    store: DirectoryStore,
    caplog: pytest.LogCaptureFixture,
) -> None:
    request = source.publish(SMALL, kind=ObjectKind.CATALOG)
    os.close(put(store, request.content_hash, b""))
    assert content_of(objects.open(request._replace(size_bytes=None))) == SMALL
    assert "wrong size" in caplog.text


def test_a_torn_object_that_no_server_has_is_not_served(
    source: MemorySource,
    objects: Fetcher,
    store: DirectoryStore,
    caplog: pytest.LogCaptureFixture,
) -> None:
    request = source.publish(SMALL)
    source.answer(request.path)
    os.close(put(store, request.content_hash, SMALL[:5]))
    with pytest.raises(TransferError):
        objects.open(request)
    assert "wrong size" in caplog.text


def test_a_discarded_object_is_fetched_again(
    source: MemorySource, objects: Fetcher
) -> None:
    request = source.publish(SMALL)
    os.close(objects.open(request))
    objects.discard(request.content_hash)
    assert content_of(objects.open(request)) == SMALL
    assert len(source.requests) == 2


def test_what_has_taken_the_place_of_a_damaged_object_stays(
    source: MemorySource, objects: Fetcher, store: DirectoryStore
) -> None:
    request = source.publish(SMALL)
    damaged = objects.open(request)
    for _ in range(2):  # the second reader of the same file comes late
        objects.discard(request.content_hash, damaged)
        assert content_of(objects.open(request)) == SMALL
    os.close(damaged)
    assert store.has(request.content_hash)
    assert len(source.requests) == 2


def test_a_damaged_object_that_cannot_be_removed_is_passed_over(
    source: MemorySource,
    objects: Fetcher,
    store: DirectoryStore,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    request = source.publish(SMALL)
    bad = SMALL[::-1]
    os.close(put(store, request.content_hash, bad))
    assert content_of(objects.open(request)) == bad  # which nobody sees
    fail_calls(monkeypatch, "unlink", errno.EROFS)
    objects.discard(request.content_hash)
    for _ in range(2):
        assert content_of(objects.open(request)) == SMALL
    assert content_of(store.open_object(request.content_hash)) == bad
    assert "Read-only file system" in caplog.text


def test_an_unreadable_document_is_read_from_a_server(
    source: MemorySource, objects: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = source.publish(SMALL)
    os.close(objects.open(request))
    failed: list[int] = []
    pread = os.pread

    def failing_once(descriptor: int, length: int, start: int) -> bytes:
        if not failed:
            failed.append(descriptor)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return pread(descriptor, length, start)

    monkeypatch.setattr(os, "pread", failing_once)
    assert objects.read(request, len(SMALL)) == SMALL
    assert len(source.requests) == 2


# Without room


@SIZES
def test_objects_are_read_when_the_cache_is_full(  # noqa: PLR0917
    source: MemorySource,
    objects: Fetcher,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    content: bytes,
    asked: Ask,
) -> None:
    def is_in_cache(descriptor: int, _data: object) -> bool:
        return os.readlink(f"/proc/self/fd/{descriptor}").startswith(str(root))

    request = asked(source.publish(content))
    fail_calls(monkeypatch, "write", errno.ENOSPC, is_in_cache)
    for _ in range(2):
        assert content_of(objects.open(request)) == content
    assert len(source.requests) == 2
    assert files_in(root) == []
    assert len(caplog.records) == 1


@SIZES
def test_an_object_lost_to_a_quota_is_fetched_once_more(
    source: MemorySource,
    objects: Fetcher,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    content: bytes,
) -> None:
    request = source.publish(content)
    fail_calls(monkeypatch, "dup", errno.EDQUOT)
    with file_system(Lack.UNNAMED_FILES):
        assert content_of(objects.open(request)) == content
    assert len(source.requests) == 2
    assert len(caplog.records) == 1


def test_without_any_room_there_is_an_error(
    source: MemorySource, objects: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = source.publish(SMALL)
    fail_calls(monkeypatch, "write", errno.ENOSPC)
    with pytest.raises(CacheError):
        objects.open(request)


# Many at once


def test_many_threads_cause_one_download(
    source: MemorySource, objects: Fetcher
) -> None:
    request = source.publish(LARGE)
    source.gate.clear()
    with ThreadPoolExecutor(16) as pool:
        futures = [pool.submit(objects.open, request) for _ in range(16)]
        source.asked.wait(10)
        source.gate.set()
    assert [content_of(future.result()) for future in futures] == [LARGE] * 16
    assert len(source.requests) == 1


@pytest.fixture
def neighbours(source: MemorySource, root: Path) -> Iterator[list[Fetcher]]:
    """Those of other processes: each has opened the cache directory itself."""
    stores = [DirectoryStore.open(str(root)) for _ in range(6)]
    yield [Fetcher(source, store) for store in stores]
    for store in stores:
        store.close()


def open_at_once(
    fetchers: list[Fetcher], source: MemorySource, request: ObjectRequest
) -> list[Future[int]]:
    """Let all lack an object before a server has delivered it to one of them."""
    source.gate.clear()
    with ThreadPoolExecutor(len(fetchers)) as pool:
        futures = [pool.submit(fetcher.open, request) for fetcher in fetchers]
        while not all(fetcher.missed_count for fetcher in fetchers):
            threading.Event().wait(0.001)
        source.gate.set()
    return futures


def test_many_processes_cause_one_download(
    source: MemorySource, neighbours: list[Fetcher]
) -> None:
    futures = open_at_once(neighbours, source, source.publish(LARGE))
    assert [content_of(future.result()) for future in futures] == [LARGE] * 6
    assert len(source.requests) == 1


def test_the_failure_of_a_process_is_its_own(
    source: MemorySource, neighbours: list[Fetcher]
) -> None:
    request = source.publish(SMALL)
    source.answer(request.path, b"wrong")
    futures = open_at_once(neighbours, source, request)
    assert {type(future.exception()) for future in futures} == {IntegrityError}
    assert len(source.requests) == 6


def test_large_objects_are_waited_for_longer(
    source: MemorySource, store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_s = []

    def claim(
        _: ContentHash,
        *,
        patience_s: float,
        size_bytes: int | None,  # noqa: ARG001
    ) -> AbstractContextManager[bool]:
        asked_s.append(patience_s)
        return nullcontext(enter_result=False)

    monkeypatch.setattr(store, "claim", claim)
    objects = Fetcher(source, store)
    request = source.publish(VERY_LARGE)
    for size_bytes in (None, len(VERY_LARGE)):
        os.close(objects.open(request._replace(size_bytes=size_bytes)))
        objects.discard(request.content_hash)
    assert asked_s[0] == fetcher.PATIENCE_S
    assert asked_s[1] > fetcher.PATIENCE_S + 16


def test_one_failure_is_the_failure_of_all_that_wait(
    source: MemorySource, objects: Fetcher
) -> None:
    request = source.publish(SMALL)
    source.answer(request.path, b"wrong")
    source.gate.clear()
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(objects.open, request) for _ in range(8)]
        while objects._flights._flights[request.content_hash].waiting < 7:
            threading.Event().wait(0.001)
        source.gate.set()
    assert {type(future.exception()) for future in futures} == {IntegrityError}
    assert len(source.requests) == 1


def test_waiting_with_another_announced_size_is_an_error(
    source: MemorySource, objects: Fetcher
) -> None:
    request = source.publish(SMALL)
    source.gate.clear()
    with ThreadPoolExecutor(2) as pool:
        right = pool.submit(objects.open, request)
        source.asked.wait(10)
        wrong = pool.submit(objects.open, request._replace(size_bytes=1))
        while not objects._flights._flights[request.content_hash].waiting:
            threading.Event().wait(0.001)
        source.gate.set()
    assert content_of(right.result()) == SMALL
    assert isinstance(wrong.exception(), IntegrityError)


# External files


@pytest.fixture
def external() -> MemorySource:
    return MemorySource()


def external_request(content: bytes, start: int, size_bytes: int) -> ObjectRequest:
    piece = content[start : start + size_bytes]
    return ObjectRequest(
        ContentHash.of(piece),
        ObjectKind.CHUNK,
        size_bytes,
        Compression.NONE,
        size_bytes,
        external_path=b"/data/my file.root",
        external_range=(start, start + size_bytes - 1),
    )


def test_external_files_come_from_the_external_servers(
    source: MemorySource, external: MemorySource, store: DirectoryStore
) -> None:
    external.answer("data/my file.root", LARGE)
    objects = Fetcher(source, store, external)
    request = external_request(LARGE, 1000, 5000)
    for _ in range(2):
        assert content_of(objects.open(request)) == LARGE[1000:6000]
    assert external.ranges == [(1000, 5999)]
    whole = external_request(LARGE, 0, len(LARGE))._replace(external_range=None)
    assert content_of(objects.open(whole)) == LARGE
    assert external.ranges == [(1000, 5999), None]
    assert source.requests == []


def test_an_external_file_that_changed_is_refused(
    source: MemorySource, external: MemorySource, store: DirectoryStore
) -> None:
    external.answer("data/my file.root", LARGE[::-1])
    with pytest.raises(IntegrityError):
        Fetcher(source, store, external).open(external_request(LARGE, 0, 100))


def test_without_external_servers_external_files_have_no_route(
    objects: Fetcher,
) -> None:
    with pytest.raises(NoRouteError) as caught:
        objects.open(external_request(LARGE, 0, 100))
    assert "CVMFS_EXTERNAL_URL" in caught.value.hint


def test_no_descriptor_is_lost(source: MemorySource, objects: Fetcher) -> None:
    os.close(objects.open(source.publish(b"opens the file of claims")))
    before = descriptor_count()
    good, bad = source.publish(LARGE), source.publish(SMALL)
    source.answer(bad.path, b"wrong", TransferError("gone"))
    for request in (good, bad, good._replace(size_bytes=1)):
        for size_bytes in (request.size_bytes, None):
            try:
                os.close(objects.open(request._replace(size_bytes=size_bytes)))
            except CvmfsError:
                continue
    assert descriptor_count() == before
