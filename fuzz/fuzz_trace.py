"""Traces of what a job touched, which come from wherever."""

from cvmfsexec.errors import FormatError
from cvmfsexec.format.trace import TraceRecord, parse_trace


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
            again = TraceRecord.parse(record.serialize().removesuffix(b"\r\n"))
            assert again == record
