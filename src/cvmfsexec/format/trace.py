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
from typing import NamedTuple

from cvmfsexec.errors import ConfigurationError, FormatError
from cvmfsexec.format.names import check_fqrn, normalize_path

LINE_BYTES_MAX = 8192 + 256
"""A path has up to 4096 bytes, and each may be a quotation mark."""

MOUNT_DIRECTORY = b"/cvmfs/"

_FIELD = rb'"((?:[^"]|"")*)"'
_LINE = re.compile(b",".join([_FIELD] * 4) + rb"\r?")
_TIME = re.compile(rb"([0-9]{1,12})(?:\.([0-9]{1,9}))?")
_START = re.compile(rb'"[0-9.]{1,22}","-?[0-9]{1,4}","')
_CODE = re.compile(rb"-?[0-9]{1,4}")
_RANGE = re.compile(rb"read ([0-9]{1,18}) ([0-9]{1,18})")


class Event(IntEnum):
    """Codes of events; those of the original, as far as they tell what was touched."""

    OPEN = 1
    OPENDIR = 2
    READLINK = 3
    LOOKUP = 4
    GETATTR = 6


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

    @classmethod
    def parse(cls, line: bytes) -> "TraceRecord":
        """Read a line without its end.

        Raises:
            FormatError: It is none of a trace.
        """
        match = _LINE.fullmatch(line) if len(line) <= LINE_BYTES_MAX else None
        if match is None:
            raise FormatError(f"not a line of a trace: {line[:80]!r}")
        time, code, path, note = (
            field.replace(b'""', b'"') for field in match.groups()
        )
        whole = _TIME.fullmatch(time)
        if whole is None or _CODE.fullmatch(code) is None:
            raise FormatError(f"not an event of a trace: {line[:80]!r}")
        fraction = (whole[2] or b"").ljust(6, b"0")[:6]
        fqrn, inside = _split(path)
        extent = _RANGE.fullmatch(note)
        return cls(
            int(whole[1]) * 1_000_000 + int(fraction),
            int(code),
            fqrn,
            inside,
            int(extent[1]) if extent else 0,
            int(extent[2]) if extent else None,
        )

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


def trace_lines(data: bytes) -> Iterator[bytes]:
    """Yield lines without their ends; a last one without an end was not finished."""
    start = 0
    while (end := _end_of_line(data, start)) >= 0:
        yield data[start:end]
        start = end + 1


def parse_trace(data: bytes) -> tuple[list[TraceRecord], int]:
    """Return the events of a trace, and how many of its lines make no sense.

    Where several write to one file, or a disk was full, there may be some.

    Raises:
        FormatError: Not even one line makes sense.
    """
    records: list[TraceRecord] = []
    refusal: FormatError | None = None
    refused_count = 0
    for line in trace_lines(data):
        try:
            records.append(TraceRecord.parse(line))
        except FormatError as error:
            refusal = refusal or error
            refused_count += 1
    if refusal is not None and not records:
        raise refusal
    return records, refused_count


def _end_of_line(data: bytes, start: int) -> int:
    """Return where a line ends.

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


def _split(path: bytes) -> tuple[str, bytes]:
    """Return the repository, if the path tells, and the path inside of it."""
    try:
        if not path.startswith(MOUNT_DIRECTORY):
            return "", normalize_path(path)
        name, _, inside = path[len(MOUNT_DIRECTORY) :].partition(b"/")
        return check_fqrn(name.decode("ascii", "replace")), normalize_path(inside)
    except ConfigurationError as error:
        raise FormatError(str(error)) from error
