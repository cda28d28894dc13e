import itertools
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cvmfsexec.errors import (
    CacheError,
    IntegrityError,
    NoRouteError,
    TransferError,
)
from cvmfsexec.format.proxy_groups import parse_proxy_list
from cvmfsexec.network.client import HttpClient
from cvmfsexec.network.failover import FailoverPolicy
from cvmfsexec.network.settings import NetworkSettings
from cvmfsexec.network.transport import Answer, FaultKind, Request
from tests.support.clock import Clock
from tests.support.http_server import (
    Behaviour,
    Corrupt,
    CutOff,
    ForwardProxy,
    Garbage,
    HttpServer,
    Oversized,
    Redirect,
    Slow,
    Stall,
    Status,
    WholeAnyway,
    WrongLength,
    unused_port_url,
)
from tests.support.memory_transport import MemoryTransport, Script

OBJECT = b"the right bytes"
PATH = "data/ab/cdef"
FILES = {f"/{PATH}": OBJECT, "/.cvmfspublished": b"C0\n--\n"}
URLS = {f"http://h{n}{path}": body for n in range(3) for path, body in FILES.items()}


PATIENT = FailoverPolicy()


class CheckingSink:
    """Knows which bytes are right; says so at the end, or at the first wrong piece."""

    def __init__(self) -> None:
        self.received = b""

    def write(self, data: bytes) -> None:
        self.received += data
        if len(self.received) > len(OBJECT):
            raise IntegrityError("too many bytes")

    def finish(self) -> None:
        if self.received != OBJECT:
            raise IntegrityError("the hash does not match")


class Sinks:
    """Makes sinks and keeps them."""

    def __init__(self) -> None:
        self.made: list[CheckingSink] = []

    def __call__(self) -> CheckingSink:
        self.made.append(CheckingSink())
        return self.made[-1]


def client_of(
    transport: MemoryTransport,
    hosts: str = "http://h0 http://h1",
    proxies: str = "DIRECT",
    policy: FailoverPolicy = PATIENT,
    clock: Clock | None = None,
) -> HttpClient:
    settings = NetworkSettings(
        tuple(hosts.split()), parse_proxy_list(proxies), failover=policy
    )
    clock = clock or Clock()
    return HttpClient(
        settings, transport, clock=clock, sleep=clock.sleep, randomness=lambda: 0.5
    )


def asked(transport: MemoryTransport) -> list[str]:
    return [
        request.url.removesuffix("/" + PATH).removeprefix("http://")
        + ("!" if request.no_cache else "")
        for request in transport.requests
    ]


def download(client: HttpClient) -> bytes:
    sinks = Sinks()
    client.fetch_object(PATH, sinks, limit_bytes=100)
    return sinks.made[-1].received


def test_document_is_returned() -> None:
    client = client_of(MemoryTransport(URLS))
    assert client.fetch(".cvmfspublished", limit_bytes=100) == b"C0\n--\n"


def test_document_is_asked_for_past_caches_on_request() -> None:
    transport = MemoryTransport(URLS)
    client_of(transport).fetch(PATH, limit_bytes=100, no_cache=True)
    assert asked(transport) == ["h0!"]


def test_ordinary_request_says_nothing_to_caches() -> None:
    transport = MemoryTransport(URLS)
    download(client_of(transport))
    assert asked(transport) == ["h0"]


@pytest.mark.parametrize(
    ("script", "hosts"),
    [
        pytest.param([500], ["h0", "h1"], id="server-error"),
        pytest.param([404], ["h0", "h1"], id="stale-replica"),
        pytest.param([429], ["h0", "h0"], id="too-many-requests"),
        pytest.param([FaultKind.CONNECT], ["h0", "h0"], id="one-lost-connection"),
        pytest.param([FaultKind.CUT_OFF] * 2, ["h0", "h0", "h1"], id="two-cut-off"),
        pytest.param([FaultKind.HOST_RESOLVE], ["h0", "h1"], id="no-such-host"),
        pytest.param([b"wrong"], ["h0", "h0!"], id="wrong-bytes"),
        pytest.param([OBJECT + b"!"], ["h0", "h0!"], id="too-many-for-the-sink"),
        pytest.param([bytes(200)], ["h0", "h0!"], id="too-many-for-the-limit"),
        pytest.param([b""], ["h0", "h0!"], id="empty"),
        pytest.param([b"x", b"x"], ["h0", "h0!", "h1"], id="wrong-bytes-twice"),
        pytest.param([b"x", FaultKind.CUT_OFF], ["h0", "h0!", "h0!"],
                     id="wrong-bytes-then-cut-off"),
    ],
)  # fmt: skip
def test_object_arrives_in_spite_of(script: list[Script], hosts: list[str]) -> None:
    transport = MemoryTransport(URLS, script)
    assert download(client_of(transport)) == OBJECT
    assert asked(transport) == hosts


def test_each_attempt_has_its_own_sink() -> None:
    client = client_of(MemoryTransport(URLS, [b"wrong", 500]))
    sinks = Sinks()
    client.fetch_object(PATH, sinks, limit_bytes=100)
    assert [sink.received for sink in sinks.made] == [b"wrong", b"", OBJECT]


def test_range_is_asked_for() -> None:
    transport = MemoryTransport({f"http://h0/{PATH}": b"<" + OBJECT + b">"})
    sinks = Sinks()
    client_of(transport).fetch_object(
        PATH, sinks, limit_bytes=100, byte_range=(1, len(OBJECT))
    )
    assert sinks.made[-1].received == OBJECT


def test_waits_are_slept() -> None:
    clock = Clock()
    policy = FailoverPolicy(max_retries=3, backoff_init_s=2, backoff_max_s=3)
    transport = MemoryTransport(URLS, [FaultKind.TOO_SLOW] * 3)
    download(client_of(transport, policy=policy, clock=clock))
    assert clock.slept_s == [1.0, 2.0, 3.0]


def test_failed_download_tells_what_was_tried() -> None:
    transport = MemoryTransport(URLS, decide=lambda _: FaultKind.CONNECT)
    with pytest.raises(TransferError) as caught:
        download(client_of(transport, proxies="http://me:secret@p1:1"))
    assert caught.value.routes == (
        "http://h0 via http://p1:1: cannot connect (scripted)",
        "http://h0 via http://p1:1: cannot connect (scripted)",
        "http://h1 via http://p1:1: cannot connect (scripted)",
    )
    assert str(caught.value).count("cannot connect") == 2
    assert "secret" not in str(caught.value)
    assert "CVMFS_HTTP_PROXY" in caught.value.hint


def test_hint_without_a_proxy_points_at_servers() -> None:
    transport = MemoryTransport(URLS, decide=lambda _: FaultKind.CONNECT)
    with pytest.raises(TransferError, match="cannot download data/ab") as caught:
        download(client_of(transport))
    assert "CVMFS_SERVER_URL" in caught.value.hint


def test_absence_everywhere_is_said_so() -> None:
    with pytest.raises(
        TransferError, match=r"no server has \.cvmfspublished"
    ) as caught:
        client_of(MemoryTransport()).fetch(".cvmfspublished", limit_bytes=100)
    assert "name of the repository" in caught.value.hint


def test_many_routes_are_not_all_listed() -> None:
    hosts = " ".join(f"http://h{n}" for n in range(9))
    with pytest.raises(TransferError, match="and 5 more") as caught:
        download(client_of(MemoryTransport(), hosts))
    assert len(caught.value.routes) == 9


def test_wrong_bytes_everywhere_is_an_integrity_error() -> None:
    transport = MemoryTransport(URLS, decide=lambda _: b"wrong")
    with pytest.raises(IntegrityError, match=r"hash does not match"):
        download(client_of(transport))
    assert asked(transport) == ["h0", "h0!", "h1"]


def test_other_errors_of_a_sink_end_the_request() -> None:
    class FullDisk(CheckingSink):
        def write(self, data: bytes) -> None:
            raise CacheError(f"no room for {len(data)} bytes")

    transport = MemoryTransport(URLS)
    with pytest.raises(CacheError):
        client_of(transport).fetch_object(PATH, FullDisk, limit_bytes=100)
    assert len(transport.requests) == 1


def test_nobody_can_help_against_an_unknown_error() -> None:
    transport = MemoryTransport(URLS, [FaultKind.OTHER])
    with pytest.raises(TransferError):
        download(client_of(transport))
    assert len(transport.requests) == 1


@pytest.mark.parametrize(("hosts", "proxies"), [("", "DIRECT"), ("http://h0", "")])
def test_client_without_routes_cannot_be_made(hosts: str, proxies: str) -> None:
    with pytest.raises(NoRouteError):
        client_of(MemoryTransport(), hosts, proxies)


def test_next_host_skips_one_server() -> None:
    transport = MemoryTransport(URLS)
    client = client_of(transport)
    assert client.next_host()
    assert client.routes.active_host == "http://h1"
    download(client)
    assert asked(transport) == ["h1"]


def test_single_server_has_no_next() -> None:
    assert not client_of(MemoryTransport(), "http://h0").next_host()


def test_active_route_and_lists() -> None:
    transport = MemoryTransport(URLS, [403, 500])
    client = client_of(transport, proxies="http://u:secret@p1:1;http://p2:2")
    assert client.routes.active_proxy == "http://p1:1"
    download(client)
    assert client.routes.active_proxy == "http://p2:2"
    assert client.hosts() == ["http://h1", "http://h0"]
    assert client.routes.proxies() == ["http://p2:2", "http://p1:1"]


def test_statistics() -> None:
    class SlowTransport(MemoryTransport):
        def get(self, request: Request, sink: Callable[[bytes], object]) -> Answer:
            clock.now_s += 0.25
            return super().get(request, sink)

    clock = Clock()
    client = client_of(SlowTransport(URLS, [500]), clock=clock)
    download(client)
    with pytest.raises(TransferError):
        client.fetch("absent", limit_bytes=100)
    done = client.statistics
    assert done.downloads == 1
    assert done.received_bytes == len(OBJECT)
    assert done.seconds == 1.0
    assert done.failed_attempts == 3


def test_endless_failover_ends_with_the_interrupt_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    interrupt_file = tmp_path / "interrupt"
    asked_times = itertools.count(1)

    def down_until_interrupted(_: Request) -> Script:
        if next(asked_times) == 20:
            interrupt_file.touch()
        return 500

    settings = NetworkSettings(
        ("http://h0", "http://h1"),
        failover=FailoverPolicy(is_indefinite=True),
        interrupt_file=os.fspath(interrupt_file),
    )
    clock = Clock()
    transport = MemoryTransport(decide=down_until_interrupted)
    client = HttpClient(settings, transport, clock=clock, sleep=clock.sleep)
    with pytest.raises(TransferError):
        client.fetch(PATH, limit_bytes=100)
    assert len(transport.requests) == 20
    assert not interrupt_file.exists()
    (warning,) = [one for one in caplog.records if one.levelname == "WARNING"]
    assert "again and again until" in warning.getMessage()
    assert os.fspath(interrupt_file) in warning.getMessage()
    assert sum(clock.slept_s) > 50


# ---- over real connections ----------------------------------------------------------


def real_client(
    hosts: Iterable[str],
    proxies: str = "DIRECT",
    max_retries: int = 0,
    timeout_s: int = 1,
) -> HttpClient:
    policy = FailoverPolicy(max_retries=max_retries, backoff_init_s=0)
    settings = NetworkSettings(
        tuple(hosts),
        parse_proxy_list(proxies),
        failover=policy,
        timeout_s=timeout_s,
        timeout_direct_s=timeout_s,
    )
    return HttpClient(settings)


MISBEHAVIOURS = [
    Status(500),
    Status(404),
    Status(403),
    Status(429),
    CutOff(3),
    Stall(),
    Slow(5),
    Corrupt(),
    Oversized(10),
    Oversized(1000),
    WrongLength(5),
    WrongLength(-5),
    Garbage(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000),
    Redirect("http://elsewhere.invalid/"),
    Garbage(),
]


@pytest.mark.parametrize("behaviour", MISBEHAVIOURS, ids=repr)
def test_second_server_replaces_a_bad_one(behaviour: Behaviour) -> None:
    with HttpServer(FILES) as bad, HttpServer(FILES) as good:
        bad.misbehave(behaviour)
        client = real_client([bad.url, good.url])
        assert download(client) == OBJECT
        assert client.routes.active_host == good.url


@pytest.mark.parametrize(
    "behaviour", [b for b in MISBEHAVIOURS if b != Status(404)], ids=repr
)
def test_second_proxy_replaces_a_bad_one(behaviour: Behaviour) -> None:
    with HttpServer(FILES) as server, ForwardProxy() as bad, ForwardProxy() as good:
        bad.misbehave(behaviour)
        client = real_client([server.url], f"{bad.url};{good.url}")
        assert download(client) == OBJECT
        assert client.routes.active_proxy == good.url
        assert all(r.target.startswith("http") for r in good.requests)


def test_without_a_timeout_the_slowest_server_is_waited_for() -> None:
    with HttpServer(FILES) as server:
        server.misbehave(Slow(5))
        assert download(real_client([server.url], timeout_s=0)) == OBJECT


def test_dead_proxies_and_servers_are_passed_by() -> None:
    with HttpServer(FILES) as server, ForwardProxy() as proxy:
        client = real_client(
            [unused_port_url(), server.url], f"{unused_port_url()};{proxy.url}"
        )
        assert download(client) == OBJECT
        download(client)
        assert client.routes.active_proxy == proxy.url


def test_squid_that_cannot_reach_a_server_leads_to_the_next_server() -> None:
    with HttpServer(FILES) as server, ForwardProxy() as one, ForwardProxy() as two:
        client = real_client([unused_port_url(), server.url], f"{one.url}|{two.url}")
        assert download(client) == OBJECT


def test_poisoned_cache_is_passed_by_once_and_healed() -> None:
    with HttpServer(FILES) as server, ForwardProxy(is_caching=True) as proxy:
        client = real_client([server.url], proxy.url)
        download(client)
        proxy.cache[f"{server.url}/{PATH}"].body = b"poison"
        assert download(client) == OBJECT
        assert download(client) == OBJECT
        said = [r.headers.get("cache-control") for r in proxy.requests]
        assert said == [None, None, "no-cache", None]
        assert server.count(PATH) == 2


def test_direct_is_never_tried_uninvited() -> None:
    with HttpServer(FILES) as server, ForwardProxy() as proxy:
        proxy.misbehave(Status(503))
        with pytest.raises(TransferError):
            download(real_client([server.url], proxy.url, max_retries=2))
        assert server.count() == 0


def test_direct_is_tried_when_listed() -> None:
    with HttpServer(FILES) as server, ForwardProxy() as proxy:
        proxy.misbehave(Status(503))
        client = real_client([server.url], f"{proxy.url};DIRECT")
        assert download(client) == OBJECT
        assert client.routes.active_proxy == "DIRECT"


def test_local_directory_and_server_can_be_mixed(tmp_path: Path) -> None:
    with HttpServer(FILES) as server:
        client = real_client([f"file://{tmp_path}", server.url])
        assert download(client) == OBJECT
        (tmp_path / PATH).parent.mkdir(parents=True)
        (tmp_path / PATH).write_bytes(OBJECT)
        client.next_host()
        assert download(client) == OBJECT
        assert server.count() == 1


def test_local_directory_does_not_burn_proxies(tmp_path: Path) -> None:
    client = real_client([f"file://{tmp_path}"], "http://p1:1|http://p2:1")
    (tmp_path / PATH).mkdir(parents=True)
    with pytest.raises(TransferError, match="not a regular file"):
        download(client)


def test_no_read_fails_while_one_route_works() -> None:
    """Servers and proxies die and come back while many threads read."""
    with (
        HttpServer(FILES) as first,
        HttpServer(FILES) as second,
        ForwardProxy() as one,
        ForwardProxy() as two,
    ):
        client = real_client([first.url, second.url], f"{one.url}|{two.url}", 1, 5)
        stop = threading.Event()

        def read() -> int:
            count = 0
            while not stop.is_set():
                assert download(client) == OBJECT
                count += 1
            return count

        with ThreadPoolExecutor(6) as pool:
            readers = [pool.submit(read) for _ in range(6)]
            for victim in (one, first, two, second):
                victim.stop()
                stop.wait(0.2)
                victim.start()
                victim.misbehave(Corrupt())
                stop.wait(0.2)
                victim.behave()
                victim.misbehave(CutOff(2))
                stop.wait(0.2)
                victim.behave()
            stop.set()
        assert all(reader.result() > 0 for reader in readers)


# ---- transfers that are cut off -----------------------------------------------------

MIB = bytes(range(256)) * 4096
LARGE_FILES = {f"/{PATH}": MIB}


class CollectingSink:
    """Knows which bytes are right, however they came."""

    def __init__(self) -> None:
        self.received = bytearray()

    def write(self, data: bytes) -> None:
        self.received += data

    def finish(self) -> None:
        if self.received != MIB:
            raise IntegrityError("the hash does not match")


def sinks_of(client: HttpClient) -> list[int]:
    """Download the large object and return how many bytes each sink has got."""
    sinks: list[CollectingSink] = []

    def new_sink() -> CollectingSink:
        sinks.append(CollectingSink())
        return sinks[-1]

    client.fetch_object(PATH, new_sink, limit_bytes=len(MIB))
    return [len(sink.received) for sink in sinks]


def ranges(server: HttpServer) -> list[str | None]:
    return [request.headers.get("range") for request in server.requests]


@pytest.mark.parametrize("behaviour", [CutOff(700_000), Stall(700_000)], ids=repr)
def test_rest_of_a_large_object_is_asked_for_on_the_same_route(
    behaviour: Behaviour,
) -> None:
    with HttpServer(LARGE_FILES) as server:
        server.misbehave(behaviour, times=1)
        assert sinks_of(real_client([server.url], max_retries=1)) == [len(MIB)]
        assert ranges(server) == [None, "bytes=700000-"]


def test_rest_of_a_large_object_comes_by_the_next_route() -> None:
    with (
        HttpServer(LARGE_FILES) as server,
        ForwardProxy() as one,
        ForwardProxy() as two,
    ):
        one.misbehave(CutOff(500_000))
        client = real_client([server.url], f"{one.url};{two.url}")
        assert sinks_of(client) == [len(MIB)]
        assert ranges(two) == ["bytes=500000-"]
        assert client.statistics.received_bytes == len(MIB)


def test_transfer_may_be_cut_off_several_times() -> None:
    with HttpServer(LARGE_FILES) as server:
        server.misbehave(CutOff(200_000), times=3)
        assert sinks_of(real_client([server.url], max_retries=3)) == [len(MIB)]
        assert ranges(server)[1:] == [f"bytes={n}00000-" for n in (2, 4, 6)]


def test_server_that_sends_everything_again_makes_us_begin_again() -> None:
    with HttpServer(LARGE_FILES) as server:
        server.misbehave(CutOff(700_000), times=1)
        server.misbehave(WholeAnyway())
        assert sinks_of(real_client([server.url], max_retries=1)) == [700_000, len(MIB)]
        assert ranges(server) == [None, "bytes=700000-", None]


def test_server_that_has_no_such_range_makes_us_begin_again() -> None:
    with HttpServer(LARGE_FILES) as server:
        server.misbehave(WrongLength(1), times=1)
        assert sinks_of(real_client([server.url], max_retries=1)) == [len(MIB)] * 2
        assert ranges(server) == [None, f"bytes={len(MIB)}-", None]


def test_beginning_again_is_not_resumed_once_more() -> None:
    with HttpServer(LARGE_FILES) as server:
        server.misbehave(CutOff(700_000), times=1)
        server.misbehave(WholeAnyway(), times=1)
        server.misbehave(CutOff(800_000), times=1)
        client = real_client([server.url], max_retries=2)
        assert sinks_of(client) == [700_000, 800_000, len(MIB)]
        assert ranges(server) == [None, "bytes=700000-", None, None]


def test_rest_that_does_not_fit_is_corrupt_and_all_is_asked_for_past_caches() -> None:
    with HttpServer(LARGE_FILES) as server:
        server.misbehave(CutOff(700_000), times=1)
        server.misbehave(Corrupt(), times=1)
        client = real_client([server.url], max_retries=1)
        assert sinks_of(client) == [len(MIB)] * 2
        assert server.requests[2].headers["cache-control"] == "no-cache"
        assert ranges(server) == [None, "bytes=700000-", None]


def test_error_on_the_way_does_not_lose_what_came_before() -> None:
    with HttpServer(LARGE_FILES) as one, HttpServer(LARGE_FILES) as two:
        one.misbehave(CutOff(700_000), times=1)
        one.misbehave(Status(500))
        assert sinks_of(real_client([one.url, two.url], max_retries=1)) == [len(MIB)]
        assert ranges(two) == ["bytes=700000-"]


def test_little_that_came_is_asked_for_again() -> None:
    with HttpServer(LARGE_FILES) as server:
        server.misbehave(CutOff(1000), times=1)
        assert sinks_of(real_client([server.url], max_retries=1)) == [1000, len(MIB)]


def test_rest_may_not_exceed_the_limit() -> None:
    with HttpServer(LARGE_FILES) as server:
        server.misbehave(CutOff(700_000), times=1)
        server.misbehave(Oversized(1))
        with pytest.raises(IntegrityError, match="more than"):
            sinks_of(real_client([server.url], max_retries=1))


# ---- what became known --------------------------------------------------------------


def test_failures_are_kept_without_passwords() -> None:
    transport = MemoryTransport(URLS, [500, FaultKind.CONNECT])
    client = client_of(
        transport, "http://u:secret@h0 http://h1", "http://u:secret@p1:1"
    )
    transport.files[f"http://h1/{PATH}"] = OBJECT
    download(client)
    first, second = client.failures()
    assert (first.host, first.proxy) == ("http://h0", "http://p1:1")
    assert first.text == "HTTP status 500"
    assert second.host == "http://h1"
    assert second.text.startswith("cannot connect")
    assert first.at_s > 1e9
    assert "secret" not in repr(client.failures())


def test_question_aside_changes_nothing() -> None:
    transport = MemoryTransport({"http://h0/geo": b"2,1"}, [500])
    client = client_of(transport)
    assert client.ask_aside("http://h0/geo", 100) is None
    assert client.ask_aside("http://h0/geo", 100) == b"2,1"
    assert client.ask_aside("http://h0/geo", 1) is None
    assert client.routes.active_host == "http://h0"
    assert client.failures() == ()


def test_stalling_proxy_costs_parallel_requests_one_timeout() -> None:
    with HttpServer(FILES) as server, ForwardProxy() as dead, ForwardProxy() as good:
        dead.misbehave(Stall())
        client = real_client([server.url], f"{dead.url};{good.url}", max_retries=3)
        with ThreadPoolExecutor(16) as pool:
            assert set(pool.map(lambda _: download(client), range(16))) == {OBJECT}
        assert dead.count() <= 17, "asked again after it was known to stall"
        assert client.routes.active_proxy == good.url
        download(client)
        assert dead.count() <= 17


def test_sharding_gives_each_object_to_one_proxy() -> None:
    files = {f"/data/{n:02x}/x": OBJECT for n in range(64)}
    with HttpServer(files) as server, ForwardProxy() as one, ForwardProxy() as two:
        settings = NetworkSettings(
            (server.url,),
            parse_proxy_list(f"{one.url}|{two.url}"),
            failover=FailoverPolicy(is_sharded=True),
        )
        for _ in range(2):
            client = HttpClient(settings)
            for path in files:
                client.fetch_object(path[1:], CheckingSink, limit_bytes=100)
        asked = [{r.target for r in proxy.requests} for proxy in (one, two)]
        assert not asked[0] & asked[1]
        assert all(len(targets) > 10 for targets in asked)
        assert one.count() + two.count() == 2 * len(files)
        assert one.connections + two.connections == 4
