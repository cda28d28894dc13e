import random
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.errors import FormatError
from cvmfsexec.format.proxy_groups import parse_proxy_list
from cvmfsexec.network.client import HttpClient
from cvmfsexec.network.geo import (
    GeoOrder,
    GeoOrdering,
    GeoQuestion,
    client_identifier,
    host_name,
)
from cvmfsexec.network.settings import NetworkSettings
from cvmfsexec.network.transport import FaultKind, Request
from tests.support.http_server import ForwardProxy, HttpServer, Stall
from tests.support.memory_transport import MemoryTransport, Script

SERVERS = tuple(
    f"http://{name}:8000/cvmfs/atlas.cern.ch" for name in ("s1.ch", "s3.us", "s2.tw")
)
NAMES = "s1.ch,s2.tw,s3.us"


def question(
    servers: tuple[str, ...] = SERVERS, proxies: str = "p1:1", fallback: str = ""
) -> GeoQuestion:
    made = GeoQuestion.about(
        servers, parse_proxy_list(proxies), parse_proxy_list(fallback)
    )
    assert made is not None
    return made


@pytest.mark.parametrize(
    ("proxies", "fallback", "path"),
    [
        ("p1:1", "", f"api/v1.0/geo/me/{NAMES}"),
        ("p1:1", "b.org:1|x:1;a.org:1", f"api/v1.0/geo/me/{NAMES},b.org,a.org"),
        ("", "b.org:1", f"api/v1.0/geo/me/{NAMES},+PXYSEP+,b.org"),
    ],
)
def test_question(proxies: str, fallback: str, path: str) -> None:
    assert question(proxies=proxies, fallback=fallback).path("me") == path


def test_order_of_servers() -> None:
    order = question().order(b"3,1,2\n")
    assert [host_name(server) for server in order.servers] == [
        "s3.us",
        "s1.ch",
        "s2.tw",
    ]
    assert order.fallback_groups == ()


def test_order_of_fallback_proxies() -> None:
    order = question(fallback="f0:1;f1:1;f2:1").order(b"6,2,4,1,5,3")
    assert [host_name(server) for server in order.servers] == [
        "s2.tw",
        "s1.ch",
        "s3.us",
    ]
    assert order.fallback_groups == (2, 0, 1)


def test_number_of_the_separator_is_left_out() -> None:
    order = question(proxies="", fallback="f0:1;f1:1").order(b"6,4,2,5,1,3")
    assert order.fallback_groups == (1, 0)
    assert len(order.servers) == 3


@pytest.mark.parametrize(
    "answer",
    [b"", b"1,2", b"1,2,3,4", b"1,2,2", b"0,1,2", b"1,2,4", b"1;2;3", b"-1,2,3",
     b"1,2,3,", b"1, 2, 3", b"1,2,3\n1,2,3", b"<html>", b"\xff", b"1,2," + b"0" * 5000,
     b"\xd9\xa1,\xd9\xa2,\xd9\xa3"],
)  # fmt: skip
def test_what_is_no_permutation_is_refused(answer: bytes) -> None:
    with pytest.raises(FormatError):
        question().order(answer)


@pytest.mark.parametrize(
    ("servers", "fallback"),
    [
        (SERVERS[:1], ""),
        (SERVERS[:1], "f0:1"),
        ((*SERVERS, "file:///srv/repository"), ""),
        (tuple(f"http://s{n}" for n in range(600)), ""),
        (SERVERS, "DIRECT"),
    ],
)
def test_nothing_to_ask(servers: tuple[str, ...], fallback: str) -> None:
    groups = parse_proxy_list("p1:1")
    assert GeoQuestion.about(servers, groups, parse_proxy_list(fallback)) is None


def test_two_fallback_groups_are_enough_to_ask() -> None:
    assert question(SERVERS[:1], fallback="f0:1;f1:1").names == "s1.ch,f0,f1"


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("http://a.b:80/c", "a.b"),
        ("https://u:p@a.b", "a.b"),
        ("http://[::1]:80", "[::1]"),
        ("DIRECT", ""),
        ("file:///x", ""),
    ],
)
def test_host_name(url: str, name: str) -> None:
    assert host_name(url) == name


@given(st.integers(1, 6), st.integers(0, 4), st.booleans(), st.binary(max_size=40),
       st.randoms(use_true_random=False), st.booleans())  # fmt: skip
def test_any_answer_is_an_order_of_all_or_refused(
    servers: int,
    fallbacks: int,
    has_separator: bool,  # noqa: FBT001 -- drawn
    noise: bytes,
    numbers: random.Random,
    is_right: bool,  # noqa: FBT001 -- drawn
) -> None:
    urls = tuple(f"http://s{n}" for n in range(servers))
    names = tuple(f"f{n}" for n in range(fallbacks))
    asked = GeoQuestion(urls, names, has_separator)
    count = servers + fallbacks + has_separator
    right = numbers.sample(range(1, count + 1), count)
    answer = ",".join(map(str, right)).encode() if is_right else noise
    try:
        order = asked.order(answer)
    except FormatError:
        assert not is_right
        return
    assert sorted(order.servers) == sorted(urls)
    assert sorted(order.fallback_groups) == list(range(fallbacks))


# ---- asking and remembering ---------------------------------------------------------


class Asked:
    """A client on servers that answer, and what was asked."""

    def __init__(
        self,
        directory: Path,
        answer: Script = b"3,1,2\n",
        proxies: str = "p1.ch:1",
        fallback: str = "",
        template: str = "",
    ) -> None:
        self.now_s = 1000.0
        self.directory = directory
        self.answer = answer
        self.settings = NetworkSettings(
            SERVERS,
            parse_proxy_list(proxies),
            parse_proxy_list(fallback),
            proxy_template=template,
        )
        self.transport = MemoryTransport(decide=self._decide)
        self.client = HttpClient(self.settings, self.transport)

    def _decide(self, _: Request) -> Script:
        return self.answer

    def ordering(self) -> GeoOrdering:
        return GeoOrdering(
            self.client, self.settings, str(self.directory), "geo.x", lambda: self.now_s
        )

    def start(self) -> list[str]:
        """Start, wait for the answer, and return the servers in order."""
        thread = self.ordering().start()
        if thread is not None:
            thread.join()
        return [host_name(host) for host in self.client.hosts()]


def test_answer_is_used_and_remembered(tmp_path: Path) -> None:
    first = Asked(tmp_path)
    assert first.start() == ["s3.us", "s1.ch", "s2.tw"]
    (request,) = first.transport.requests
    assert request.proxy == "http://p1.ch:1"
    assert request.url.endswith(f"/cvmfs/atlas.cern.ch/api/v1.0/geo/p1.ch/{NAMES}")
    second = Asked(tmp_path)
    assert second.start() == ["s3.us", "s1.ch", "s2.tw"]
    assert second.transport.requests == []


def test_old_answer_is_used_and_asked_for_again(tmp_path: Path) -> None:
    Asked(tmp_path).start()
    later = Asked(tmp_path, answer=FaultKind.CONNECT)
    later.now_s += 86_400
    assert later.start() == ["s3.us", "s1.ch", "s2.tw"]
    assert len(later.transport.requests) == 3


def test_answer_for_other_proxies_is_not_used(tmp_path: Path) -> None:
    Asked(tmp_path).start()
    elsewhere = Asked(tmp_path, b"1,2,3", "p9.tw:1")
    assert elsewhere.start() == ["s1.ch", "s2.tw", "s3.us"]


@pytest.mark.parametrize(
    "damage", [b"", b"\n\n\n", b"x\n1,2,3\n1000\n", b"\xff\n", b"{key}\n3,1\n1000\n",
               b"{key}\n3,1,2\nsoon\n"],
)  # fmt: skip
def test_damaged_memory_is_none(tmp_path: Path, damage: bytes) -> None:
    Asked(tmp_path).start()
    path = tmp_path / "geo.x"
    path.write_bytes(damage.replace(b"{key}", path.read_bytes().split(b"\n")[0]))
    again = Asked(tmp_path, answer=b"2,1,3")
    assert again.start() == ["s2.tw", "s1.ch", "s3.us"]


def test_memory_that_others_can_write_is_not_believed(tmp_path: Path) -> None:
    Asked(tmp_path).start()
    (tmp_path / "geo.x").chmod(0o622)
    assert Asked(tmp_path, answer=b"2,1,3").start() == ["s2.tw", "s1.ch", "s3.us"]


@pytest.mark.parametrize("answer", [b"1,2", 404, FaultKind.TOO_SLOW, b"9" * 9999])
def test_three_servers_are_asked_and_nothing_changes(
    tmp_path: Path, answer: Script
) -> None:
    bad = Asked(tmp_path, answer)
    assert bad.start() == [host_name(server) for server in SERVERS]
    assert len(bad.transport.requests) == 3
    assert bad.client.failures() == ()


def test_client_without_a_proxy_has_a_name_that_stays(tmp_path: Path) -> None:
    direct = Asked(tmp_path, proxies="DIRECT")
    direct.start()
    name = (tmp_path / "uuid").read_text()
    assert re.fullmatch(
        r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-a[0-9a-f]{3}-.{12}\n", name
    )
    assert f"/geo/{name.strip()}/" in direct.transport.requests[0].url
    assert client_identifier(str(tmp_path)) == name.strip()


def test_only_configured_routes_are_asked(tmp_path: Path) -> None:
    only_fallback = Asked(
        tmp_path,
        proxies="",
        answer=b"4,3,1,2,5",
        fallback="f.org:1",
    )
    only_fallback.start()
    (request,) = only_fallback.transport.requests
    assert request.proxy == "http://f.org:1"
    assert client_identifier(str(tmp_path)) in request.url


def test_template_stands_for_the_proxy(tmp_path: Path) -> None:
    asked = Asked(tmp_path, template="near me")
    asked.start()
    assert f"/geo/near%20me/{NAMES}" in asked.transport.requests[0].url


def test_start_does_not_wait_for_an_answer(tmp_path: Path) -> None:
    with HttpServer() as one, HttpServer() as two, ForwardProxy() as proxy:
        proxy.misbehave(Stall())
        settings = NetworkSettings((one.url, two.url), parse_proxy_list(proxy.url))
        client = HttpClient(settings._replace(timeout_s=1))
        thread = GeoOrdering(client, settings, str(tmp_path), "geo.x").start()
        assert thread is not None
        assert thread.is_alive()
        assert client.hosts() == [one.url, two.url]
        thread.join()


def test_order_of_one_is_itself() -> None:
    assert GeoQuestion(SERVERS[:1]).order(b"1") == GeoOrder(SERVERS[:1], ())
