"""What a mount in a session tells of its cache."""

from cvmfsexec.cli.hit_rates import parse_answer
from cvmfsexec.errors import FormatError


def target(data: bytes) -> None:
    try:
        rate = parse_answer("work", "sw.example.org", data)
    except FormatError:
        return
    assert rate.percent is None or 0 <= rate.percent < 1000
    assert rate.downloads >= 0
