"""What a file server did between two moments."""

from typing import NamedTuple

from cvmfsexec.format.gauges import Gauges


class Rates(NamedTuple):
    """What happened in some time.

    Attributes:
        seconds: How long that was.
        requests_per_s: Of the kernel.
        hit_percent: Share of the objects asked for that were in the cache; ``None`` if
            none was asked for.
        received_bytes_per_s: From servers.
    """

    seconds: float
    requests_per_s: float
    hit_percent: float | None
    received_bytes_per_s: float


def rates_between(first: Gauges, second: Gauges) -> Rates:
    """Return what happened from the first moment to the second.

    Counts that have shrunk are of two servers; all that the second has counted is new.
    """
    seconds = max(second.at_s - first.at_s, 1e-3)
    if second.request_count < first.request_count or second.opened < first.opened:
        first = Gauges(first.at_s, first.fqrn)
    requests = second.request_count - first.request_count
    received = max(0, second.received_bytes - first.received_bytes)
    return Rates(
        seconds, requests / seconds, hit_percent(first, second), received / seconds
    )


def hit_percent(first: Gauges, second: Gauges) -> float | None:
    """Return the share of objects that were in the cache, in percent."""
    opened = second.opened - first.opened
    missed = second.missed - first.missed
    return 100.0 * max(0, opened - missed) / opened if opened > 0 else None
