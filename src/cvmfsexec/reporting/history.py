"""What the file servers of a job have recorded, put together by repository."""

from typing import NamedTuple

from cvmfsexec.errors import FormatError
from cvmfsexec.format.gauges import Gauges, parse_gauges
from cvmfsexec.reporting.rates import Rates, rates_between


class History(NamedTuple):
    """One repository in the course of a job.

    Attributes:
        moments: The first has counted nothing; the last has counted everything.
    """

    moments: tuple[Gauges, ...]

    @property
    def fqrn(self) -> str:
        """The repository."""
        return self.last.fqrn

    @property
    def last(self) -> Gauges:
        """What was counted in the end."""
        return self.moments[-1]

    @property
    def sums(self) -> Rates:
        """What happened in all, on average."""
        return rates_between(self.moments[0], self.last)

    def rates(self) -> list[tuple[float, Rates]]:
        """Return what happened until each moment since the one before.

        Moments are told in seconds since the first.
        """
        begin_s = self.moments[0].at_s
        pairs = zip(self.moments, self.moments[1:], strict=False)
        return [(two.at_s - begin_s, rates_between(one, two)) for one, two in pairs]


def histories_of(recorded: bytes, begin_s: float) -> list[History]:
    """Put together what was recorded.

    Args:
        recorded: Lines of gauges, of any number of file servers. One that cannot be
            read is left out: its file server was killed, or the disk was full.
        begin_s: When the job began, in seconds since 1970.

    Returns:
        By name of the repository.
    """
    moments: dict[str, list[Gauges]] = {}
    for line in recorded.splitlines():
        try:
            gauges = parse_gauges(line)
        except FormatError:
            continue
        start = [Gauges(min(begin_s, gauges.at_s), gauges.fqrn)]
        moments.setdefault(gauges.fqrn, start).append(gauges)
    return [
        History(tuple(sorted(moments[fqrn], key=lambda one: one.at_s)))
        for fqrn in sorted(moments)
    ]
