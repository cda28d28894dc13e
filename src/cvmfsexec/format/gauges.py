"""What a file server counts, at one moment: as it is told to programs that watch.

One JSON object per moment, so that a line of a file or an answer on a socket holds it.
Who reads it believes nothing: another process wrote it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from cvmfsexec.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LATENCY_BUCKETS = 40
"""Bucket n counts requests that took at least 2**(n-1) and less than 2**n ns; the last
one all that took longer, which is nine minutes."""

_COUNT_MAX = 1 << 63
_ITEMS_MAX = 100_000
_TEXT_MAX = 4096


class SlowObject(NamedTuple):
    """An object for which somebody had to wait.

    Attributes:
        name: Its hash.
        seconds: How long it took.
        size_bytes: Of its content.
    """

    name: str
    seconds: float
    size_bytes: int


class FileRead(NamedTuple):
    """A file that was read.

    Attributes:
        path: In the repository.
        size_bytes: How much of it was read, all reads together.
        reads: How many reads the kernel asked for.
        seconds: How long they took, all together.
    """

    path: str
    size_bytes: int
    reads: int
    seconds: float


class Failure(NamedTuple):
    """A request that was answered by an error.

    Attributes:
        at_s: When, in seconds since 1970.
        message: What was asked for, and why it failed.
    """

    at_s: float
    message: str


class Gauges(NamedTuple):
    """One file server at one moment. All counts are since its start.

    Attributes:
        at_s: When, in seconds since 1970.
        fqrn: The repository.
        pid: Of the file server, as it sees itself.
        revision: Which one is shown.
        requests: Of the kernel, by kind.
        latencies: Of these, by ``LATENCY_BUCKETS``; empty if nobody measures.
        opened: Objects that were asked for.
        missed: Of these, those that were not in the cache.
        downloads: Requests to servers that brought something.
        received_bytes: What they brought.
        transfer_s: How long they took, all together.
        io_errors: Requests answered by EIO.
        server: Which one is asked now.
        proxy: By way of what.
        cache_used_bytes: What the cache holds, of all sessions.
        cache_limit_bytes: What it may hold; 0 for no limit.
        slowest: The objects that took longest.
        files: What was read, of those who record it.
        failures: What went wrong last, of those who record it.
    """

    at_s: float
    fqrn: str
    pid: int = 0
    revision: int = 0
    requests: Mapping[str, int] = {}
    latencies: tuple[int, ...] = ()
    opened: int = 0
    missed: int = 0
    downloads: int = 0
    received_bytes: int = 0
    transfer_s: float = 0.0
    io_errors: int = 0
    server: str = ""
    proxy: str = ""
    cache_used_bytes: int = 0
    cache_limit_bytes: int = 0
    slowest: tuple[SlowObject, ...] = ()
    files: tuple[FileRead, ...] = ()
    failures: tuple[Failure, ...] = ()

    @property
    def request_count(self) -> int:
        """All requests of the kernel together."""
        return sum(self.requests.values())

    def serialize(self) -> bytes:
        """Return it as one line, without its end."""
        return json.dumps(self._asdict(), separators=(",", ":")).encode()


def parse_gauges(line: bytes) -> Gauges:
    """Read what ``Gauges.serialize`` wrote.

    Raises:
        FormatError: It is something else.
    """
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise FormatError("the gauges are not JSON") from error
    if not isinstance(fields, dict) or not fields.keys() >= {"at_s", "fqrn"}:
        raise FormatError("the gauges are of no file server")
    known = {name: fields[name] for name in Gauges._fields if name in fields}
    return Gauges(**{name: _READ[name](value) for name, value in known.items()})


def _count(value: object) -> int:
    if type(value) is not int or not 0 <= value < _COUNT_MAX:
        raise FormatError(f"{value!r:.40} is no count")
    return value


def _number(value: object) -> float:
    if not isinstance(value, int | float) or not 0 <= value < _COUNT_MAX:
        raise FormatError(f"{value!r:.40} is no number of seconds")
    return float(value)


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > _TEXT_MAX:
        raise FormatError(f"{value!r:.40} is no text")
    return value


def _list(value: object) -> list[Any]:
    if not isinstance(value, list) or len(value) > _ITEMS_MAX:
        raise FormatError(f"{value!r:.40} is no list")
    return value


def _requests(value: object) -> dict[str, int]:
    if not isinstance(value, dict) or len(value) > _ITEMS_MAX:
        raise FormatError(f"{value!r:.40} are no requests")
    return {_text(name): _count(count) for name, count in value.items()}


def _row(value: object, *columns: Callable[[object], Any]) -> list[Any]:
    cells = _list(value)
    if len(cells) != len(columns):
        raise FormatError(f"{value!r:.40} has another number of columns")
    return [read(cell) for read, cell in zip(columns, cells, strict=True)]


def _latencies(value: object) -> tuple[int, ...]:
    counts = tuple(_count(one) for one in _list(value))
    if len(counts) > LATENCY_BUCKETS:
        raise FormatError("there are too many latencies")
    return counts


def _slowest(value: object) -> tuple[SlowObject, ...]:
    columns = _text, _number, _count
    return tuple(SlowObject(*_row(one, *columns)) for one in _list(value))


def _files(value: object) -> tuple[FileRead, ...]:
    columns = _text, _count, _count, _number
    return tuple(FileRead(*_row(one, *columns)) for one in _list(value))


def _failures(value: object) -> tuple[Failure, ...]:
    return tuple(Failure(*_row(one, _number, _text)) for one in _list(value))


_READ: dict[str, Callable[[object], Any]] = {
    "at_s": _number,
    "fqrn": _text,
    "pid": _count,
    "revision": _count,
    "requests": _requests,
    "latencies": _latencies,
    "opened": _count,
    "missed": _count,
    "downloads": _count,
    "received_bytes": _count,
    "transfer_s": _number,
    "io_errors": _count,
    "server": _text,
    "proxy": _text,
    "cache_used_bytes": _count,
    "cache_limit_bytes": _count,
    "slowest": _slowest,
    "files": _files,
    "failures": _failures,
}
