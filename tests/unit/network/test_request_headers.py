"""What requests tell about who asks, where a site wants it, and what they never do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec import callers
from cvmfsexec.callers import Asker, Caller
from cvmfsexec.errors import ConfigurationError, FormatError
from cvmfsexec.format.parameters import Parameters
from cvmfsexec.network.client import HttpClient
from cvmfsexec.network.request_headers import (
    INFO_CHARACTERS_MAX,
    Disclosure,
    RequestHeaders,
    disclosure,
)
from cvmfsexec.network.settings import NetworkSettings
from cvmfsexec.network.transport import Answer, Request

SERVED = {
    "CVMFS_SERVER_URL": "http://server.example.org/@fqrn@",
    "CVMFS_HTTP_PROXY": "DIRECT",
}
ALL = Disclosure(tells_path=True, tells_asker=True, custom=("X-CVMFS-site: here",))
CUSTOM = "CVMFS_HTTP_TRACING_HEADERS"


class Payload(Caller):
    """Somebody who reads inode 7."""

    def asker(self) -> Asker:
        return Asker(pid=42, uid=0, gid=100, inode=7)


@pytest.fixture
def payload() -> object:
    caller = Payload()
    callers.work_for(caller)
    yield caller
    callers.work_for(None)


def told(**values: str) -> Disclosure:
    return disclosure(Parameters.from_values("a.example.org", values))


def headers(told: Disclosure = ALL) -> RequestHeaders:
    made = RequestHeaders(told)
    made.path_of = lambda inode: b"/of/inode/%d" % inode
    made.number_outside = lambda uid, gid: (uid or 1000, gid)
    return made


@pytest.mark.usefixtures("payload")
def test_a_file_that_somebody_reads_is_told_with_who_reads_it() -> None:
    assert headers().lines(str) == (
        "X-CVMFS-site: here",
        "X-CVMFS-PID: 42",
        "X-CVMFS-GID: 100",
        "X-CVMFS-UID: 1000",
        "cvmfs-info: /of/inode/7",
    )


def test_what_nobody_waits_for_is_for_nobody() -> None:
    assert headers().lines(str) == ("X-CVMFS-site: here",)


@pytest.mark.usefixtures("payload")
def test_either_is_told_alone() -> None:
    path_only = headers(Disclosure(tells_path=True, tells_asker=False))
    assert path_only.lines(str) == ("cvmfs-info: /of/inode/7",)
    asker_only = headers(Disclosure(tells_path=False, tells_asker=True))
    assert [line.partition(":")[0] for line in asker_only.lines(str)] == [
        "X-CVMFS-PID",
        "X-CVMFS-GID",
        "X-CVMFS-UID",
    ]


@pytest.mark.usefixtures("payload")
def test_what_is_no_file_s_content_has_a_name_of_its_own() -> None:
    made = headers(Disclosure(tells_path=True, tells_asker=False))
    assert made.lines(lambda: "file catalog at /x") == (
        "cvmfs-info: file%20catalog%20at%20/x",
    )
    assert made.lines(None) == ()


@pytest.mark.usefixtures("payload")
def test_a_path_that_cannot_be_had_is_left_out() -> None:
    made = headers(Disclosure(tells_path=True, tells_asker=False))

    def fail(_inode: int) -> bytes:
        raise FormatError("damaged")

    for path_of in (fail, None):
        made.path_of = path_of
        assert made.lines(str) == ()


def test_a_thread_without_a_number_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callers, "current", Payload)
    monkeypatch.setattr(Payload, "asker", lambda _self: Asker(0, 5, 5, 7))
    made = headers(Disclosure(tells_path=False, tells_asker=True))
    assert made.lines() == ("X-CVMFS-GID: 5", "X-CVMFS-UID: 5")


@given(path=st.binary(max_size=4096))
def test_no_path_makes_another_line(path: bytes) -> None:
    text = path.decode("utf-8", "surrogateescape")
    made = headers(Disclosure(tells_path=True, tells_asker=False))
    for line in made.lines(lambda: text):
        assert line.isascii()
        assert line.isprintable()
        assert len(line) <= INFO_CHARACTERS_MAX + len("cvmfs-info: ")


def test_a_long_path_is_cut_between_its_escapes() -> None:
    made = headers(Disclosure(tells_path=True, tells_asker=False))
    for lead in ("", "x", "xx"):
        text = lead + "\n" * 4096
        (line,) = made.lines(text.__str__)
        escapes = line.removeprefix("cvmfs-info: " + lead)
        assert escapes == "%0A" * (len(escapes) // 3)


def test_nothing_is_told_unless_it_is_wanted() -> None:
    off = {"CVMFS_HTTP_TRACING": "no", CUSTOM: "not even: read: this"}
    settings = NetworkSettings.from_parameters(
        Parameters.from_values("a.example.org", {**SERVED, **off})
    )
    assert settings.disclosure is None
    assert HttpClient(settings).headers is None


def test_headers_of_a_site_need_tracing() -> None:
    assert told(CVMFS_SEND_INFO_HEADER="yes", **{CUSTOM: "a:b"}).custom == ()


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", ()),
        ("a:b", ("X-CVMFS-a: b",)),
        (
            " node : pn 214 | tag2:some_tag",
            ("X-CVMFS-node: pn 214", "X-CVMFS-tag2: some_tag"),
        ),
    ],
)
def test_headers_of_a_site_are_added(text: str, lines: tuple[str, ...]) -> None:
    assert told(CVMFS_HTTP_TRACING="on", **{CUSTOM: text}).custom == lines


@pytest.mark.parametrize(
    "text",
    [
        *("a", "a:", ":b", "a:b|", "|a:b", "a:b:c", "a-b:c", "a b:c", "ä:b", "a:ä"),
        *("a:b\r\nX: y", "a:b\n", "a\n:b", "a:b\x7f", "a:\0", "pid:1", "UID:0"),
        "a:" + "b" * 1000,
    ],
)  # fmt: skip
def test_headers_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match=CUSTOM):
        told(CVMFS_HTTP_TRACING="yes", **{CUSTOM: text})


@given(text=st.text(max_size=60))
def test_any_text_is_headers_or_a_configuration_error(text: str) -> None:
    try:
        lines = told(CVMFS_HTTP_TRACING="yes", **{CUSTOM: text}).custom
    except ConfigurationError:
        return
    assert all(line.isprintable() and line.isascii() for line in lines)


class Listening:
    """A transport that keeps what it is asked."""

    def __init__(self) -> None:
        self.requests: list[Request] = []

    def get(self, request: Request, sink: object) -> Answer:
        self.requests.append(request)
        assert callable(sink)
        sink(b"content")
        return Answer(200, (), 7)


class Sink:
    """Takes everything."""

    def write(self, _data: bytes, /) -> None: ...

    def finish(self) -> None: ...


def test_every_request_of_a_client_tells() -> None:
    transport = Listening()
    settings = NetworkSettings(("http://server.example.org",), disclosure=ALL)
    client = HttpClient(settings, transport)
    client.fetch(".cvmfspublished", limit_bytes=100)
    client.fetch_object("data/x", Sink, limit_bytes=100, label=lambda: "/file")
    client.ask_aside("http://server.example.org/geo", 100)
    first = client.first_request("data/x", 100, lambda: "/file")
    site, file = "X-CVMFS-site: here", "cvmfs-info: /file"
    asked = [request.headers for request in (*transport.requests, first)]
    assert asked == [(site,), (site, file), (site,), (site, file)]
