"""Traces of what a job touched, which come from wherever."""

from cvmfsexec.errors import FormatError
from cvmfsexec.format.trace import TraceReader, parse_trace


def target(data: bytes) -> None:
    try:
        records, _ = parse_trace(data)
    except FormatError:
        return
    for record in records:
        assert not any(
            part in (b"", b".", b"..") for part in record.path.split(b"/")[1:]
        )
        if record.fqrn and len(record.path) < 4096:
            assert parse_trace(record.serialize()) == ([record], 0)
    reader = TraceReader()
    pieces = [reader.read(data[n : n + 7]) for n in range(0, len(data), 7)]
    in_pieces = [record for piece in (*pieces, reader.finish()) for record in piece]
    assert in_pieces == records
