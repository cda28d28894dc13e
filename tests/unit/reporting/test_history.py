"""What was recorded, put together by repository."""

import pytest

from cvmfsexec.format.gauges import Gauges
from cvmfsexec.reporting.history import histories_of
from cvmfsexec.reporting.rates import Rates, rates_between

A, B = "a.example.org", "b.example.org"


def gauges(at_s: float, fqrn: str = A, **counts: int) -> Gauges:
    reads = counts.pop("reads", 0)
    return Gauges(at_s, fqrn, requests={"READ": reads} if reads else {}, **counts)  # type: ignore[arg-type]


def test_moments_are_told_by_repository_and_since_the_begin_of_the_job() -> None:
    lines = (
        gauges(12, B, reads=5),
        gauges(11, A, reads=10, opened=4, missed=1, received_bytes=100),
        gauges(13, A, reads=30, opened=4, missed=1, received_bytes=100),
    )
    recorded = b"".join(one.serialize() + b"\n" for one in lines)
    first, second = histories_of(recorded, 10.0)
    assert (first.fqrn, second.fqrn) == (A, B)
    assert first.rates() == [
        (1.0, Rates(1.0, 10, 75, 100)),
        (3.0, Rates(2, 10, None, 0)),
    ]
    assert first.sums == Rates(3.0, 10, 75, 100 / 3)
    assert second.last.request_count == 5


def test_lines_that_cannot_be_read_are_left_out() -> None:
    recorded = b'{"at_s": 1, "fqrn"\n\n\xff\n' + gauges(2).serialize() + b'\n{"at_s'
    (history,) = histories_of(recorded, 1.0)
    assert len(history.moments) == 2


def test_nothing_recorded_is_no_history() -> None:
    assert histories_of(b"", 1.0) == []


@pytest.mark.parametrize("begin_s", [0.0, 100.0])
def test_clocks_that_disagree_do_no_harm(begin_s: float) -> None:
    recorded = gauges(5, reads=3).serialize()
    (history,) = histories_of(recorded, begin_s)
    assert all(at_s >= 0 and one.requests_per_s >= 0 for at_s, one in history.rates())


def test_a_server_that_began_anew_has_done_what_it_counts() -> None:
    before, now = gauges(1, reads=100, opened=50), gauges(2, reads=7, opened=2)
    assert rates_between(before, now).requests_per_s == 7
