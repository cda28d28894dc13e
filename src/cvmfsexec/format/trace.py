r"""Traces: what a job touched in repositories, as the original writes them.

::

    "1764000000.123456","1","/cvmfs/sw.example.org/bin/tool","read 0 4194304"\r\n

Four quoted fields: seconds since 1970, code of the event, path, and a note. A quotation
mark within a field is doubled. Paths begin with ``/cvmfs/<repository>``, or, as the
original writes them, at the root of the repository that is traced.

A trace may come from anywhere. It holds paths and nothing else that is believed.
"""

import re
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple, TypeVar

from cvmfsexec.errors import ConfigurationError, FormatError
from cvmfsexec.format.names import check_fqrn, normalize_path

LINE_BYTES_MAX = 8192 + 256
"""A path has up to 4096 bytes, and each may be a quotation mark."""

MOUNT_DIRECTORY = b"/cvmfs/"

_FIELD = rb'"([^"]*+(?:""[^"]*+)*+)"'
_LINE = re.compile(
    rb'"([0-9]{1,12})(?:\.([0-9]{1,9}))?","(-?[0-9]{1,4})",%b,%b\r?\n'
    % (_FIELD, _FIELD)
)
_START = re.compile(rb'"[0-9.]{1,22}","-?[0-9]{1,4}","')
_START_BYTES_MAX = 40
_RANGE = re.compile(rb"read ([0-9]{1,18}) ([0-9]{1,18})")

_REMEMBERED_MAX = 1 << 16
_SPECIAL_NAMES = frozenset({b"", b".", b".."})
_TOPS = frozenset({b"", MOUNT_DIRECTORY[:-1]})
"""What lies in them may be a repository."""

_Value = TypeVar("_Value")


class Event(IntEnum):
    """Codes of events; those of the original, as far as they tell what was touched."""

    OPEN = 1
    OPENDIR = 2
    READLINK = 3
    LOOKUP = 4
    GETATTR = 6


EVENT_CODES = frozenset(map(int, Event))
"""Others are for instance the original's notes about its buffer."""


class TraceRecord(NamedTuple):
    """One event.

    Attributes:
        at_us: When, in microseconds since 1970.
        code: What happened; may be none of ``Event``.
        fqrn: The repository; empty if the path does not tell.
        path: In the repository, normalized.
        offset: Where reading began; 0 if that is not told.
        size_bytes: How far it went; ``None`` if that is not told.
    """

    at_us: int
    code: int
    fqrn: str
    path: bytes
    offset: int = 0
    size_bytes: int | None = None

    def serialize(self) -> bytes:
        """Return the line, with its end."""
        seconds, micros = divmod(self.at_us, 1_000_000)
        place = MOUNT_DIRECTORY + self.fqrn.encode() if self.fqrn else b""
        path = (place + self.path or b"/").replace(b'"', b'""')
        note = b""
        if self.size_bytes is not None:
            note = b"read %d %d" % (self.offset, self.size_bytes)
        return b'"%d.%06d","%d","%s","%s"\r\n' % (
            seconds,
            micros,
            self.code,
            path,
            note,
        )


class TraceReader:
    """Reads a trace as it comes, piece by piece.

    Attributes:
        refused_count: How many lines made no sense. Where several write to one file,
            or a disk was full, there may be some.
        refusal: What was wrong with the first of them.
    """

    def __init__(self) -> None:
        self.refused_count = 0
        self.refusal: FormatError | None = None
        self._rest = b""
        self._is_endless = False  # within a line that is too long
        # Checked once, not for each file: directories and notes come again and again.
        self._places: dict[bytes, tuple[str, bytes]] = {}
        self._extents: dict[bytes, tuple[int, int | None]] = {}

    def read(self, data: bytes) -> Iterator[TraceRecord]:
        """Yield the events of the lines that end in the next piece.

        The last ones may be kept back until it is known where they end.
        """
        yield from self._read(self._rest + data, LINE_BYTES_MAX + _START_BYTES_MAX)

    def finish(self) -> Iterator[TraceRecord]:
        """Yield the last events; a line without an end was not finished."""
        yield from self._read(self._rest, 0)

    def _read(self, data: bytes, ahead_bytes: int) -> Iterator[TraceRecord]:
        """Yield events.

        Args:
            data: Begins with a line.
            ahead_bytes: What follows a line that makes no sense, to see where it ends.
        """
        start, end = self._skip(data), len(data)
        while start < end:
            match = _LINE.match(data, start, start + LINE_BYTES_MAX + 2)
            if match is not None:
                start = match.end()
                try:
                    record = self._record(match)
                except FormatError as error:
                    self._refuse(error)
                else:
                    yield record
                continue
            if end - start < ahead_bytes:
                break
            line_end = _end_of_line(data, start)
            if line_end < 0:
                break
            self._refuse_line(data[start:line_end])
            start = line_end + 1
        self._rest = data[start:]
        if len(self._rest) > LINE_BYTES_MAX + _START_BYTES_MAX:
            self._refuse_line(self._rest)
            self._rest, self._is_endless = b"", True

    def _skip(self, data: bytes) -> int:
        """Return where to begin: behind the end of a line that is too long."""
        if not self._is_endless:
            return 0
        line_end = data.find(b"\n")
        self._is_endless = line_end < 0
        return len(data) if line_end < 0 else line_end + 1

    def _refuse_line(self, line: bytes) -> None:
        self._refuse(FormatError(f"not a line of a trace: {line[:80]!r}"))

    def _refuse(self, error: FormatError) -> None:
        self.refusal = self.refusal or error
        self.refused_count += 1

    def _record(self, match: re.Match[bytes]) -> TraceRecord:
        seconds, fraction, code, path, note = match.groups()
        if b'"' in path:
            path = path.replace(b'""', b'"')
        fqrn, inside = self._split(path)
        extent = self._extents.get(note)
        if extent is None:
            extent = _remember(self._extents, note, _extent(note))
        at_us = int(seconds + (fraction or b"").ljust(6, b"0")[:6])
        return TraceRecord(at_us, int(code), fqrn, inside, *extent)

    def _split(self, path: bytes) -> tuple[str, bytes]:
        """Return the repository, if the path tells, and the path inside of it."""
        directory, _, name = path.rpartition(b"/")
        if directory in _TOPS or name in _SPECIAL_NAMES or b"\0" in name:
            return _split(path)
        place = self._places.get(directory)
        if place is None:
            place = _remember(self._places, directory, _split(directory))
        fqrn, above = place
        return fqrn, above + b"/" + name


def parse_trace(data: bytes) -> tuple[list[TraceRecord], int]:
    """Return the events of a whole trace, and how many of its lines make no sense.

    Raises:
        FormatError: Not even one line makes sense.
    """
    reader = TraceReader()
    records = [*reader.read(data), *reader.finish()]
    if reader.refusal is not None and not records:
        raise reader.refusal
    return records, reader.refused_count


def _end_of_line(data: bytes, start: int) -> int:
    """Return where a line ends that makes no sense; -1 if it does not.

    Names may have line feeds, within quotation marks. After a line that was torn these
    do not come in pairs; what begins like a line is one, as no field can hold that.
    """
    counted = start
    is_within_name = False
    end = data.find(b"\n", start)
    while end >= 0:
        is_within_name ^= bool(data.count(b'"', counted, end) % 2)
        is_torn = end - start > LINE_BYTES_MAX or _START.match(data, end + 1)
        if is_torn or not is_within_name:
            break
        counted = end
        end = data.find(b"\n", end + 1)
    return end


def _extent(note: bytes) -> tuple[int, int | None]:
    """Return where reading began and how far it went, if a note tells."""
    extent = _RANGE.fullmatch(note)
    return (int(extent[1]), int(extent[2])) if extent else (0, None)


def _split(path: bytes) -> tuple[str, bytes]:
    """Return the repository, if the path tells, and the path inside of it."""
    try:
        if not path.startswith(MOUNT_DIRECTORY):
            return "", normalize_path(path)
        name, _, inside = path[len(MOUNT_DIRECTORY) :].partition(b"/")
        return check_fqrn(name.decode("ascii", "replace")), normalize_path(inside)
    except ConfigurationError as error:
        raise FormatError(str(error)) from error


def _remember(known: dict[bytes, _Value], key: bytes, value: _Value) -> _Value:
    if len(known) >= _REMEMBERED_MAX:
        known.clear()
    known[key] = value
    return value
