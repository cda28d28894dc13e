"""What ``cvmfs top`` shows: the busiest file server first.

Names come from servers and repositories: what a terminal would obey is spelled out.
"""

from collections.abc import Sequence
from typing import NamedTuple

from cvmfsexec.format.gauges import Gauges
from cvmfsexec.log import harmless
from cvmfsexec.reporting.rates import Rates, rates_between

_KINDS_SHOWN = 4
_SLOWEST_SHOWN = 5
_MB = 1_000_000

_HEAD = (
    f"{'REPOSITORY':28} {'PID':>7} {'REQ/S':>8} {'HIT%':>6} {'MB/S':>8} "
    f"{'MB':>9} {'EIO':>5}  SERVER BY PROXY"
)

Watched = dict[tuple[str, int], Gauges]
"""By socket and process: another process has begun to count anew."""


class _Line(NamedTuple):
    """One file server: what it has counted, what it had before, and what it does."""

    gauges: Gauges
    before: Gauges
    rates: Rates


def screen_of(before: Watched, now: Watched) -> list[str]:
    """Return what is to be seen, line by line.

    Args:
        before: What was seen last; empty at first.
        now: What is seen now.
    """
    if not now:
        return ["nothing is mounted that could be watched"]
    lines = []
    for key, gauges in now.items():
        earlier = before.get(key, _unborn(gauges))
        lines.append(_Line(gauges, earlier, rates_between(earlier, gauges)))
    lines.sort(key=lambda line: line.rates.requests_per_s, reverse=True)
    text = [_HEAD, *(_row(line, is_first_look=not before) for line in lines)]
    for line in lines:
        text += ["", *_details(line, is_first_look=not before)]
    return text


def _unborn(gauges: Gauges) -> Gauges:
    """Return the same file server before it has counted anything."""
    return Gauges(gauges.at_s - 1, gauges.fqrn)


def _row(line: _Line, *, is_first_look: bool) -> str:
    gauges, rates = line.gauges, line.rates
    route = harmless(f"{gauges.server} by {gauges.proxy}")
    hits = "-" if rates.hit_percent is None else f"{rates.hit_percent:.1f}"
    # Of one look nobody can tell how fast anything happens.
    requests = "-" if is_first_look else f"{rates.requests_per_s:.1f}"
    speed = "-" if is_first_look else f"{rates.received_bytes_per_s / _MB:.2f}"
    received = gauges.received_bytes / _MB
    return (
        f"{harmless(gauges.fqrn):28} {gauges.pid:>7} {requests:>8} {hits:>6} "
        f"{speed:>8} {received:>9.1f} {gauges.io_errors:>5}  {route}"
    )


def _details(line: _Line, *, is_first_look: bool) -> Sequence[str]:
    gauges = line.gauges
    kinds = sorted(gauges.requests.items(), key=lambda one: one[1], reverse=True)
    shown = ", ".join(
        f"{harmless(kind)} {count:,}"
        + ("" if is_first_look else f" ({_per_second(line, kind):.1f}/s)")
        for kind, count in kinds[:_KINDS_SHOWN]
    )
    lines = [f"{harmless(gauges.fqrn)}: revision {gauges.revision}; {shown or 'idle'}"]
    if gauges.cache_limit_bytes:
        used, limit = gauges.cache_used_bytes, gauges.cache_limit_bytes
        share = 100 * used / limit
        lines.append(
            f"  cache {used / _MB:,.0f} of {limit / _MB:,.0f} MB, {share:.0f} %"
        )
    lines += [
        f"  {one.seconds:8.3f} s  {one.size_bytes:>13,} bytes  {harmless(one.name)}"
        for one in gauges.slowest[:_SLOWEST_SHOWN]
    ]
    return lines


def _per_second(line: _Line, kind: str) -> float:
    done = line.gauges.requests.get(kind, 0) - line.before.requests.get(kind, 0)
    return max(done, 0) / line.rates.seconds
