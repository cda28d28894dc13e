"""What a file server counts, read together: for those who watch it."""

import os
import time
from collections.abc import Callable
from typing import Protocol

from cvmfsexec.client.mount_attributes import MountFacts, ServerGauges
from cvmfsexec.format.gauges import Gauges, SlowObject
from cvmfsexec.vfs.attributes import BLOCK_BYTES, FilesystemStatistics


class MeasuredServer(ServerGauges, Protocol):
    """The server of kernel requests, which may measure how long they take."""

    @property
    def latencies(self) -> tuple[int, ...]:
        """Requests by how long they took; empty if nobody measures."""


class GaugeBoard:
    """All that one file server counts; any thread may look.

    Args:
        facts: Of its mount.
        server: Of kernel requests.
        statfs: Tells how full the cache is.
        clock: Seconds since 1970.
    """

    def __init__(
        self,
        facts: MountFacts,
        server: MeasuredServer,
        statfs: Callable[[], FilesystemStatistics],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._facts = facts
        self._server = server
        self._statfs = statfs
        self._clock = clock

    def look(self) -> Gauges:
        """Return what was counted up to now."""
        facts, server = self._facts, self._server
        http, transfers = facts.http, facts.http.statistics
        cache = self._statfs()
        slowest = (
            SlowObject(wait.name, wait.seconds, wait.size_bytes)
            for wait in facts.fetcher.slowest
        )
        return Gauges(
            at_s=self._clock(),
            fqrn=facts.fqrn,
            pid=os.getpid(),
            revision=facts.shown.revision.number,
            requests=dict(server.requests),
            latencies=server.latencies,
            opened=facts.fetcher.opened_count,
            missed=facts.fetcher.missed_count,
            downloads=transfers.downloads,
            received_bytes=transfers.received_bytes,
            transfer_s=transfers.seconds,
            io_errors=server.faults.io_errors,
            server=http.routes.active_host,
            proxy=http.routes.active_proxy,
            cache_used_bytes=(cache.blocks - cache.free_blocks) * BLOCK_BYTES,
            cache_limit_bytes=cache.blocks * BLOCK_BYTES,
            slowest=tuple(slowest),
        )
