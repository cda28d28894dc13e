"""How long a server or proxy takes to answer, or why it does not.

A small document is asked for twice: the first time opens the connection, the second
one is measured. Nothing is repeated and no other route is taken.
"""

import time
from typing import TYPE_CHECKING, NamedTuple

from cvmfsexec.errors import CvmfsError
from cvmfsexec.network.client import HttpClient

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cvmfsexec.network.settings import NetworkSettings

DOCUMENT = ".cvmfspublished"
DOCUMENT_BYTES_MAX = 1 << 20


class RoundTrip(NamedTuple):
    """What came of asking.

    Attributes:
        milliseconds: Until the whole answer was there; None without one.
        failure: Why there was none, for people.
    """

    milliseconds: float | None
    failure: str = ""


def without_patience(settings: "NetworkSettings") -> "NetworkSettings":
    """Return settings of a client that asks each route once."""
    policy = settings.failover._replace(max_retries=0, is_indefinite=False)
    return settings._replace(failover=policy)


def measure(settings: "NetworkSettings") -> RoundTrip:
    """Ask the routes of some settings, which is usually one."""
    http = HttpClient(without_patience(settings))
    try:
        http.fetch(DOCUMENT, limit_bytes=DOCUMENT_BYTES_MAX)
        started_s = time.monotonic()
        http.fetch(DOCUMENT, limit_bytes=DOCUMENT_BYTES_MAX)
    except CvmfsError as error:
        failures = http.failures()
        return RoundTrip(None, failures[-1].text if failures else str(error))
    return RoundTrip(round((time.monotonic() - started_s) * 1000, 1))


def measure_all(several: "Sequence[NetworkSettings]") -> list[RoundTrip]:
    """Measure several routes at the same time."""
    if not several:
        return []
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(max_workers=len(several)) as pool:
        return list(pool.map(measure, several))
