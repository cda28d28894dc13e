"""The routes of a client, shown and changed while it is in use."""

import pytest

from cvmfsexec.errors import NoRouteError
from cvmfsexec.format.proxy_groups import parse_proxy_list
from cvmfsexec.network.settings import NetworkSettings
from cvmfsexec.network.shared_routes import SharedRoutes

SERVERS = ("http://one.example.org", "http://two.example.org")
PROXIES = parse_proxy_list("http://u:p@127.0.0.1:1|http://127.0.0.2:1;DIRECT")


def routes_of(settings: NetworkSettings) -> SharedRoutes:
    return SharedRoutes(settings, clock=lambda: 0.0, randomness=lambda: 0.0)


@pytest.fixture
def routes() -> SharedRoutes:
    return routes_of(NetworkSettings(SERVERS, PROXIES))


def test_all_routes_are_shown_without_passwords(routes: SharedRoutes) -> None:
    shown = routes.map()
    assert (shown.servers, shown.active_server) == (SERVERS, SERVERS[0])
    urls = [[one.url for one in group] for group in shown.groups]
    assert urls == [["http://127.0.0.1:1", "http://127.0.0.2:1"], ["DIRECT"]]
    assert (shown.active_group, shown.active_proxy) == (0, "http://127.0.0.1:1")


def test_the_next_group_can_be_made_active(routes: SharedRoutes) -> None:
    for group, proxy in ((1, "DIRECT"), (0, "http://127.0.0.1:1")):
        routes.leave_group()
        shown = routes.map()
        assert (shown.active_group, shown.active_proxy) == (group, proxy)


def test_a_member_can_be_drawn_anew() -> None:
    drawn = iter((0.0, 0.9))
    routes = SharedRoutes(
        NetworkSettings(SERVERS, PROXIES),
        clock=lambda: 0.0,
        randomness=lambda: next(drawn),
    )
    assert routes.active_proxy == "http://127.0.0.1:1"
    routes.rebalance()
    assert routes.active_proxy == "http://127.0.0.2:1"


def test_other_servers_are_asked_from_the_first_one(routes: SharedRoutes) -> None:
    routes.leave_host()
    others = ("http://three.example.org", SERVERS[1])
    routes.change(routes.settings._replace(servers=others))
    assert routes.hosts() == list(others)
    assert routes.settings.servers == others


def test_other_proxies_are_used_from_the_first_one(routes: SharedRoutes) -> None:
    routes.leave_group()
    groups = parse_proxy_list("http://127.0.0.9:1;DIRECT")
    routes.change(routes.settings._replace(proxy_groups=groups))
    assert routes.active_proxy == "http://127.0.0.9:1"


def test_patience_alone_leaves_the_routes_as_they_are(routes: SharedRoutes) -> None:
    routes.leave_host()
    routes.change(routes.settings._replace(timeout_s=77))
    assert routes.active_host == SERVERS[1]
    assert routes.settings.timeout_s == 77


@pytest.mark.parametrize("change", [{"servers": ()}, {"proxy_groups": ()}])
def test_to_have_no_route_is_refused(
    routes: SharedRoutes, change: dict[str, tuple[()]]
) -> None:
    before = routes.settings
    with pytest.raises(NoRouteError):
        routes.change(before._replace(**change))  # type: ignore[arg-type]
    assert routes.settings is before


def test_servers_are_cut_after_they_are_ordered() -> None:
    servers = ("http://h0", "http://h1", "http://h2")
    routes = routes_of(NetworkSettings(servers, servers_max=2))
    assert routes.hosts() == ["http://h0", "http://h1"]
    routes.order(("http://h2", "http://h0", "http://h1"), ())
    assert routes.hosts() == ["http://h2", "http://h0"]


def test_fallback_proxies_are_ordered_after_the_others() -> None:
    routes = routes_of(
        NetworkSettings(
            ("http://h0",), parse_proxy_list("p1"), parse_proxy_list("f1;f2|f3;f4")
        )
    )
    routes.order(("http://h0",), (2, 0, 1))
    names = [proxy.removeprefix("http://") for proxy in routes.proxies()]
    assert names == ["p1", "f4", "f1", "f2", "f3"]
