"""Many transfers in one thread: each keeps the promises of a ``Transport``."""

import threading
from collections.abc import Callable, Iterator

import pytest

from cvmfsexec.network.parallel_transport import Finished, ParallelTransport
from cvmfsexec.network.settings import NetworkSettings
from cvmfsexec.network.transport import Answer, Request, TransportFault
from tests.support.http_server import CutOff, HttpServer, Redirect, Stall
from tests.support.transport_contract import (
    Serve,
    TransportContract,
    request,
    served_over_http,
)

SETTINGS = NetworkSettings(servers=("http://unused.example.org",), timeout_direct_s=1)
COUNT = 40


class OneAtATime:
    """A ``Transport`` by a ``ParallelTransport`` for each request."""

    def get(self, request: Request, sink: Callable[[bytes], object]) -> Answer:
        transport: ParallelTransport[int] = ParallelTransport(SETTINGS, 16)
        try:
            transport.start(request, sink, 0)
            (finished,) = finish(transport)
        finally:
            transport.close()
        if finished.error is not None:
            raise finished.error
        assert finished.answer is not None
        return finished.answer


def finish(transport: ParallelTransport[int]) -> list[Finished[int]]:
    finished: list[Finished[int]] = []
    while transport.active_count:
        finished += transport.work()
        if transport.active_count:
            transport.wait()
    return finished


class TestTransportOfMany(TransportContract):
    @pytest.fixture
    def serve(self) -> Iterator[Serve]:
        with served_over_http(OneAtATime) as serve:
            yield serve


@pytest.fixture
def server() -> Iterator[HttpServer]:
    with HttpServer({f"/{number}": b"%d" % number for number in range(COUNT)}) as made:
        yield made


@pytest.fixture
def transport() -> Iterator[ParallelTransport[int]]:
    made: ParallelTransport[int] = ParallelTransport(SETTINGS, 16)
    yield made
    made.close()


def start_all(
    transport: ParallelTransport[int], server: HttpServer
) -> dict[int, list[bytes]]:
    bodies: dict[int, list[bytes]] = {number: [] for number in range(COUNT)}
    for number, pieces in bodies.items():
        transport.start(request(f"{server.url}/{number}"), pieces.append, number)
    return bodies


def test_each_transfer_brings_its_own(
    server: HttpServer, transport: ParallelTransport[int]
) -> None:
    bodies = start_all(transport, server)
    assert transport.active_count == COUNT
    finished = finish(transport)
    assert sorted(one.token for one in finished) == list(range(COUNT))
    assert all(one.answer and one.answer.is_success for one in finished)
    assert all(b"".join(bodies[number]) == b"%d" % number for number in bodies)


def test_connections_are_used_again(
    server: HttpServer, transport: ParallelTransport[int]
) -> None:
    for number in range(COUNT):
        transport.start(request(f"{server.url}/{number}"), len, number)
        finish(transport)
    assert len({one.connection for one in server.requests}) == 1


def test_failures_are_of_one_transfer_only(
    server: HttpServer, transport: ParallelTransport[int]
) -> None:
    server.misbehave(CutOff(1), path="/17")
    server.misbehave(Stall(0), path="/18")
    start_all(transport, server)
    failed = {one.token: one.error for one in finish(transport) if one.error}
    assert sorted(failed) == [17, 18]
    assert all(isinstance(error, TransportFault) for error in failed.values())


def test_redirects_are_followed_if_that_is_wanted(server: HttpServer) -> None:
    settings = SETTINGS._replace(follows_redirects=True)
    transport: ParallelTransport[int] = ParallelTransport(settings, 16)
    server.misbehave(Redirect(f"{server.url}/2"), path="/1")
    pieces: list[bytes] = []
    transport.start(request(f"{server.url}/1"), pieces.append, 1)
    finish(transport)
    transport.close()
    assert pieces == [b"2"]


def test_who_waits_can_be_woken(transport: ParallelTransport[int]) -> None:
    waiter = threading.Thread(target=transport.wait)
    waiter.start()
    transport.wake()
    waiter.join(30)
    assert not waiter.is_alive()
