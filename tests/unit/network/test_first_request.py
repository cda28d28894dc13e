"""What others ask in place of ``HttpClient``: the route that it would take itself."""

import pytest

from cvmfsexec.format.proxy_groups import DIRECT, ProxyGroup
from cvmfsexec.network.client import HttpClient
from cvmfsexec.network.credentials import Credential
from cvmfsexec.network.failover import FailoverPolicy
from cvmfsexec.network.settings import NetworkSettings
from tests.support.memory_transport import MemoryTransport

SETTINGS = NetworkSettings(
    servers=("http://one.example.org/cvmfs/x", "https://two.example.org/cvmfs/x"),
    failover=FailoverPolicy(max_retries=0),
)


def client_of(settings: NetworkSettings = SETTINGS, **answers: bytes) -> HttpClient:
    files = {f"{SETTINGS.servers[1]}/{name}": body for name, body in answers.items()}
    return HttpClient(settings, MemoryTransport(files), sleep=lambda _: None)


def test_it_is_the_active_route() -> None:
    request = client_of().first_request("data/ab/c d", 77)
    assert request.url == "http://one.example.org/cvmfs/x/data/ab/c%20d"
    assert (request.proxy, request.limit_bytes) == (DIRECT, 77)
    assert not request.no_cache
    assert request.byte_range is None


def test_it_follows_failover() -> None:
    client = client_of(object=b"content")
    client.fetch("object", limit_bytes=100)
    assert client.first_request("data/x", 1).url.startswith("https://two.")


def test_it_has_the_proxy_of_its_object() -> None:
    proxies = tuple(f"http://p{number}:3128" for number in range(8))
    settings = SETTINGS._replace(
        proxy_groups=(ProxyGroup(proxies),), failover=FailoverPolicy(is_sharded=True)
    )
    client = client_of(settings)
    asked = {client.first_request(f"data/{n}", 1).proxy for n in range(100)}
    assert asked == set(proxies)
    again = {client.first_request("data/1", 1).proxy for _ in range(10)}
    assert len(again) == 1


def test_who_asks_is_shown_to_https_only() -> None:
    credential = Credential(bearer_token="secret")  # noqa: S106 -- a test's
    client = client_of(object=b"content")
    client.show_credential(lambda: credential)
    assert client.first_request("data/x", 1).credential is None
    client.next_host()
    assert client.first_request("data/x", 1).credential is credential


def test_downloads_by_others_are_counted() -> None:
    client = client_of()
    client.count(1000, 0.5)
    client.count(24, 0.5)
    statistics = client.statistics
    assert statistics.downloads == 2
    assert statistics.received_bytes == 1024
    assert statistics.seconds == pytest.approx(1.0)


def test_it_changes_nothing() -> None:
    client = client_of()
    before = client.routes.active_host
    for number in range(100):
        client.first_request(f"data/{number}", 1)
    assert client.routes.active_host == before
