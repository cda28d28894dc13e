"""Traces in files that the user names."""

from cvmfsexec.errors import ConfigurationError
from cvmfsexec.format.trace import TraceRecord, parse_trace

TRACE_BYTES_MAX = 1 << 30


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
    return list(parse_trace(data))
