"""What a mount tells of its cache."""

from cvmfsexec.cli.hit_rates import parse_percent
from cvmfsexec.errors import FormatError


def target(data: bytes) -> None:
    try:
        percent = parse_percent(data.decode("utf-8", "surrogateescape"))
    except FormatError:
        return
    assert percent is None or 0 <= percent < 1000
