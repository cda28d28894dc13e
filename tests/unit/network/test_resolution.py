import socket
import threading
from collections.abc import Sequence

import pytest

from cvmfsexec.format.proxy_groups import format_proxy_list, parse_proxy_list
from cvmfsexec.network.client import HttpClient
from cvmfsexec.network.failover import FailoverPolicy
from cvmfsexec.network.resolution import (
    VALID_S,
    ProxyAddresses,
    ResolutionPolicy,
    system_lookup,
)
from cvmfsexec.network.settings import NetworkSettings
from tests.support.http_server import ForwardProxy, HttpServer
from tests.support.sessions import wait_until


class Resolver:
    """A name service that counts, and can be changed."""

    def __init__(self, **names: str) -> None:
        self.names = names
        self.asked: list[str] = []

    def __call__(self, name: str, policy: ResolutionPolicy) -> Sequence[str]:
        self.asked.append(name)
        found = self.names.get(name.replace(".", "_"), "").split()
        return found[: policy.addresses_max or None]


def resolved(text: str, resolver: Resolver, addresses_max: int = 0) -> str:
    addresses = ProxyAddresses(
        parse_proxy_list(text), ResolutionPolicy(addresses_max=addresses_max), resolver
    )
    return format_proxy_list(addresses.groups(0))


@pytest.mark.parametrize(
    ("proxies", "result"),
    [
        ("p:3128", "http://10.0.0.1:3128|http://10.0.0.2:3128"),
        ("p:3128|q:3128;DIRECT",
         "http://10.0.0.1:3128|http://10.0.0.2:3128|http://10.0.0.3:3128;DIRECT"),
        ("p:1|p:2", "http://10.0.0.1:1|http://10.0.0.2:1|http://10.0.0.1:2|http://10.0.0.2:2"),
        ("u:s@q:1", "http://u:s@10.0.0.3:1"),
        ("q", "http://10.0.0.3"),
        ("q:1|10.0.0.3:1", "http://10.0.0.3:1"),
        ("six:1", "http://[2001:db8::1]:1"),
        ("none:1;q:1", "http://none:1;http://10.0.0.3:1"),
        ("10.1.1.1:1;[::1]:2;DIRECT", "http://10.1.1.1:1;http://[::1]:2;DIRECT"),
        ("https://q:1", "https://q:1"),
    ],
)  # fmt: skip
def test_addresses_take_the_place_of_names(proxies: str, result: str) -> None:
    names = Resolver(p="10.0.0.1 10.0.0.2", q="10.0.0.3", six="2001:db8::1")
    assert resolved(proxies, names) == result


@pytest.mark.parametrize(
    "proxies", ["DIRECT", "10.0.0.1:3128", "[::1]:3128", "https://p:1", "u:s@10.0.0.1"]
)
def test_who_is_no_name_is_not_looked_up(proxies: str) -> None:
    resolver = Resolver()
    threads = threading.active_count()
    assert resolved(proxies, resolver) == format_proxy_list(parse_proxy_list(proxies))
    assert resolver.asked == []
    assert threading.active_count() == threads


def test_every_name_is_looked_up_once() -> None:
    resolver = Resolver(p="10.0.0.1")
    resolved("p:1|p:2;p:3;q:1", resolver)
    assert sorted(resolver.asked) == ["p", "q"]


def test_number_of_addresses_can_be_limited() -> None:
    names = Resolver(p="10.0.0.1 10.0.0.2 10.0.0.3")
    assert resolved("p:1", names, addresses_max=2) == (
        "http://10.0.0.1:1|http://10.0.0.2:1"
    )


def test_name_stays_visible() -> None:
    addresses = ProxyAddresses(
        parse_proxy_list("p:1;q:1;10.0.0.9:1"),
        ResolutionPolicy(),
        Resolver(p="10.0.0.1"),
    )
    addresses.groups(0)
    assert addresses.named_member("http://10.0.0.1:1") == "http://p:1"
    assert addresses.named_member("http://10.0.0.9:1") == "http://10.0.0.9:1"
    assert addresses.is_unresolved("http://q:1")
    assert not addresses.is_unresolved("http://10.0.0.9:1")


def test_names_are_looked_up_again_in_the_background() -> None:
    resolver = Resolver(p="10.0.0.1")
    addresses = ProxyAddresses(parse_proxy_list("p:1"), ResolutionPolicy(), resolver)
    first = addresses.groups(0)
    resolver.names["p"] = "10.0.0.2"
    assert addresses.groups(VALID_S - 1) is first
    assert addresses.groups(VALID_S) in (first, parse_proxy_list("10.0.0.2:1"))
    wait_until(
        lambda: addresses.groups(VALID_S) == parse_proxy_list("10.0.0.2:1"),
        "the new address is used",
    )
    assert resolver.asked == ["p", "p"]


def test_name_without_an_address_is_looked_up_sooner() -> None:
    resolver = Resolver()
    policy = ResolutionPolicy(min_ttl_s=30)
    addresses = ProxyAddresses(parse_proxy_list("p:1"), policy, resolver)
    assert addresses.groups(0) == parse_proxy_list("p:1")
    resolver.names["p"] = "10.0.0.2"
    addresses.groups(29)
    assert resolver.asked == ["p"]
    wait_until(
        lambda: addresses.groups(30) == parse_proxy_list("10.0.0.2:1"),
        "the new address is used",
    )


def test_address_that_was_right_a_while_ago_is_kept() -> None:
    resolver = Resolver(p="10.0.0.1")
    addresses = ProxyAddresses(parse_proxy_list("p:1"), ResolutionPolicy(), resolver)
    first = addresses.groups(0)
    resolver.names.clear()
    addresses.groups(VALID_S)
    wait_until(lambda: len(resolver.asked) == 2, "it was looked up again")
    assert addresses.groups(VALID_S) == first


def test_resolver_that_hangs_is_left_alone() -> None:
    hangs = threading.Event()

    def look_up(name: str, _policy: ResolutionPolicy) -> Sequence[str]:
        if name == "slow":
            hangs.wait()
        return ("10.0.0.1",)

    policy = ResolutionPolicy(timeout_s=1, retries=0)
    addresses = ProxyAddresses(parse_proxy_list("slow:1;p:1"), policy, look_up)
    assert addresses.groups(0) == parse_proxy_list("slow:1;10.0.0.1:1")
    hangs.set()


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (ResolutionPolicy(), ["10.0.0.1", "10.0.0.2"]),
        (ResolutionPolicy(prefers_ipv6=True), ["2001:db8::1"]),
        (ResolutionPolicy(addresses_max=1), ["10.0.0.1"]),
        (ResolutionPolicy(1, prefers_ipv6=True, is_ipv4_only=True, addresses_max=1),
         ["10.0.0.1"]),
    ],
)  # fmt: skip
def test_one_family_is_used(
    monkeypatch: pytest.MonkeyPatch, policy: ResolutionPolicy, expected: list[str]
) -> None:
    stream = (socket.SOCK_STREAM, 6, "")
    known = [
        (socket.AF_INET6, *stream, ("2001:db8::1", 0, 0, 0)),
        (socket.AF_INET6, *stream, ("fe80::1%eth0", 0, 0, 2)),
        (socket.AF_INET, *stream, ("10.0.0.1", 0)),
        (socket.AF_INET, *stream, ("10.0.0.1", 0)),
        (socket.AF_INET, *stream, ("10.0.0.2", 0)),
    ]

    def getaddrinfo(_name: bytes, _port: None, family: int, _kind: int) -> object:
        return [one for one in known if family in {socket.AF_UNSPEC, one[0]}]

    monkeypatch.setattr("_socket.getaddrinfo", getaddrinfo)
    assert list(system_lookup("p", policy)) == expected


def test_dead_address_of_a_name_is_left_for_a_living_one() -> None:
    with HttpServer({"/document": b"content"}) as server, ForwardProxy() as proxy:
        named = proxy.url.replace("127.0.0.1", "user:secret@squid")
        settings = NetworkSettings(
            servers=(server.url,),
            proxy_groups=parse_proxy_list(named),
            failover=FailoverPolicy(max_retries=0),
        )
        addresses = ProxyAddresses(
            settings.proxy_groups,
            settings.resolution,
            Resolver(squid="127.0.0.2 127.0.0.1"),
        )
        client = HttpClient(settings, addresses=addresses, randomness=lambda: 0.0)
        assert client.fetch("document", limit_bytes=100) == b"content"
        assert client.routes.active_proxy == proxy.url
        (failure,) = client.failures()
    assert failure.proxy == proxy.url.replace("127.0.0.1", "127.0.0.2")
    assert "secret" not in str(failure)
    assert "proxy-authorization" in proxy.requests[0].headers


def test_system_knows_this_machine_and_not_everything() -> None:
    assert "127.0.0.1" in system_lookup("localhost", ResolutionPolicy())
    assert system_lookup("nosuch.invalid", ResolutionPolicy()) == ()
    assert system_lookup("x" * 300, ResolutionPolicy()) == ()
    assert system_lookup("a..b", ResolutionPolicy()) == ()
