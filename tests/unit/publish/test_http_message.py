import contextlib
import locale

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.errors import FormatError
from cvmfsexec.publish.http_message import (
    ByteRange,
    Request,
    compose_head,
    format_date,
    parse_request,
)

OBJECT = "/cvmfs/x.example.org/data/ab/cd"


def request(*headers: str, line: str = f"GET {OBJECT} HTTP/1.1") -> Request:
    return parse_request("\r\n".join([line, *headers]).encode("latin-1"))


def test_a_request_of_a_client_is_understood() -> None:
    parsed = request("Host: 127.0.0.1:8000", "Accept:  */*", "X-CVMFS2:")
    assert parsed.method == "GET"
    assert parsed.path == OBJECT.encode()
    assert parsed.headers == {"host": "127.0.0.1:8000", "accept": "*/*", "x-cvmfs2": ""}
    assert parsed.keeps_connection


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/a%20b%25%ff", b"/a b%\xff"),
        ("/a?query=1", b"/a"),
        ("http://host:8000/a", b"/a"),
        ("http://host", b"/"),
        ("/a/../b", b"/a/../b"),
        ("/%", b"/%"),
    ],
)
def test_targets_are_decoded(target: str, path: bytes) -> None:
    assert request(line=f"GET {target} HTTP/1.1").path == path


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"GET / HTTP/2",
        b"GET /",
        b"GET  / HTTP/1.1",
        b"GET a HTTP/1.1",
        b"GET / HTTP/1.1\r\nno colon",
        b"GET / HTTP/1.1\r\n folded: x",
        b"GET / HTTP/1.1\r\nname : x",
        b"GET / HTTP/1.1\r\n: x",
    ],
)
def test_other_things_are_no_requests(head: bytes) -> None:
    with pytest.raises(FormatError):
        parse_request(head)


@given(st.binary() | st.binary().map(lambda data: b"GET / HTTP/1.1\r\n" + data))
def test_any_bytes_are_a_request_or_refused(head: bytes) -> None:
    with contextlib.suppress(FormatError):
        parsed = parse_request(head)
        assert isinstance(parsed.path, bytes)
        assert parsed.keeps_connection in (True, False)


@pytest.mark.parametrize(
    ("version", "headers", "keeps"),
    [
        ("1.1", [], 1),
        ("1.1", ["Connection: close"], 0),
        ("1.1", ["Connection: Keep-Alive"], 1),
        ("1.0", [], 0),
        ("1.0", ["Connection: keep-alive"], 1),
        ("1.1", ["Content-Length: 5"], 0),
        ("1.1", ["Transfer-Encoding: chunked"], 0),
    ],
)
def test_who_wants_to_keep_the_connection(
    version: str, headers: list[str], keeps: int
) -> None:
    parsed = request(*headers, line=f"GET / HTTP/{version}")
    assert parsed.keeps_connection is bool(keeps)


@pytest.mark.parametrize(
    ("wish", "part"),
    [
        ("bytes=0-0", (0, 1)),
        ("bytes=10-19", (10, 10)),
        ("bytes=90-", (90, 10)),
        ("bytes=90-999", (90, 10)),
        ("bytes=-10", (90, 10)),
        ("bytes=-999", (0, 100)),
        ("bytes=100-", (100, 0)),
        ("bytes=100-200", (100, 0)),
        ("bytes=-0", (100, 0)),
        ("bytes=-", None),
        ("bytes=5-4", None),
        ("bytes=0-1,3-4", None),
        ("lines=0-1", None),
        ("", None),
    ],
)
def test_ranges_of_a_file_of_100_bytes(wish: str, part: tuple[int, int] | None) -> None:
    found = request(f"Range: {wish}").byte_range(100)
    assert found == (None if part is None else ByteRange(*part))


@given(st.text(), st.integers(0, 2**40))
def test_a_range_never_leaves_the_file(wish: str, size: int) -> None:
    found = Request("GET", b"/", False, {"range": f"bytes={wish}"}).byte_range(size)  # noqa: FBT003
    assert found is None or found.length == 0 or found.start + found.length <= size


def test_an_answer_head_is_closed_by_an_empty_line() -> None:
    head = compose_head(200, {"Content-Length": "5"}, keeps=False)
    assert head == (
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\n"
    )


def test_dates_are_english_everywhere() -> None:
    assert format_date(1731412800) == "Tue, 12 Nov 2024 12:00:00 GMT"
    assert locale.setlocale(locale.LC_TIME)
