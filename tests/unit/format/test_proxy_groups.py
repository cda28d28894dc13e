import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.errors import FormatError
from cvmfsexec.format.proxy_groups import (
    DIRECT,
    WPAD_URL,
    ProxyGroup,
    format_proxy_list,
    parse_pac_urls,
    parse_proxy_list,
    parse_server_list,
    without_credentials,
    without_direct,
)

FQRN = "atlas.cern.ch"


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        pytest.param("", [], id="nothing"),
        pytest.param(" ; | ;", [], id="only-separators"),
        pytest.param("DIRECT", [["DIRECT"]], id="direct"),
        pytest.param("auto", [["auto"]], id="auto"),
        pytest.param("auto;DIRECT", [["auto"], ["DIRECT"]], id="auto-then-direct"),
        pytest.param("p:3128", [["http://p:3128"]], id="no-scheme"),
        pytest.param("http://p", [["http://p"]], id="no-port"),
        pytest.param("HTTP://p:1/", [["http://p:1"]], id="slash-and-capital-scheme"),
        pytest.param("https://p:1", [["https://p:1"]], id="https-proxy"),
        pytest.param("[::1]:3128", [["http://[::1]:3128"]], id="ipv6"),
        pytest.param("u:s@p:1", [["http://u:s@p:1"]], id="credentials"),
        pytest.param(" a:1 | b:2 ; c:3 ", [["http://a:1", "http://b:2"], ["http://c:3"]],
                     id="blanks"),
        pytest.param("a:1|a:1", [["http://a:1"]], id="twice-in-a-group"),
        pytest.param("a:1|DIRECT", [["http://a:1", "DIRECT"]], id="direct-in-a-group"),
        pytest.param("auto|a:1", [["http://auto", "http://a:1"]],
                     id="auto-in-a-larger-group-is-a-machine"),
        pytest.param("http://p1:3128|http://p2:3128;http://p3:3128;DIRECT",
                     [["http://p1:3128", "http://p2:3128"], ["http://p3:3128"],
                      ["DIRECT"]], id="example-of-the-reference"),
    ],
)  # fmt: skip
def test_proxy_list(text: str, groups: list[list[str]]) -> None:
    assert [list(group.members) for group in parse_proxy_list(text)] == groups


@pytest.mark.parametrize(
    "text",
    [
        "socks5://p:1080",
        "direct",
        "Direct",
        "http://p:0",
        "http://p:65536",
        "http://p:port",
        "http://p/path",
        "http://a b:1",
        "http://a\n:1",
        "http://:3128",
        "http://",
        "http://bücher:1",
        "p1:3128,p2:3128",
    ],
)
def test_not_a_proxy_list(text: str) -> None:
    with pytest.raises(FormatError):
        parse_proxy_list(text)


def test_message_about_a_bad_proxy_hides_its_password() -> None:
    with pytest.raises(FormatError) as caught:
        parse_proxy_list("http://user:se/cret@p:3128/x")
    assert "cret" not in str(caught.value)


def test_auto_group_knows_itself() -> None:
    auto, direct = parse_proxy_list("auto;DIRECT")
    assert auto.is_auto
    assert not direct.is_auto


@pytest.mark.parametrize(
    ("text", "servers"),
    [
        pytest.param("", [], id="nothing"),
        pytest.param("http://h/cvmfs/@fqrn@", ["http://h/cvmfs/atlas.cern.ch"],
                     id="fqrn"),
        pytest.param("http://h/@org@/;", ["http://h/atlas"], id="org-and-slash"),
        pytest.param("http://a/x; https://b:8000/y", ["http://a/x", "https://b:8000/y"],
                     id="two"),
        pytest.param("http://a/x;http://a/x/", ["http://a/x"], id="twice"),
        pytest.param("http://h", ["http://h"], id="no-path"),
        pytest.param("file:///srv/cvmfs/@fqrn@/", ["file:///srv/cvmfs/atlas.cern.ch"],
                     id="local-directory"),
        pytest.param("FILE:///", ["file:///"], id="root-directory"),
        pytest.param("http://[::1]:80/x", ["http://[::1]:80/x"], id="ipv6"),
    ],
)  # fmt: skip
def test_server_list(text: str, servers: list[str]) -> None:
    assert list(parse_server_list(text, FQRN)) == servers


@pytest.mark.parametrize(
    "text",
    [
        "h/cvmfs",
        "ftp://h/cvmfs",
        "http:///cvmfs",
        "http://h:99999/cvmfs",
        "http://h/a b",
        "http://h/?query",
        "http://h/#fragment",
        "file://host/srv",
        "http://h/\0",
    ],
)
def test_not_a_server_list(text: str) -> None:
    with pytest.raises(FormatError):
        parse_server_list(text, FQRN)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://user:secret@p:3128", "http://p:3128"),
        ("http://p:3128", "http://p:3128"),
        ("http://h/cvmfs/a@b", "http://h/cvmfs/a@b"),
        (DIRECT, DIRECT),
    ],
)
def test_credentials_are_not_shown(url: str, shown: str) -> None:
    assert without_credentials(url) == shown


_hosts = st.from_regex(
    r"http://([a-z]{1,8}:[a-z]{1,8}@)?[a-z0-9.]{1,12}:80", fullmatch=True
)
_members = st.just(DIRECT) | _hosts
_groups = st.lists(_members, min_size=1, max_size=4, unique=True).map(
    lambda members: ProxyGroup(tuple(members))
)


@given(st.lists(_groups, max_size=4).map(tuple))
def test_written_proxy_list_parses_back(groups: tuple[ProxyGroup, ...]) -> None:
    assert parse_proxy_list(format_proxy_list(groups)) == groups


_texts = st.text() | st.text("aHht:/|;@[]. 19DIRECTuo")


@given(_texts)
def test_any_text_is_a_proxy_list_or_a_format_error(text: str) -> None:
    try:
        groups = parse_proxy_list(text)
    except FormatError:
        return
    assert parse_proxy_list(format_proxy_list(groups)) == groups


@given(_texts)
def test_any_text_is_a_server_list_or_a_format_error(text: str) -> None:
    try:
        servers = parse_server_list(text, FQRN)
    except FormatError:
        return
    assert parse_server_list(";".join(servers), FQRN) == servers


@pytest.mark.parametrize(
    ("text", "urls"),
    [
        ("", ()),
        (" ; ", ()),
        ("auto", (WPAD_URL,)),
        ("http://grid-wpad/wpad.dat; auto", ("http://grid-wpad/wpad.dat", WPAD_URL)),
        ("auto;http://wpad/wpad.dat", (WPAD_URL,)),
        ("http://h:8080/x?y=1", ("http://h:8080/x?y=1",)),
        ("https://[::1]/wpad.dat", ("https://[::1]/wpad.dat",)),
        ("http://h", ("http://h",)),
        ("file:///etc/proxy.pac", ("file:///etc/proxy.pac",)),
    ],
)
def test_places_of_proxy_configuration_files(text: str, urls: tuple[str, ...]) -> None:
    assert parse_pac_urls(text) == urls


@pytest.mark.parametrize(
    "text",
    [
        "wpad",
        "ftp://h/x",
        "file://h/x",
        "http://h:0/x",
        "http:///x",
        "http://h/ä",
        "AUTO",
    ],
)
def test_what_is_no_place_of_such_a_file(text: str) -> None:
    with pytest.raises(FormatError):
        parse_pac_urls(f"auto;{text}")


def test_direct_can_be_taken_out() -> None:
    groups = parse_proxy_list("DIRECT;a:1|DIRECT;b:1")
    assert format_proxy_list(without_direct(groups)) == "http://a:1;http://b:1"


@given(_texts)
def test_any_text_is_a_list_of_places_or_a_format_error(text: str) -> None:
    try:
        urls = parse_pac_urls(text)
    except FormatError:
        return
    assert parse_pac_urls(";".join(urls)) == urls
