"""Traces in files that the user names."""

from cvmfsexec import log
from cvmfsexec.errors import ConfigurationError, FormatError
from cvmfsexec.format.trace import TraceRecord, parse_trace

TRACE_BYTES_MAX = 128 << 20  # a million and a half of events


def read_trace(path: str) -> list[TraceRecord]:
    """Return what a trace tells.

    Raises:
        ConfigurationError: There is no such file, or it is far too large.
        FormatError: It is no trace.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(TRACE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from error
    if len(data) > TRACE_BYTES_MAX:
        raise ConfigurationError(f"{path} is too large for a trace")
    try:
        records, refused_count = parse_trace(data)
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from error
    if refused_count:
        log.warning("%s: %d lines make no sense, and are left out", path, refused_count)
    return records
