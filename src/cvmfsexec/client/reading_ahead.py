"""Looking ahead and fetching ahead, joined for one client.

What fetches is made (and imported) when there is something to fetch for the first time.
"""

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

from cvmfsexec.fetch import Fetcher, ObjectRequest
from cvmfsexec.network.client import HttpClient
from cvmfsexec.network.settings import NetworkSettings
from cvmfsexec.repository.foresight import CatalogForesight
from cvmfsexec.vfs.lookahead import LookAhead

if TYPE_CHECKING:
    from cvmfsexec.fetch.forerunner import Forerunner
    from cvmfsexec.fetch.prefetch import Prefetch
    from cvmfsexec.network.parallel_transport import ParallelTransport


class ReadingAhead:
    """Fetches what the readers of one client are likely to want next.

    Args:
        fetcher: Of the client.
        http: Knows where to ask.
        network: How to ask, and over how many connections.

    Attributes:
        catalogs: To be told what is listed.
        look_ahead: To be told what is read.
    """

    def __init__(
        self, fetcher: Fetcher, http: HttpClient, network: NetworkSettings
    ) -> None:
        self.catalogs = CatalogForesight()
        self.catalogs.wake = self._begin
        self.look_ahead = LookAhead(fetcher.has)
        self.look_ahead.wake = self._begin
        self._fetcher = fetcher
        self._http = http
        self._network = network
        self._lock = threading.Lock()
        self._is_closed = False
        self._forerunner: Forerunner | None = None

    def counts(self) -> Mapping[str, int]:
        """Return how much was fetched ahead, and to what use."""
        forerunner = self._forerunner
        foresights = (self.look_ahead.foresight, self.catalogs)
        return {
            "fetched": forerunner.fetched_count if forerunner else 0,
            "failed": forerunner.failed_count if forerunner else 0,
            "used": sum(each.used_count for each in foresights),
            "wasted": sum(each.wasted_count for each in foresights),
        }

    def close(self) -> None:
        """Stop at once."""
        with self._lock:
            self._is_closed = True
        if self._forerunner is not None:
            self._forerunner.close()

    def _begin(self) -> None:
        """Make what fetches, and let it look for something to fetch."""
        with self._lock:
            if self._forerunner is None and not self._is_closed:
                self._forerunner = self._new_forerunner()
                self.catalogs.wake = self._forerunner.wake
                self.look_ahead.wake = self._forerunner.wake
        if self._forerunner is not None:
            self._forerunner.wake()

    def _new_forerunner(self) -> "Forerunner":
        from cvmfsexec.fetch.forerunner import Forerunner

        return Forerunner(
            self._fetcher,
            self._http,
            self._new_transport,
            self._next_request,
            connections_max=self._network.connections_max,
        )

    def _next_request(self) -> ObjectRequest | None:
        """Return what to fetch next: catalogs first, they hold up the most."""
        return self.catalogs.take() or self.look_ahead.next_request()

    def _new_transport(self) -> "ParallelTransport[Prefetch]":
        from cvmfsexec.network.parallel_transport import ParallelTransport

        network = with_less_patience(self._network)
        return ParallelTransport(network, network.connections_max)


def with_less_patience(network: NetworkSettings) -> NetworkSettings:
    """Return settings with half the timeouts.

    Who waits for something fetched ahead that does not come has a whole timeout of its
    own to wait before it goes elsewhere.
    """
    return network._replace(
        timeout_s=-(-network.timeout_s // 2),
        timeout_direct_s=-(-network.timeout_direct_s // 2),
    )
