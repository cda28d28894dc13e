"""How long requests take, for those who want to know.

Measuring costs a quarter of a microsecond for each request, so it is done on demand
only. Each worker counts for itself, behind its counts by opcode.
"""

import time
from collections.abc import Callable, Iterable

from cvmfsexec.format.gauges import LATENCY_BUCKETS
from cvmfsexec.fuse.protocol import OPCODE_LIMIT, Reply

CELLS = OPCODE_LIMIT + LATENCY_BUCKETS
"""Counts that a worker needs if its requests are measured."""

_LAST = LATENCY_BUCKETS - 1

Answer = Callable[[bytes, list[int]], Reply]


def measured(answer: Answer) -> Answer:
    """Return the same, counting how long each request takes."""
    now_ns = time.perf_counter_ns

    def answer_and_count(request: bytes, counts: list[int]) -> Reply:
        begun_ns = now_ns()
        reply = answer(request, counts)
        bucket = (now_ns() - begun_ns).bit_length()
        counts[OPCODE_LIMIT + min(bucket, _LAST)] += 1
        return reply

    return answer_and_count


def latencies_in(counts: Iterable[list[int]]) -> tuple[int, ...]:
    """Return how many requests took how long, of all workers."""
    buckets = [one[OPCODE_LIMIT:] for one in counts]
    return tuple(map(sum, zip(*buckets, strict=True)))
