import base64
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import pytest

from cvmfsexec import callers
from cvmfsexec.format.proxy_groups import DIRECT, parse_proxy_list
from cvmfsexec.network import curl_transport
from cvmfsexec.network.authorities import Authorities
from cvmfsexec.network.credentials import Credential
from cvmfsexec.network.curl_transport import CurlTransport
from cvmfsexec.network.settings import NetworkSettings
from cvmfsexec.network.transport import Answer, FaultKind, Request, TransportFault
from tests.support.authority import Authority
from tests.support.http_server import (
    Behaviour,
    CutOff,
    ForwardProxy,
    Garbage,
    HttpServer,
    Redirect,
    Slow,
    Stall,
    Status,
    WholeAnyway,
    WrongLength,
    unused_port_url,
)
from tests.support.transport_contract import ignore, request, unexpected

FILES = {"/a": b"content of a", "/b": b"content of b", "/large": bytes(100_000)}
IMPATIENT = NetworkSettings(
    servers=("http://unused.example.org",), timeout_s=1, timeout_direct_s=1
)


@pytest.fixture
def server() -> Iterator[HttpServer]:
    with HttpServer(FILES) as running:
        yield running


def ask(
    url: str, settings: NetworkSettings = IMPATIENT, proxy: str = DIRECT
) -> tuple[Answer, bytes]:
    pieces: list[bytes] = []
    asked = Request(url, proxy, 1 << 30)
    answer = CurlTransport(settings).get(asked, pieces.append)
    return answer, b"".join(pieces)


def test_connection_is_kept(server: HttpServer) -> None:
    transport = CurlTransport(IMPATIENT)
    for _ in range(5):
        transport.get(request(server.url + "/a"), ignore)
        transport.get(request(server.url + "/absent"), unexpected)
    assert server.connections == 1


def test_large_error_page_is_not_read_to_its_end(server: HttpServer) -> None:
    server.misbehave(Status(404, body=bytes(10_000_000)), times=1)
    transport = CurlTransport(IMPATIENT)
    assert transport.get(request(server.url + "/a"), unexpected).status == 404
    pieces: list[bytes] = []
    transport.get(request(server.url + "/a"), pieces.append)
    assert pieces == [FILES["/a"]]


def test_number_of_connections_is_bounded(server: HttpServer) -> None:
    transport = CurlTransport(IMPATIENT._replace(connections_max=3))
    server.misbehave(Slow(500_000), path="/large")
    with ThreadPoolExecutor(12) as pool:
        for _ in range(12):
            pool.submit(transport.get, request(server.url + "/large"), ignore)
    assert server.count("/large") == 12
    assert server.connections <= 3


def test_calls_itself_cvmfs(server: HttpServer) -> None:
    ask(server.url + "/a")
    headers = server.requests[0].headers
    assert headers["user-agent"].startswith("cvmfs")
    assert "cache-control" not in headers
    assert "pragma" not in headers
    assert "accept-encoding" not in headers


def test_no_cache_is_said_once_and_not_again(server: HttpServer) -> None:
    transport = CurlTransport(IMPATIENT)
    for no_cache in (False, True, False):
        asked = request(server.url + "/a")._replace(no_cache=no_cache)
        transport.get(asked, ignore)
    said = [r.headers.get("cache-control") for r in server.requests]
    assert said == [None, "no-cache", None]
    assert server.requests[1].headers["pragma"] == "no-cache"


def test_headers_of_an_error_are_readable(server: HttpServer) -> None:
    server.misbehave(Status(503, {"X-Squid-Error": "ERR_DNS_FAIL 0", "Via": "x"}))
    answer, _ = ask(server.url + "/a")
    assert answer.status == 503
    assert answer.header("x-squid-error") == "ERR_DNS_FAIL 0"
    assert answer.header("proxy-status") == ""


@pytest.mark.parametrize(
    ("behaviour", "kind"),
    [
        (CutOff(0), FaultKind.CUT_OFF),
        (CutOff(5), FaultKind.CUT_OFF),
        (Stall(), FaultKind.TOO_SLOW),
        (Stall(5), FaultKind.TOO_SLOW),
        (Slow(500), FaultKind.TOO_SLOW),
        (Garbage(), FaultKind.CUT_OFF),
        (Garbage(b""), FaultKind.CUT_OFF),
        (Garbage(b"HTTP/1.1 200 OK\r\n" + b"X: " + bytes(400_000)), FaultKind.CUT_OFF),
        (Garbage(b"HTTP/1.1 200 OK\r\nX: y\r\n" * 30_000), FaultKind.CUT_OFF),
        (WrongLength(1), FaultKind.CUT_OFF),
    ],
)
def test_faults(server: HttpServer, behaviour: Behaviour, kind: FaultKind) -> None:
    server.misbehave(behaviour)
    with pytest.raises(TransportFault) as caught:
        ask(server.url + "/large")
    assert caught.value.kind is kind


def test_nobody_listens() -> None:
    with pytest.raises(TransportFault) as caught:
        ask(unused_port_url() + "/a")
    assert caught.value.kind is FaultKind.CONNECT


@pytest.mark.parametrize(
    ("proxy", "kind"),
    [
        (DIRECT, FaultKind.HOST_RESOLVE),
        ("http://no-such-name.invalid:3128", FaultKind.PROXY_RESOLVE),
    ],
)
def test_unknown_name(proxy: str, kind: FaultKind) -> None:
    patient = IMPATIENT._replace(timeout_s=10, timeout_direct_s=10)
    with pytest.raises(TransportFault) as caught:
        ask("http://no-such-name.invalid/a", patient, proxy)
    assert caught.value.kind is kind


def test_redirect_is_an_answer_unless_allowed(server: HttpServer) -> None:
    server.misbehave(Redirect("/b"), path="/a")
    assert ask(server.url + "/a")[0].status == 302


@pytest.mark.parametrize("code", [301, 302, 303, 307])
def test_redirect_is_followed_when_allowed(server: HttpServer, code: int) -> None:
    server.misbehave(Redirect("/b", code), path="/a")
    answer, body = ask(server.url + "/a", IMPATIENT._replace(follows_redirects=True))
    assert answer.status == 200
    assert body == FILES["/b"]


def test_308_is_never_followed(server: HttpServer) -> None:
    server.misbehave(Redirect("/b", 308), path="/a")
    answer, _ = ask(server.url + "/a", IMPATIENT._replace(follows_redirects=True))
    assert answer.status == 308
    assert server.count() == 1


@pytest.mark.parametrize(
    ("location", "requests"),
    [
        ("/a", 5),
        ("file:///etc/passwd", 1),
        ("", 1),
        ("http://[x/", 1),
        ("http://", 1),
        ("http:///a b", 1),
        ("gopher://x", 1),
        ("http://x/\xff\xfe", 1),
    ],
)
def test_redirect_to_nowhere_is_the_hosts_fault(
    server: HttpServer, location: str, requests: int
) -> None:
    server.misbehave(Redirect(location))
    with pytest.raises(TransportFault) as caught:
        ask(server.url + "/a", IMPATIENT._replace(follows_redirects=True))
    assert caught.value.kind is FaultKind.HOST_CONNECTION
    assert server.count() == requests


def test_proxy_is_used_and_left(server: HttpServer) -> None:
    transport = CurlTransport(IMPATIENT)
    with ForwardProxy() as proxy:
        for route in (proxy.url, DIRECT, proxy.url):
            pieces: list[bytes] = []
            transport.get(Request(server.url + "/a", route, 100), pieces.append)
            assert pieces == [FILES["/a"]]
    assert [r.target for r in proxy.requests] == [server.url + "/a"] * 2
    assert server.count() == 3


def test_proxy_gets_user_and_password(server: HttpServer) -> None:
    credentials = base64.b64encode(b"user:pass@word").decode()
    with ForwardProxy(credentials=credentials) as proxy:
        assert ask(server.url + "/a", proxy=proxy.url)[0].status == 407
        url = proxy.url.replace("//", "//user:pass%40word@")
        assert ask(server.url + "/a", proxy=url)[1] == FILES["/a"]


def test_environment_proxies_are_ignored(server: HttpServer) -> None:
    dead = unused_port_url()
    program = (
        "from cvmfsexec.network.curl_transport import CurlTransport\n"
        "from cvmfsexec.network.settings import NetworkSettings\n"
        "from cvmfsexec.network.transport import Request\n"
        "import sys\n"
        "url, *proxies = sys.argv[1:]\n"
        "transport = CurlTransport(NetworkSettings((url,)))\n"
        "for proxy in proxies:\n"
        "    print(transport.get(Request(url, proxy, 100), print).status)\n"
    )
    with ForwardProxy() as proxy:
        environment = {
            **os.environ,
            "http_proxy": dead,
            "HTTP_PROXY": dead,
            "all_proxy": dead,
            "ALL_PROXY": dead,
            "no_proxy": "*",
            "NO_PROXY": "*",
        }
        done = subprocess.run(
            [sys.executable, "-c", program, server.url + "/a", DIRECT, proxy.url],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert proxy.count() == 1
    assert done.stdout.split("\n") == ["b'content of a'", "200"] * 2 + [""]


WORD = "p@ss:w/ord;|%25 ä"


def test_any_password_can_be_written_in_a_proxy_url(server: HttpServer) -> None:
    credentials = base64.b64encode(f"user:{WORD}".encode()).decode()
    with ForwardProxy(credentials=credentials) as proxy:
        escaped = quote(WORD, safe="")
        (group,) = parse_proxy_list(proxy.url.replace("//", f"//user:{escaped}@"))
        assert ask(server.url + "/a", proxy=group.members[0])[1] == FILES["/a"]


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no ::1")
def test_server_and_proxy_may_be_ipv6_addresses() -> None:
    with (
        HttpServer(FILES, address="::1") as server,
        ForwardProxy(address="::1") as proxy,
    ):
        for route in (DIRECT, proxy.url):
            assert ask(server.url + "/a", proxy=route)[1] == FILES["/a"]
        assert proxy.count() == 1


def test_rest_is_not_taken_from_a_server_that_sends_everything(
    server: HttpServer,
) -> None:
    server.misbehave(WholeAnyway())
    asked = request(server.url + "/large")._replace(skip_bytes=5)
    answer = CurlTransport(IMPATIENT).get(asked, unexpected)
    assert (answer.status, answer.received_bytes) == (200, 0)


def test_fault_tells_how_much_went_to_the_sink(server: HttpServer) -> None:
    server.misbehave(CutOff(70_000))
    pieces: list[bytes] = []
    with pytest.raises(TransportFault) as caught:
        CurlTransport(IMPATIENT).get(request(server.url + "/large"), pieces.append)
    assert caught.value.received_bytes == sum(map(len, pieces)) == 70_000


def test_fault_on_an_error_page_brought_the_sink_nothing(server: HttpServer) -> None:
    server.misbehave(Garbage(b"HTTP/1.1 500 X\r\nContent-Length: 99\r\n\r\nabc"))
    with pytest.raises(TransportFault) as caught:
        CurlTransport(IMPATIENT).get(request(server.url + "/a"), unexpected)
    assert caught.value.received_bytes == 0


def test_each_proxy_keeps_its_connections(server: HttpServer) -> None:
    transport = CurlTransport(IMPATIENT)
    with ForwardProxy() as one, ForwardProxy() as two:
        for _ in range(5):
            for proxy in (one, two):
                transport.get(Request(server.url + "/a", proxy.url, 100), ignore)
        assert (one.connections, two.connections) == (1, 1)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def tls_server(authority: Authority) -> Iterator[HttpServer]:
    with HttpServer(FILES, tls=authority.context()) as running:
        yield running


def test_https_with_a_known_authority(
    tls_server: HttpServer, authority: Authority
) -> None:
    settings = IMPATIENT._replace(authorities=Authorities(bundle=str(authority.bundle)))
    assert ask(tls_server.url + "/a", settings)[1] == FILES["/a"]


def test_https_with_an_unknown_authority_is_refused(
    tls_server: HttpServer, tmp_path: Path
) -> None:
    settings = IMPATIENT._replace(authorities=Authorities(directory=str(tmp_path)))
    with pytest.raises(TransportFault) as caught:
        ask(tls_server.url + "/a", settings)
    assert caught.value.kind is FaultKind.HOST_CONNECTION


TOKEN = Credential(b"", "a.secret.token")


def secret_request(url: str, credential: Credential, proxy: str = DIRECT) -> Request:
    return Request(url, proxy, 1 << 20, credential=credential)


@pytest.fixture
def trusting(authority: Authority) -> CurlTransport:
    settings = IMPATIENT._replace(
        authorities=Authorities(bundle=str(authority.bundle)), follows_redirects=True
    )
    return CurlTransport(settings)


def test_token_is_shown_to_the_server(
    trusting: CurlTransport, authority: Authority
) -> None:
    tls = authority.context()
    with HttpServer(FILES, tls, token=TOKEN.bearer_token) as server:
        url = server.url + "/a"
        assert trusting.get(request(url), unexpected).status == 401
        assert trusting.get(secret_request(url, TOKEN), ignore).status == 200
        assert trusting.get(request(url), unexpected).status == 401
        other = Credential(b"", "another")
        assert trusting.get(secret_request(url, other), unexpected).status == 401


def test_certificate_is_shown_to_the_server(
    trusting: CurlTransport, authority: Authority
) -> None:
    with HttpServer(FILES, authority.context(asks_for_certificate=True)) as server:
        url = server.url + "/a"
        with pytest.raises(TransportFault):
            trusting.get(request(url), unexpected)
        credential = Credential(certificate=authority.credential)
        assert trusting.get(secret_request(url, credential), ignore).status == 200
        trusting.close()
        with pytest.raises(TransportFault):
            trusting.get(request(url), unexpected)


def test_unusable_certificate_is_a_fault(
    trusting: CurlTransport, tls_server: HttpServer
) -> None:
    credential = Credential(certificate=b"-----BEGIN CERTIFICATE-----\nx\n")
    with pytest.raises(TransportFault) as caught:
        trusting.get(secret_request(tls_server.url + "/a", credential), unexpected)
    assert caught.value.kind is FaultKind.HOST_CONNECTION


def test_proxy_does_not_see_the_token(
    trusting: CurlTransport, authority: Authority
) -> None:
    tls = authority.context()
    with (
        HttpServer(FILES, tls, token=TOKEN.bearer_token) as server,
        ForwardProxy() as proxy,
    ):
        asked = secret_request(server.url + "/a", TOKEN, proxy.url)
        assert trusting.get(asked, ignore).status == 200
        assert [r.target for r in proxy.requests] == [server.url[8:]]  # CONNECT
        assert "secret" not in repr(proxy.requests)


def test_token_is_not_taken_to_where_a_server_redirects(
    trusting: CurlTransport,
    tls_server: HttpServer,
    server: HttpServer,
    authority: Authority,
) -> None:
    tls = authority.context()
    with HttpServer(FILES, tls) as other:
        for target in (other, server):
            tls_server.misbehave(Redirect(target.url + "/a"), path="/a", times=1)
            answer = trusting.get(secret_request(tls_server.url + "/a", TOKEN), ignore)
            assert answer.status == 200
            assert "authorization" not in target.requests[-1].headers
        assert "authorization" in tls_server.requests[-1].headers
        tls_server.misbehave(Redirect("/b"), path="/a", times=1)
        trusting.get(secret_request(tls_server.url + "/a", TOKEN), ignore)
        assert "authorization" in tls_server.requests[-1].headers


def test_token_does_not_come_back_by_a_second_redirect(
    trusting: CurlTransport, tls_server: HttpServer, server: HttpServer
) -> None:
    tls_server.misbehave(Redirect(server.url + "/back"), path="/a", times=1)
    server.misbehave(Redirect(tls_server.url + "/b"), path="/back")
    trusting.get(secret_request(tls_server.url + "/a", TOKEN), ignore)
    assert "authorization" not in tls_server.requests[-1].headers
    trusting.get(secret_request(tls_server.url + "/a", TOKEN), ignore)
    assert "authorization" in tls_server.requests[-1].headers


def test_reads_go_on_after_a_restart_of_the_server(server: HttpServer) -> None:
    transport = CurlTransport(IMPATIENT)
    transport.get(request(server.url + "/a"), ignore)
    server.stop()
    server.start()
    pieces: list[bytes] = []
    transport.get(request(server.url + "/a"), pieces.append)
    assert pieces == [FILES["/a"]]


def test_closed_transport_opens_new_connections(server: HttpServer) -> None:
    transport = CurlTransport(IMPATIENT)
    transport.get(request(server.url + "/a"), ignore)
    transport.close()
    transport.get(request(server.url + "/a"), ignore)
    assert server.connections == 2


def test_library_may_be_loaded_by_several_threads(server: HttpServer) -> None:
    program = (
        "import sys, threading\n"
        "from cvmfsexec.network import curl_transport, libcurl\n"
        "from cvmfsexec.network.settings import NetworkSettings\n"
        "from cvmfsexec.network.transport import Request\n"
        "thread = threading.Thread(target=libcurl.load)\n"
        "thread.start()\n"
        "transport = curl_transport.CurlTransport(NetworkSettings((sys.argv[1],)))\n"
        "transport.get(Request(sys.argv[1], 'DIRECT', 100), print)\n"
        "thread.join()\n"
        "assert 'asyncio' not in sys.modules\n"
        "import pycurl\n"
        "assert pycurl.Curl is sys.modules['pycurl._pycurl'].Curl\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, server.url + "/a"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "b'content of a'\n"


def test_importing_the_module_loads_no_library() -> None:
    program = (
        f"import sys, {curl_transport.__name__}, cvmfsexec.network.client\n"
        "heavy = {'pycurl', 'pycurl._pycurl', 'logging', 'socket', 'random',\n"
        "         'dataclasses', 'pathlib', 'subprocess', 'asyncio', 'tempfile'}\n"
        "print(*sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == []


def test_a_stalled_transfer_does_not_hold_up_others(server: HttpServer) -> None:
    transport = CurlTransport(IMPATIENT._replace(timeout_direct_s=4))
    server.misbehave(Stall(), path="/large")

    def stall() -> None:
        with pytest.raises(TransportFault):
            transport.get(request(server.url + "/large"), ignore)

    stalled = threading.Thread(target=stall)
    stalled.start()
    for _ in range(20):
        transport.get(request(server.url + "/a"), ignore)
    assert stalled.is_alive()
    stalled.join()


ANSWERS = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"HTTP/1.1 302 F\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 206 P\r\nContent-Range: bytes 5-9/10\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.0 200 OK\r\nContent-Encoding: gzip\r\n\r\nhello",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 N\r\n\r\n",
)
BITS = (b"\r\n", b"\n", b"\0", b"chunked", b"-1", b"9" * 20, b"Location: http://[",
        b"Transfer-Encoding: gzip", b"HTTP/3", b"\xff", b" ", b":")  # fmt: skip


def test_odd_answers_are_answers_or_faults_that_lead_elsewhere(
    server: HttpServer,
) -> None:
    numbers = random.Random(1)  # noqa: S311 -- the same every time
    settings = IMPATIENT._replace(follows_redirects=True)
    transport = CurlTransport(settings)
    kinds: set[FaultKind] = set()
    for _ in range(300):
        raw = bytearray(numbers.choice(ANSWERS))
        for _ in range(numbers.randrange(1, 5)):
            start = numbers.randrange(len(raw) + 1)
            raw[start : start + numbers.randrange(8)] = numbers.choice((b"", *BITS))
        server.behave()
        server.misbehave(Garbage(bytes(raw)))
        asked = request(server.url + "/a")
        try:
            transport.get(asked._replace(skip_bytes=numbers.choice((0, 5))), ignore)
        except TransportFault as fault:
            kinds.add(fault.kind)
    assert FaultKind.CUT_OFF in kinds
    assert FaultKind.OTHER not in kinds


# Transfers that nobody waits for any more


class Asking(threading.Thread):
    """Asks on behalf of a caller, and remembers what came of it."""

    def __init__(self, transport: CurlTransport, url: str) -> None:
        super().__init__(daemon=True)
        self.caller = callers.Caller()
        self.caller.task = object()
        self.outcome: object = None
        self._transport = transport
        self._request = Request(url, DIRECT, 1 << 30)
        self.start()

    def run(self) -> None:
        callers.work_for(self.caller)
        try:
            self.outcome = self._transport.get(self._request, ignore)
        except (callers.CannotWait, TransportFault) as error:
            self.outcome = error

    def leave(self) -> object:
        """Let the caller go away, and return what became of the transfer."""
        self.caller.leave(self.caller.task)
        self.join(30)
        return self.outcome


PATIENT = IMPATIENT._replace(timeout_s=3600, timeout_direct_s=3600, connections_max=1)


def wait_for_request(server: HttpServer, count: int = 1) -> None:
    while server.count() < count:
        time.sleep(0.001)


@pytest.mark.parametrize("behaviour", [Stall(), Stall(2), Slow(10)], ids=str)
def test_a_transfer_that_nobody_waits_for_ends(
    server: HttpServer, behaviour: Behaviour
) -> None:
    transport = CurlTransport(PATIENT)
    server.misbehave(behaviour, path="/large", times=1)
    asking = Asking(transport, server.url + "/large")
    wait_for_request(server)
    assert isinstance(asking.leave(), callers.CannotWait)
    assert transport.get(Request(server.url + "/a", DIRECT, 100), ignore).status == 200


def test_a_connection_that_does_not_come_about_ends() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        address = silent.getsockname()
        filling = []
        for _ in range(3):  # what the kernel accepts by itself
            one = socket.socket()
            one.settimeout(0)
            one.connect_ex(address)
            filling.append(one)
        asking = Asking(CurlTransport(PATIENT), f"http://127.0.0.1:{address[1]}/a")
        try:
            while asking.caller._cut is None:
                time.sleep(0.001)
            assert isinstance(asking.leave(), callers.CannotWait)
        finally:
            for one in filling:
                one.close()


def test_who_waits_for_a_connection_can_leave(server: HttpServer) -> None:
    transport = CurlTransport(PATIENT)
    server.misbehave(Stall())
    first = Asking(transport, server.url + "/a")
    wait_for_request(server)
    second = Asking(transport, server.url + "/b")
    assert isinstance(second.leave(), callers.CannotWait)
    assert server.count("/b") == 0
    assert isinstance(first.leave(), callers.CannotWait)


def test_an_idle_connection_that_was_cut_is_replaced(server: HttpServer) -> None:
    transport = CurlTransport(PATIENT)
    asking = Asking(transport, server.url + "/a")
    asking.join(30)
    assert isinstance(asking.outcome, Answer)
    (handle,) = transport._idle[DIRECT]
    handle.cut()
    assert transport.get(Request(server.url + "/a", DIRECT, 100), ignore).status == 200
    assert server.connections == 2


def test_what_took_a_connections_place_is_not_cut(server: HttpServer) -> None:
    transport = CurlTransport(PATIENT)
    transport.get(Request(server.url + "/a", DIRECT, 100), ignore)
    (handle,) = transport._idle[DIRECT]
    ours, theirs = socket.socketpair()
    with ours, theirs:
        handle._sockets.clear()
        handle._sockets += [(ours.fileno(), 1), (1 << 20, 1)]
        handle.cut()
        ours.send(b"still there")
        assert theirs.recv(100) == b"still there"
