"""Traces: what is written is read again, and nothing else passes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.errors import FormatError
from cvmfsexec.format.trace import Event, TraceRecord, parse_trace

NAMES = st.binary(min_size=1, max_size=20).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..")
)
PATHS = st.lists(NAMES, max_size=4).map(
    lambda names: b"".join(b"/" + name for name in names)
)
RECORDS = st.builds(
    TraceRecord,
    at_us=st.integers(0, 10**18 - 1),
    code=st.sampled_from(Event).map(int),
    fqrn=st.just("sw.example.org"),
    path=PATHS,
    offset=st.integers(0, 10**18 - 1),
    size_bytes=st.integers(0, 10**18 - 1),
)

OF_THE_ORIGINAL = (
    b'"1764000000.123456","-1","","Trace buffer created"\r\n'
    b'"1764000000.200000","4","/bin","lookup()"\r\n'
    b'"1764000000.200001","1","/bin/say ""hi""","open()"\r\n'
)


@given(records=st.lists(RECORDS, max_size=5))
def test_what_is_written_is_read_again(records: list[TraceRecord]) -> None:
    text = b"".join(record.serialize() for record in records)
    assert parse_trace(text) == (records, 0)


@given(data=st.binary(max_size=300))
def test_anything_is_a_trace_or_a_format_error(data: bytes) -> None:
    try:
        records, _ = parse_trace(data)
    except FormatError:
        return
    assert all(b"\0" not in record.path for record in records)


@given(record=RECORDS, cut=st.integers(1, 60))
def test_a_line_that_was_not_finished_is_left_out(
    record: TraceRecord, cut: int
) -> None:
    line = record.serialize()
    assert parse_trace(line + line[: -min(cut, len(line))]) == ([record], 0)


def test_traces_of_the_original_are_read() -> None:
    (created, found, opened), _ = parse_trace(OF_THE_ORIGINAL)
    assert (created.code, created.path) == (-1, b"")
    assert (found.fqrn, found.path) == ("", b"/bin")
    assert opened == TraceRecord(1764000000200001, Event.OPEN, "", b'/bin/say "hi"')


def test_parts_of_files_are_told() -> None:
    line = b'"1.5","1","/cvmfs/sw.example.org/f","read 4096 10"\n'
    (record,), _ = parse_trace(line)
    assert record == TraceRecord(1_500_000, 1, "sw.example.org", b"/f", 4096, 10)


def test_a_line_as_it_is_written() -> None:
    record = TraceRecord(1_500_000, Event.OPENDIR, "sw.example.org", b"")
    assert record.serialize() == b'"1.500000","2","/cvmfs/sw.example.org",""\r\n'


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"hello",
        b'"1","1","/a"',
        b'"1","1","/a","",""',
        b'"x","1","/a",""',
        b'"1","x","/a",""',
        b'"1","1","/../a",""',
        b'"1","1","/a\0b",""',
        b'"1","1","/cvmfs/../etc",""',
        b'"1","1","/cvmfs/-x/a",""',
        b'"1","1","/cvmfs//a",""',
        b'"1","1","/' + b"a" * 9000 + b'",""',
        b'"1","1","/a"b"c",""',
    ],
)
def test_what_is_no_trace_is_refused(line: bytes) -> None:
    with pytest.raises(FormatError):
        parse_trace(line + b"\n")
    good = b'"1","1","/a",""\n'
    records, refused_count = parse_trace(good + line + b"\n" + good)
    assert (len(records), refused_count) == (2, 1)


def test_a_line_that_was_torn_costs_that_line_and_the_next() -> None:
    line = b'"1","1","/a",""\n'
    records, refused_count = parse_trace(line * 3 + line[:10] + line * 3)
    assert (len(records), refused_count) == (5, 1)
