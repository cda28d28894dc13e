"""Routes and patience that are changed while a client is in use."""

import pytest

from cvmfsexec.errors import NoRouteError
from cvmfsexec.format.proxy_groups import parse_proxy_list
from cvmfsexec.network.client import HttpClient
from cvmfsexec.network.settings import NetworkSettings
from tests.support.memory_transport import MemoryTransport

SERVERS = ("http://one.example.org", "http://two.example.org")
PROXIES = parse_proxy_list("http://u:p@127.0.0.1:1|http://127.0.0.2:1;DIRECT")


@pytest.fixture
def client() -> HttpClient:
    settings = NetworkSettings(SERVERS, PROXIES)
    return HttpClient(settings, MemoryTransport({}), randomness=lambda: 0.0)


def test_all_routes_are_shown_without_passwords(client: HttpClient) -> None:
    routes = client.route_map()
    assert (routes.servers, routes.active_server) == (SERVERS, SERVERS[0])
    urls = [[one.url for one in group] for group in routes.groups]
    assert urls == [["http://127.0.0.1:1", "http://127.0.0.2:1"], ["DIRECT"]]
    assert (routes.active_group, routes.active_proxy) == (0, "http://127.0.0.1:1")


def test_the_next_group_can_be_made_active(client: HttpClient) -> None:
    for group, proxy in ((1, "DIRECT"), (0, "http://127.0.0.1:1")):
        client.leave_proxy_group()
        routes = client.route_map()
        assert (routes.active_group, routes.active_proxy) == (group, proxy)


def test_a_member_can_be_drawn_anew() -> None:
    drawn = iter((0.0, 0.9))
    client = HttpClient(
        NetworkSettings(SERVERS, PROXIES),
        MemoryTransport({}),
        randomness=lambda: next(drawn),
    )
    assert client.active_proxy == "http://127.0.0.1:1"
    client.rebalance_proxies()
    assert client.active_proxy == "http://127.0.0.2:1"


def test_other_servers_are_asked_from_the_first_one(client: HttpClient) -> None:
    client.next_host()
    others = ("http://three.example.org", SERVERS[1])
    client.change(client.settings._replace(servers=others))
    assert client.hosts() == list(others)
    assert client.settings.servers == others


def test_other_proxies_are_used_from_the_first_one(client: HttpClient) -> None:
    client.leave_proxy_group()
    groups = parse_proxy_list("http://127.0.0.9:1;DIRECT")
    client.change(client.settings._replace(proxy_groups=groups))
    assert client.active_proxy == "http://127.0.0.9:1"


def test_patience_alone_leaves_the_routes_as_they_are(client: HttpClient) -> None:
    client.next_host()
    client.change(client.settings._replace(timeout_s=77))
    assert client.active_host == SERVERS[1]
    assert client.settings.timeout_s == 77


@pytest.mark.parametrize("change", [{"servers": ()}, {"proxy_groups": ()}])
def test_a_client_without_routes_is_refused(
    client: HttpClient, change: dict[str, tuple[()]]
) -> None:
    before = client.settings
    with pytest.raises(NoRouteError):
        client.change(before._replace(**change))  # type: ignore[arg-type]
    assert client.settings is before
