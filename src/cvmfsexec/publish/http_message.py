"""The little of HTTP/1.1 that a static server needs: requests in, answer heads out.

Pure; may be called from any thread. Only GET and HEAD without a body are understood,
which is all that a client of a repository sends.

Source: RFC 9110 and RFC 9112.
"""

import functools
import re
import time
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from cvmfsexec.errors import FormatError

HEAD_BYTES_MAX = 16 * 1024
END_OF_HEAD = b"\r\n\r\n"

_REASONS = {
    200: "OK",
    206: "Partial Content",
    304: "Not Modified",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    416: "Range Not Satisfiable",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = (
    "Jan", "Feb", "Mar", "Apr", "May", "Jun",
    "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
)  # fmt: skip


class Request(NamedTuple):
    """One request head.

    Attributes:
        path: Percent-decoded bytes, without the query.
        headers: By lower-case name; the last of a repeated header.
    """

    method: str
    path: bytes
    is_http_1_0: bool
    headers: dict[str, str]

    @property
    def keeps_connection(self) -> bool:
        """Whether the connection may carry another request."""
        if "content-length" in self.headers or "transfer-encoding" in self.headers:
            return False  # a body nobody reads would be taken for the next request
        wish = self.headers.get("connection", "").lower()
        return "close" not in wish and (not self.is_http_1_0 or "keep-alive" in wish)

    def byte_range(self, size: int) -> "ByteRange | None":
        """Return the part of a file of ``size`` bytes that is wanted; None for all.

        Several ranges at once count as all, which the standard allows. A range that
        lies outside the file comes back empty.
        """
        match = _RANGE.fullmatch(self.headers.get("range", ""))
        if match is None or match[1] == match[2] == "":
            return None
        if match[1] == "":
            length = min(int(match[2]), size)
            return ByteRange(size - length, length)
        start = int(match[1])
        stop = min(int(match[2]) + 1, size) if match[2] else size
        if match[2] and int(match[2]) < start:
            return None
        return ByteRange(start, max(stop - start, 0))


class ByteRange(NamedTuple):
    """Part of a file: first byte and number of bytes."""

    start: int
    length: int


def parse_request(head: bytes) -> Request:
    """Read a request head, given without its closing empty line.

    Raises:
        FormatError: Not a head of HTTP/1.0 or HTTP/1.1.
    """
    lines = head.decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    if len(words) != 3 or words[2] not in ("HTTP/1.1", "HTTP/1.0"):
        raise FormatError("not an HTTP/1.1 request")
    method, target, version = words
    headers = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise FormatError(f"not a header line: {line[:80]!r}")
        headers[name.lower()] = value.strip()
    return Request(method, _path(target), version == "HTTP/1.0", headers)


def _path(target: str) -> bytes:
    if target.startswith("http://"):  # a proxy's form, also valid towards a server
        target = "/" + target[len("http://") :].partition("/")[2]
    if not target.startswith("/"):
        raise FormatError(f"not a request target: {target[:80]!r}")
    return unquote_to_bytes(target.partition("?")[0])


def compose_head(status: int, headers: dict[str, str], *, keeps: bool) -> bytes:
    """Return an answer head, closing empty line included."""
    lines = [f"HTTP/1.1 {status} {_REASONS[status]}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if not keeps:
        lines.append("Connection: close")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


@functools.lru_cache(maxsize=4096)
def format_date(seconds: int) -> str:
    """Return a time as HTTP writes it, whatever the locale."""
    t = time.gmtime(seconds)
    return (
        f"{_DAYS[t.tm_wday]}, {t.tm_mday:02} {_MONTHS[t.tm_mon - 1]} {t.tm_year:04} "
        f"{t.tm_hour:02}:{t.tm_min:02}:{t.tm_sec:02} GMT"
    )
