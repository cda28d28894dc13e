"""Fetching ahead: who waits comes first, failures are silent, bounds hold."""

import errno
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest

from cvmfsexec.cache.directory import DirectoryStore
from cvmfsexec.errors import CvmfsError
from cvmfsexec.fetch import Fetcher, ObjectRequest
from cvmfsexec.fetch.fetcher import LARGE_BYTES, SMALL_BYTES
from cvmfsexec.fetch.forerunner import (
    BYTES_MAX,
    FAILURES_MAX,
    REST_MIN_S,
    Forerunner,
)
from cvmfsexec.fetch.prefetch import Prefetch
from cvmfsexec.format.proxy_groups import DIRECT
from cvmfsexec.network.parallel_transport import Finished
from cvmfsexec.network.transport import Answer, FaultKind, Request, TransportFault
from tests.support.memory_source import MemorySource
from tests.support.store_contract import content_of
from tests.support.system_calls import fail_calls

CONNECTIONS = 4
PATIENCE_S = 30


class Wire:
    """A ``ParallelTransport`` over a ``MemorySource``.

    Attributes:
        gate: Nothing comes in until it is set; it is, unless a test clears it.
        started: Every request there was.
        most: How many were under way at most.
        answer: What the next ones are answered instead, if anything.
    """

    def __init__(self, source: MemorySource) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.started: list[str] = []
        self.most = 0
        self.answer: Answer | TransportFault | bytes | None = None
        self._source = source
        self._bell = threading.Event()
        self._under_way: list[tuple[Request, Callable[[bytes], object], Prefetch]] = []

    @property
    def active_count(self) -> int:
        return len(self._under_way)

    def start(
        self, request: Request, sink: Callable[[bytes], object], token: Prefetch
    ) -> None:
        self.started.append(request.url)
        self._under_way.append((request, sink, token))
        self.most = max(self.most, self.active_count)

    def work(self) -> list[Finished[Prefetch]]:
        if not self.gate.is_set():
            return []
        finished = [self._finish(*one) for one in self._under_way]
        self._under_way.clear()
        return finished

    def wait(self) -> None:
        self._bell.wait(0.01 if self._under_way else None)
        self._bell.clear()

    def wake(self) -> None:
        self._bell.set()

    def _finish(
        self, request: Request, sink: Callable[[bytes], object], token: Prefetch
    ) -> Finished[Prefetch]:
        if isinstance(self.answer, TransportFault):
            return Finished(token, None, self.answer, 0.1)
        if isinstance(self.answer, Answer):
            return Finished(token, self.answer, None, 0.1)
        path = request.url.removeprefix("http://server/")
        stored = self.answer or self._source._answers[path][0]
        assert isinstance(stored, bytes)
        sink(stored)
        return Finished(token, Answer(200, (), len(stored)), None, 0.1)


class Routes:
    """Knows one server.

    Attributes:
        base: Its URL.
        counted: Downloads that were told.
    """

    def __init__(self) -> None:
        self.base = "http://server/"
        self.counted = 0

    def first_request(
        self, path: str, limit_bytes: int, label: Callable[[], str]
    ) -> Request:
        assert not label()  # of files, others know the path
        return Request(self.base + path, DIRECT, limit_bytes)

    def count(self, received_bytes: int, seconds: float) -> None:
        assert received_bytes > 0
        assert seconds > 0
        self.counted += 1


class Ahead:
    """A forerunner with all around it.

    Attributes:
        wanted: What is fetched next.
    """

    def __init__(self, root: Path) -> None:
        self.source = MemorySource()
        self.store = DirectoryStore.open(str(root))
        self.fetcher = Fetcher(self.source, self.store)
        self.wire = Wire(self.source)
        self.routes = Routes()
        self.wanted: list[ObjectRequest] = []
        self.now_s = 1000.0
        self.forerunner = Forerunner(
            self.fetcher,
            self.routes,
            lambda: cast("Any", self.wire),
            lambda: self.wanted.pop(0) if self.wanted else None,
            connections_max=CONNECTIONS,
            clock=lambda: self.now_s,
        )

    def publish(self, count: int, size_bytes: int = 100) -> list[ObjectRequest]:
        filling = bytes(size_bytes - 8)
        return [
            self.source.publish(number.to_bytes(8) + filling) for number in range(count)
        ]

    def fetch(self, *requests: ObjectRequest) -> None:
        self.wanted += requests
        self.forerunner.wake()

    def ended(self) -> int:
        return self.forerunner.fetched_count + self.forerunner.failed_count


def until(is_so: Callable[[], bool]) -> None:
    for _ in range(PATIENCE_S * 1000):
        if is_so():
            return
        threading.Event().wait(0.001)
    raise TimeoutError


@pytest.fixture
def ahead(tmp_path: Path) -> Iterator[Ahead]:
    made = Ahead(tmp_path / "cache")
    yield made
    made.forerunner.close()
    made.store.close()


@pytest.mark.parametrize("size_bytes", [100, SMALL_BYTES + 1], ids=["small", "large"])
def test_what_is_wanted_lies_in_the_cache_before_it_is_read(
    ahead: Ahead, size_bytes: int
) -> None:
    requests = ahead.publish(20, size_bytes)
    ahead.fetch(*requests)
    until(lambda: ahead.ended() == 20)
    for number, request in enumerate(requests):
        content = content_of(ahead.fetcher.open(request))
        assert content == number.to_bytes(8) + bytes(size_bytes - 8)
    assert ahead.source.requests == []
    assert ahead.fetcher.missed_count == 0
    assert ahead.routes.counted == 20
    assert ahead.wire.most <= CONNECTIONS


def test_no_thread_is_started_before_there_is_something_to_do(ahead: Ahead) -> None:
    assert "ahead" not in {thread.name for thread in threading.enumerate()}
    ahead.forerunner.wake()
    assert "ahead" in {thread.name for thread in threading.enumerate()}
    ahead.forerunner.close()
    assert "ahead" not in {thread.name for thread in threading.enumerate()}


def read_while_on_its_way(ahead: Ahead, request: ObjectRequest) -> bytes:
    """Return what a reader gets who comes while the object is fetched ahead."""
    ahead.wire.gate.clear()
    ahead.fetch(request)
    until(lambda: ahead.wire.started != [])
    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(ahead.fetcher.open, request)
        flights = ahead.fetcher._flights._flights
        until(lambda: flights[request.content_hash].waiting == 1)
        ahead.wire.gate.set()
        return content_of(reader.result(PATIENCE_S))


def test_a_reader_joins_what_is_on_its_way(ahead: Ahead) -> None:
    (request,) = ahead.publish(1)
    assert read_while_on_its_way(ahead, request) == bytes(100)
    assert ahead.source.requests == []


FAILURES = [
    TransportFault(FaultKind.TOO_SLOW, "stalled"),
    Answer(404),
    Answer(503),
    b"this is another object",
]


@pytest.mark.parametrize("answer", FAILURES, ids=["fault", "404", "503", "bad data"])
def test_a_reader_of_what_failed_asks_by_itself(
    ahead: Ahead, answer: Answer | TransportFault | bytes
) -> None:
    (request,) = ahead.publish(1)
    ahead.wire.answer = answer
    assert read_while_on_its_way(ahead, request) == bytes(100)
    assert len(ahead.source.requests) == 1
    assert ahead.forerunner.failed_count == 1


def test_a_reader_of_something_else_does_not_wait(ahead: Ahead) -> None:
    requests = ahead.publish(3 * CONNECTIONS)
    ahead.wire.gate.clear()
    ahead.fetch(*requests)
    until(lambda: ahead.wire.active_count == CONNECTIONS)
    assert content_of(ahead.fetcher.open(requests[-1]))
    ahead.wire.gate.set()
    until(lambda: ahead.ended() == len(requests) - 1)
    assert len(ahead.wire.started) == len(requests) - 1, "it is not fetched again"


def test_readers_have_their_connections(ahead: Ahead) -> None:
    requests = ahead.publish(20)
    ahead.source.gate.clear()
    ahead.wire.gate.clear()
    with ThreadPoolExecutor(3) as pool:
        readers = [pool.submit(ahead.fetcher.open, one) for one in requests[:3]]
        until(lambda: len(ahead.source.requests) == 3)
        ahead.fetch(*requests[3:])
        until(lambda: ahead.wire.active_count == CONNECTIONS - 3)
        assert ahead.wire.most == CONNECTIONS - 3
        ahead.source.gate.set()
        for reader in readers:
            os.close(reader.result(PATIENCE_S))
    ahead.wire.gate.set()


def test_what_is_there_is_not_asked_for(ahead: Ahead) -> None:
    there, missing = ahead.publish(2)
    os.close(ahead.fetcher.open(there))
    ahead.fetch(there, missing)
    until(lambda: ahead.ended() == 1)
    assert ahead.wire.started == [f"http://server/{missing.path}"]


def test_nothing_huge_is_fetched_ahead(ahead: Ahead) -> None:
    huge = ahead.publish(1)[0]._replace(size_bytes=LARGE_BYTES + 1)
    unknown = huge._replace(size_bytes=None)
    impossible = huge._replace(size_bytes=-1)
    (small,) = ahead.publish(1)
    ahead.fetch(huge, unknown, impossible, small)
    until(lambda: ahead.ended() == 1)
    assert len(ahead.wire.started) == 1


def test_bytes_under_way_are_bounded(ahead: Ahead) -> None:
    (request,) = ahead.publish(1)
    large = [
        request._replace(
            content_hash=request.content_hash._replace(digest=bytes([number]) * 20),
            size_bytes=LARGE_BYTES,
        )
        for number in range(1, 5)
    ]
    ahead.wire.gate.clear()
    ahead.fetch(*large)
    until(lambda: ahead.wire.active_count == BYTES_MAX // LARGE_BYTES)
    ahead.forerunner.wake()
    assert ahead.wire.most == BYTES_MAX // LARGE_BYTES < len(large)


def test_several_failures_in_a_row_are_followed_by_a_rest(ahead: Ahead) -> None:
    requests = ahead.publish(10 * CONNECTIONS)
    ahead.wire.answer = TransportFault(FaultKind.CONNECT, "nobody there")
    ahead.fetch(*requests)
    until(lambda: ahead.forerunner.failed_count >= FAILURES_MAX)
    asked_count = len(ahead.wire.started)
    assert asked_count <= FAILURES_MAX + CONNECTIONS
    ahead.wire.answer = None
    ahead.now_s += REST_MIN_S / 2
    ahead.forerunner.wake()
    assert len(ahead.wire.started) == asked_count
    ahead.now_s += 2 * REST_MIN_S
    ahead.forerunner.wake()
    until(lambda: ahead.ended() == len(requests))


def test_a_cache_without_room_ends_it(
    ahead: Ahead, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_calls(monkeypatch, "link", errno.ENOSPC)
    requests = ahead.publish(200)
    ahead.fetch(*requests)
    until(lambda: ahead.forerunner.failed_count >= FAILURES_MAX)
    until(lambda: len(ahead.fetcher._flights) == 0)
    assert len(ahead.wire.started) < 100
    assert content_of(ahead.fetcher.open(requests[0])) == bytes(100)


def test_a_local_server_is_not_far(ahead: Ahead) -> None:
    ahead.routes.base = "file:///srv/"
    requests = ahead.publish(3)
    ahead.fetch(*requests)
    until(
        lambda: not ahead.forerunner._thread or not ahead.forerunner._thread.is_alive()
    )
    assert ahead.wire.started == []
    assert content_of(ahead.fetcher.open(requests[0])) == bytes(100)


@pytest.mark.parametrize("is_open", [True, False], ids=["busy", "waiting"])
def test_closing_leaves_nobody_waiting(ahead: Ahead, *, is_open: bool) -> None:
    requests = ahead.publish(500)
    if not is_open:
        ahead.wire.gate.clear()
    ahead.fetch(*requests)
    until(lambda: ahead.wire.started != [])
    ahead.forerunner.close()
    assert len(ahead.fetcher._flights) == 0
    for request in requests:
        os.close(ahead.fetcher.open(request))


def test_without_threads_all_goes_on_without_it(
    ahead: Ahead, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    (request,) = ahead.publish(1)
    ahead.fetch(request)
    ahead.forerunner.wake()
    assert content_of(ahead.fetcher.open(request)) == bytes(100)


def test_an_error_of_the_supply_leaves_nobody_waiting(
    ahead: Ahead, monkeypatch: pytest.MonkeyPatch
) -> None:
    class SurpriseError(Exception):
        pass

    def surprise(_request: ObjectRequest) -> None:
        raise SurpriseError

    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    ahead.wire.gate.clear()
    requests = ahead.publish(3)
    ahead.fetch(*requests[:2])
    until(lambda: ahead.wire.active_count == 2)
    monkeypatch.setattr(ahead.fetcher, "prefetch", surprise)
    ahead.fetch(requests[2])
    until(lambda: len(ahead.fetcher._flights) == 0)
    for request in requests:
        os.close(ahead.fetcher.open(request))


def test_errors_of_ours_are_told_to_the_reader_only(ahead: Ahead) -> None:
    (request,) = ahead.publish(1)
    null = request._replace(
        content_hash=request.content_hash._replace(digest=bytes(20))
    )
    ahead.fetch(null, request)
    until(lambda: ahead.ended() == 1)
    with pytest.raises(CvmfsError):
        ahead.fetcher.open(null)
