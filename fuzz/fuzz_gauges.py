"""Gauges of another process are gauges or a FormatError, and can be shown."""

from cvmfsexec.errors import FormatError
from cvmfsexec.format.gauges import parse_gauges
from cvmfsexec.reporting.history import histories_of
from cvmfsexec.reporting.screen import screen_of


def target(data: bytes) -> None:
    """Raise only on a finding."""
    histories_of(data, 0.0)
    try:
        gauges = parse_gauges(data)
    except FormatError:
        return
    assert parse_gauges(gauges.serialize()) == gauges
    assert all(line.isprintable() for line in screen_of({}, {("", 0): gauges}))
