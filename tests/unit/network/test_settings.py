import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.errors import ConfigurationError, NoRouteError
from cvmfsexec.format import proxy_groups
from cvmfsexec.format.parameters import Parameters
from cvmfsexec.format.proxy_groups import format_proxy_list
from cvmfsexec.network import authorities
from cvmfsexec.network.authorities import GRID_DIRECTORY, Authorities, find_authorities
from cvmfsexec.network.discovery import discover
from cvmfsexec.network.failover import FailoverPolicy
from cvmfsexec.network.resolution import ResolutionPolicy
from cvmfsexec.network.settings import USER_AGENT, NetworkSettings

FQRN = "atlas.cern.ch"
SERVER = {"CVMFS_SERVER_URL": "http://s1/cvmfs/@fqrn@;http://s2/cvmfs/@fqrn@"}
DIRECT = {"CVMFS_HTTP_PROXY": "DIRECT"}


def settings(*values: dict[str, str], **environment: str) -> NetworkSettings:
    merged = {name: text for part in values for name, text in part.items()}
    parameters = Parameters.from_values(FQRN, merged, "default.local")
    made = NetworkSettings.from_parameters(parameters, environment)
    return discover(made, environment)


def proxies(of: NetworkSettings) -> str:
    return format_proxy_list(of.all_proxy_groups)


def test_servers_and_defaults() -> None:
    made = settings(SERVER, DIRECT)
    assert made.servers == (f"http://s1/cvmfs/{FQRN}", f"http://s2/cvmfs/{FQRN}")
    assert made.failover == FailoverPolicy(1, 2, 10, 300, 1800)
    assert (made.timeout_s, made.timeout_direct_s, made.low_speed_limit) == (
        5, 10, 1024,
    )  # fmt: skip
    assert not made.follows_redirects
    assert made.connections_max == 16
    assert made.user_agent.startswith("cvmfs")
    assert made.interrupt_file == f"/var/run/cvmfs/interrupt.{FQRN}"


def test_every_parameter_arrives() -> None:
    made = settings(
        SERVER,
        DIRECT,
        {
            "CVMFS_TIMEOUT": "1",
            "CVMFS_TIMEOUT_DIRECT": "2",
            "CVMFS_LOW_SPEED_LIMIT": "3",
            "CVMFS_MAX_RETRIES": "4",
            "CVMFS_BACKOFF_INIT": "5",
            "CVMFS_BACKOFF_MAX": "6",
            "CVMFS_PROXY_RESET_AFTER": "7",
            "CVMFS_HOST_RESET_AFTER": "8",
            "CVMFS_FAILOVER_INDEFINITELY": "yes",
            "CVMFS_FOLLOW_REDIRECTS": "yes",
            "CVMFS_MAX_SERVERS": "1",
            "CVMFS_PROXY_SHARD": "yes",
            "CVMFS_USE_GEOAPI": "yes",
            "CVMFS_PROXY_TEMPLATE": "near",
            "CVMFS_RELOAD_SOCKETS": "/run/mine",
        },
        CVMFS_IPV4_ONLY="1",
    )
    assert made.failover == FailoverPolicy(
        4, 5, 6, 7, 8, is_indefinite=True, is_sharded=True
    )
    assert (made.uses_geo_api, made.proxy_template) == (True, "near")
    assert (made.timeout_s, made.timeout_direct_s, made.low_speed_limit) == (1, 2, 3)
    assert made.follows_redirects
    assert made.is_ipv4_only
    assert made.servers_max == 1
    assert made.interrupt_file == f"/run/mine/interrupt.{FQRN}"


@pytest.mark.parametrize(
    ("http_proxy", "fallback", "environment", "resolved"),
    [
        ("p1:1|p2:2;DIRECT", "", {}, "http://p1:1|http://p2:2;DIRECT"),
        ("auto", "", {"http_proxy": "p:3128"}, "http://p:3128"),
        ("auto;DIRECT", "", {"http_proxy": "p:1"}, "http://p:1;DIRECT"),
        ("auto;DIRECT", "", {"http_proxy": ""}, "DIRECT"),
        ("auto;DIRECT", "", {}, "DIRECT"),
        ("p1:1;auto", "", {"http_proxy": "a:1;b:2"}, "http://p1:1;http://a:1;http://b:2"),
        ("auto", "", {"http_proxy": "auto;p:1"}, "http://p:1"),
        ("p1:1", "", {"http_proxy": "p:3128"}, "http://p1:1"),
        ("DIRECT", "f:1", {}, "http://f:1"),
        ("p1:1|DIRECT;DIRECT", "f:1;DIRECT", {}, "http://p1:1;http://f:1"),
        ("auto", "f:1", {}, "http://f:1"),
    ],
)  # fmt: skip
def test_proxies(
    http_proxy: str, fallback: str, environment: dict[str, str], resolved: str
) -> None:
    values = {"CVMFS_HTTP_PROXY": http_proxy, "CVMFS_FALLBACK_PROXY": fallback}
    assert proxies(settings(SERVER, values, **environment)) == resolved


_Lists = list[list[str]]
_members = st.sampled_from([proxy_groups.DIRECT, "http://p:1", "http://q:1", "[::1]:2"])
_some_groups = st.lists(
    st.lists(_members, min_size=1, max_size=3, unique=True), max_size=3
)
_groups_or_auto = st.lists(
    st.lists(_members, min_size=1, max_size=3, unique=True) | st.just(["auto"]),
    max_size=3,
)


def _written(lists: _Lists) -> str:
    return ";".join("|".join(members) for members in lists)


def _left_of(lists: _Lists, found: _Lists, *, allows_direct: bool) -> _Lists:
    """Return what a list means: a second, plain way to say the rules."""
    whole = [group for one in lists for group in (found if one == ["auto"] else [one])]
    kept = [[m for m in group if allows_direct or m != "DIRECT"] for group in whole]
    full = [
        ["http://[::1]:2" if m == "[::1]:2" else m for m in group] for group in kept
    ]
    return [group for n, group in enumerate(full) if group and group not in full[:n]]


@given(_groups_or_auto, _groups_or_auto, st.none() | _some_groups)
def test_any_lists_are_read_as_written_and_never_go_direct_uninvited(
    regular: _Lists, fallback: _Lists, found: _Lists | None
) -> None:
    values = {
        "CVMFS_HTTP_PROXY": _written(regular),
        "CVMFS_FALLBACK_PROXY": _written(fallback),
    }
    environment = {} if found is None else {"http_proxy": _written(found)}
    allows_direct = not fallback
    expected = [
        _left_of(lists, found or [], allows_direct=allows_direct)
        for lists in (regular, fallback)
    ]
    if not regular or not any(expected):
        with pytest.raises(NoRouteError):
            settings(SERVER, values, **environment)
        return
    made = settings(SERVER, values, **environment)
    several = (made.proxy_groups, made.fallback_proxy_groups)
    groups = [[list(one.members) for one in dict.fromkeys(each)] for each in several]
    assert groups == expected
    assert allows_direct or "DIRECT" not in proxies(made)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"CVMFS_HTTP_PROXY": ""},
        {"CVMFS_HTTP_PROXY": ";"},
        {"CVMFS_HTTP_PROXY": "auto"},
        {"CVMFS_HTTP_PROXY": "DIRECT", "CVMFS_FALLBACK_PROXY": "DIRECT"},
        {"CVMFS_FALLBACK_PROXY": "p:1"},
    ],
)
def test_without_a_proxy_nothing_is_asked_directly(values: dict[str, str]) -> None:
    with pytest.raises(NoRouteError) as caught:
        settings(SERVER, values)
    assert "CVMFS_HTTP_PROXY" in caught.value.hint
    assert "DIRECT must be written explicitly" in caught.value.hint


def test_without_a_server_there_is_no_route() -> None:
    with pytest.raises(NoRouteError) as caught:
        settings(DIRECT)
    assert FQRN in str(caught.value)
    assert "CVMFS_SERVER_URL" in caught.value.hint


def test_local_directory_needs_no_proxy() -> None:
    local = {"CVMFS_SERVER_URL": "file:///srv/@fqrn@"}
    made = settings(local)
    assert made.servers == (f"file:///srv/{FQRN}",)
    for text in ("auto", "squid.example.org:3128"):
        assert proxies(settings(local, {"CVMFS_HTTP_PROXY": text})) == "DIRECT"


@pytest.mark.parametrize(
    "values",
    [
        {"CVMFS_SERVER_URL": "s1/cvmfs"},
        {"CVMFS_HTTP_PROXY": "socks5://user:secret@p:1"},
        {"CVMFS_HTTP_PROXY": "http://user:secret@p:1/x"},
        {"CVMFS_FALLBACK_PROXY": "a b"},
        {"CVMFS_TIMEOUT": "soon"},
        {"CVMFS_TIMEOUT_DIRECT": "-1"},
        {"CVMFS_TIMEOUT": "2147484"},
        {"CVMFS_BACKOFF_INIT": "9" * 18},
        {"CVMFS_BACKOFF_MAX": "9" * 19},
        {"CVMFS_HOST_RESET_AFTER": "9" * 5000},
        {"CVMFS_MAX_RETRIES": "1000000"},
        {"CVMFS_LOW_SPEED_LIMIT": "9" * 18},
        {"CVMFS_MAX_RETRIES": "1.5"},
        {"CVMFS_MAX_SERVERS": "-3"},
        {"CVMFS_IPFAMILY_PREFER": "5"},
        {"CVMFS_DNS_TIMEOUT": "x"},
    ],
)
def test_senseless_parameter_is_named(values: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        settings(SERVER, DIRECT, values)
    assert next(iter(values)) in str(caught.value)
    assert "default.local" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("identifier", "ending"),
    [
        ("", ""),
        ("0fe1-22", " 0fe1-22"),
        ("a\r\nX-Evil: (1)", " aX-Evil1"),
        ("\u0663\u00fc", ""),
        ("x" * 1000, " " + "x" * 64),
    ],
)
def test_machine_may_say_its_name(identifier: str, ending: str) -> None:
    named = USER_AGENT + ending
    from_environment = settings(SERVER, DIRECT, CERNVM_UUID=identifier)
    assert from_environment.user_agent == named
    values = {**DIRECT, "CERNVM_UUID": identifier}
    assert settings(SERVER, values).user_agent == named


def test_senseless_place_of_a_proxy_configuration_file_is_named() -> None:
    values = {"CVMFS_HTTP_PROXY": "auto", "CVMFS_PAC_URLS": "ftp://wpad/wpad.dat"}
    with pytest.raises(ConfigurationError, match="CVMFS_PAC_URLS"):
        settings(SERVER, values)


def test_senseless_environment_is_named() -> None:
    with pytest.raises(ConfigurationError, match="http_proxy"):
        settings(SERVER, {"CVMFS_HTTP_PROXY": "auto"}, http_proxy="ftp://p")


def external(**values: str) -> NetworkSettings | None:
    parameters = Parameters.from_values(FQRN, values)
    return NetworkSettings.external_from_parameters(parameters)


def test_external_files_need_a_server() -> None:
    assert external(**SERVER) is None


def test_external_settings_do_not_inherit_the_proxy() -> None:
    made = external(
        CVMFS_EXTERNAL_URL="http://e1/data;http://e2/data",
        CVMFS_EXTERNAL_TIMEOUT="3",
        CVMFS_EXTERNAL_TIMEOUT_DIRECT="4",
        CVMFS_EXTERNAL_MAX_SERVERS="1",
        CVMFS_HTTP_PROXY="http://p1:1",
        CVMFS_MAX_RETRIES="7",
    )
    assert made is not None
    assert made.servers == ("http://e1/data", "http://e2/data")
    assert made.servers_max == 1
    assert proxies(made) == "DIRECT"
    assert (made.timeout_s, made.timeout_direct_s) == (3, 4)
    assert made.failover.max_retries == 7


def test_external_proxies() -> None:
    made = external(
        CVMFS_EXTERNAL_URL="http://e1/data",
        CVMFS_EXTERNAL_HTTP_PROXY="p:1;DIRECT",
        CVMFS_EXTERNAL_FALLBACK_PROXY="f:1",
    )
    assert made is not None
    assert proxies(made) == "http://p:1;http://f:1"


def test_list_without_auto_is_not_touched() -> None:
    made = settings(SERVER, {"CVMFS_HTTP_PROXY": "p:1;DIRECT"})
    assert discover(made, {"http_proxy": "http://other:1"}) is made
    assert made.discovery is None


def test_places_of_proxy_configuration_files_are_read_if_needed_only() -> None:
    urls = {"CVMFS_PAC_URLS": "auto;http://a/x?y=1;file:///etc/proxy.pac"}
    parameters = Parameters.from_values(
        FQRN, {**SERVER, **urls, "CVMFS_HTTP_PROXY": "auto"}
    )
    made = NetworkSettings.from_parameters(parameters)
    assert made.pac_urls == (
        "http://wpad/wpad.dat",
        "http://a/x?y=1",
        "file:///etc/proxy.pac",
    )
    assert settings(SERVER, DIRECT, {"CVMFS_PAC_URLS": "nonsense"}).pac_urls == ()


def test_how_names_are_resolved() -> None:
    made = settings(
        SERVER,
        DIRECT,
        {
            "CVMFS_DNS_TIMEOUT": "1",
            "CVMFS_DNS_RETRIES": "2",
            "CVMFS_DNS_MIN_TTL": "3",
            "CVMFS_DNS_MAX_TTL": "4",
            "CVMFS_IPFAMILY_PREFER": "6",
            "CVMFS_MAX_IPADDR_PER_PROXY": "5",
        },
        CVMFS_IPV4_ONLY="1",
    )
    assert made.resolution == ResolutionPolicy(
        1, 2, 3, 4, prefers_ipv6=True, is_ipv4_only=True, addresses_max=5
    )


def test_authorities_of_the_grid() -> None:
    assert find_authorities({}, use_system=False) == Authorities("", GRID_DIRECTORY)
    environment = {"X509_CERT_DIR": "/my/dir", "X509_CERT_BUNDLE": "/my/bundle"}
    mine = find_authorities(environment, use_system=False)
    assert mine == Authorities("/my/bundle", "/my/dir")


def test_authorities_of_the_system(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle.crt"
    bundle.touch()
    places = (os.fspath(tmp_path / "absent"), os.fspath(bundle))
    monkeypatch.setattr(authorities, "_SYSTEM_BUNDLES", places)
    assert find_authorities({}, use_system=True) == Authorities(os.fspath(bundle), "")
    bundle.unlink()
    assert find_authorities({}, use_system=True).directory == "/etc/ssl/certs"
