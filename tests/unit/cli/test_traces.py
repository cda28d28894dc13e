"""Traces that users name: files, pipes, compressed or not, and what is none."""

import gzip
import os
import threading
from pathlib import Path

import pytest

from cvmfsexec.cli.traces import read_trace
from cvmfsexec.errors import ConfigurationError, CvmfsError, FormatError
from cvmfsexec.format.trace import Event, TraceRecord

RECORDS = [
    TraceRecord(1_000_000 + n, Event.OPEN, "sw.example.org", b"/d/%d" % n, 0, 4096)
    for n in range(1000)
]
TEXT = b"".join(record.serialize() for record in RECORDS)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return tmp_path / "trace"


def test_a_file_is_read(trace: Path) -> None:
    trace.write_bytes(TEXT)
    assert list(read_trace(str(trace))) == RECORDS


def test_a_compressed_one_is_read(trace: Path) -> None:
    half = TEXT.find(b"\n", len(TEXT) // 2) + 1
    trace.write_bytes(gzip.compress(TEXT[:half]) + gzip.compress(TEXT[half:]))
    assert list(read_trace(str(trace))) == RECORDS


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_pipe_is_read(trace: Path, pack: object) -> None:
    assert callable(pack)
    os.mkfifo(trace)
    writer = threading.Thread(target=trace.write_bytes, args=(pack(TEXT),))
    writer.start()
    assert list(read_trace(str(trace))) == RECORDS
    writer.join()


def test_events_come_before_the_end_is_known(trace: Path) -> None:
    os.mkfifo(trace)
    keep_open = os.open(trace, os.O_RDWR)
    os.write(keep_open, TEXT[: 32 << 10])
    assert next(read_trace(str(trace))) == RECORDS[0]
    os.close(keep_open)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"hello\n", "not a line of a trace"),
        (b"\0" * 100_000, "not a line of a trace"),
        (b"a" * 100_000, "not a line of a trace"),
        (b"\x1f\x8b", "cannot read"),
        (b"\x1f\x8bhello, everybody\n", "Unknown compression method"),
        (gzip.compress(TEXT)[:-200], "ended before the end-of-stream marker"),
        (gzip.compress(b"hello\n"), "not a line of a trace"),
    ],
)
def test_what_is_no_trace_is_refused(trace: Path, content: bytes, reason: str) -> None:
    trace.write_bytes(content)
    with pytest.raises(CvmfsError, match=reason):
        list(read_trace(str(trace)))


def test_what_has_no_event_and_no_end_is_refused() -> None:
    with pytest.raises(FormatError, match="/dev/zero: not a line of a trace"):
        list(read_trace("/dev/zero"))


@pytest.mark.parametrize("name", ["none", "."])
def test_what_cannot_be_read_is_told(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"cannot read .*{name}: "):
        list(read_trace(f"{tmp_path}/{name}"))


def test_lines_that_make_no_sense_are_counted(
    trace: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trace.write_bytes(TEXT + b"hello\n" + TEXT + b"x" * 20_000)
    assert list(read_trace(str(trace))) == RECORDS * 2
    assert f"{trace}: 2 lines make no sense" in caplog.text
