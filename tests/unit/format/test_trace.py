"""Traces: what is written is read again, and nothing else passes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.errors import FormatError
from cvmfsexec.format.trace import (
    LINE_BYTES_MAX,
    Event,
    TraceReader,
    TraceRecord,
    parse_trace,
)

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


def read_in_pieces(data: bytes, piece_bytes: int) -> tuple[list[TraceRecord], int]:
    reader = TraceReader()
    records: list[TraceRecord] = []
    for start in range(0, len(data), piece_bytes):
        records += reader.read(data[start : start + piece_bytes])
    records += reader.finish()
    return records, reader.refused_count


LINES = st.one_of(
    RECORDS.map(TraceRecord.serialize),
    RECORDS.map(lambda record: record.serialize()[:-9]),
    st.binary(max_size=20),
    st.just(b"\n"),
    st.just(b'"1","1","/a\n'),
)


@given(lines=st.lists(LINES, max_size=8), piece_bytes=st.integers(1, 50))
def test_pieces_tell_the_same_as_the_whole(
    lines: list[bytes], piece_bytes: int
) -> None:
    data = b"".join(lines)
    reader = TraceReader()
    whole = [*reader.read(data), *reader.finish()]
    assert read_in_pieces(data, piece_bytes) == (whole, reader.refused_count)


@pytest.mark.parametrize("piece_bytes", [1000, 1 << 20])
@pytest.mark.parametrize(
    "filler",
    [b"x", b"\0", b'"', b'""', b'"1","1","', b'"1","1","/a', b"\r"],
)
def test_a_line_without_end_costs_only_itself(filler: bytes, piece_bytes: int) -> None:
    good = b'"1","1","/a",""\n'
    endless = filler * (5 * LINE_BYTES_MAX // len(filler))
    reader = TraceReader()
    list(reader.read(endless * 3))
    assert len(reader._rest) <= 2 * LINE_BYTES_MAX
    records, refused_count = read_in_pieces(
        good + endless + b"\n" + good + endless, piece_bytes
    )
    assert [one.path for one in records] == [b"/a", b"/a"]
    assert refused_count == 2


@given(path=st.binary(max_size=12))
def test_paths_are_normalized_as_catalogs_have_them(path: bytes) -> None:
    quoted = path.replace(b'"', b'""')
    for place in (b"", b"/cvmfs/", b"/cvmfs/sw.example.org/x/"):
        line = b'"1","1","' + place + quoted + b'",""\n'
        try:
            (record,), _ = parse_trace(line)
        except FormatError:
            continue
        parts = record.path.split(b"/")
        assert parts[0] == b""
        assert not {b"", b".", b".."}.intersection(parts[1:])
        again, _ = parse_trace(record.serialize())
        if record.fqrn or not record.path.startswith(b"/cvmfs/"):
            assert again == [record]
