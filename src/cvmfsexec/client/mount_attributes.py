"""Magic extended attributes that tell about a mount: what it is and how it fares.

Source: docs/reference/client-behaviour.md, "Magic extended attributes".
"""

import os
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from cvmfsexec import __version__, log
from cvmfsexec.cache.store import StoreQuota
from cvmfsexec.client.counters import counter_lines
from cvmfsexec.fetch import Fetcher
from cvmfsexec.log import harmless
from cvmfsexec.network.client import HttpClient
from cvmfsexec.repository.catalog_tree import CatalogTree
from cvmfsexec.repository.revision import Revision

_DAY_S = 86_400


class ShownRevision(Protocol):
    """Tells which revision is shown at this moment; ``Updates`` does."""

    @property
    def revision(self) -> Revision:
        """What is shown."""

    def expires_in_s(self) -> float | None:
        """Return the time until another is looked for; ``None`` for never."""


class FaultCounts(Protocol):
    """Requests that failed for another reason than the caller's."""

    io_errors: int
    last_io_error_s: int


class ServerGauges(Protocol):
    """What the server of kernel requests counts."""

    @property
    def requests(self) -> Mapping[str, int]:
        """Requests by kind."""

    @property
    def faults(self) -> FaultCounts:
        """Failures; times in seconds since 1970, 0 for never."""


class NoFaults:
    """Nothing was asked, so nothing failed."""

    io_errors = 0
    last_io_error_s = 0


class NoServer:
    """Gauges of a client that serves no kernel."""

    requests: Mapping[str, int] = {}
    faults: FaultCounts = NoFaults()


class MountFacts(NamedTuple):
    """Where the attributes come from.

    Attributes:
        fqrn: The repository.
        shown: Which revision is shown; a new one may replace it at any time.
        tree: Its catalogs.
        fetcher: Opens objects.
        http: Downloads objects.
        external_http: Downloads external files, if there are any servers for them.
        timeouts_s: With and without a proxy.
        master_keys: PEM texts.
        ahead_counts: How much was fetched before it was asked for, and to what use.
        quota: The limit of the cache; ``None`` if it has no say in what it holds.
    """

    fqrn: str
    shown: ShownRevision
    tree: CatalogTree
    fetcher: Fetcher
    http: HttpClient
    external_http: HttpClient | None
    timeouts_s: tuple[int, int]
    master_keys: tuple[bytes, ...]
    ahead_counts: Callable[[], Mapping[str, int]] = dict
    quota: StoreQuota | None = None


class MountAttributes:
    """The attributes of one mount. Values are computed when they are asked for."""

    def __init__(self, facts: MountFacts) -> None:
        """Take the facts; the clock of ``user.uptime`` starts now."""
        self.facts = facts
        self._started_s = time.time()
        self.gauges: ServerGauges = NoServer()
        self.talk_socket = ""

    def table(self) -> dict[bytes, Callable[[], str]]:
        """Return the function for each attribute, by its full name."""
        facts = self.facts
        http = facts.http
        values: dict[str, Callable[[], str]] = {
            "fqrn": lambda: facts.fqrn,
            "revision": lambda: str(facts.shown.revision.number),
            "root_hash": lambda: str(facts.shown.revision.root_catalog),
            "tag": lambda: facts.shown.revision.tag,
            "version": lambda: f"{__version__}.0",
            "pid": lambda: str(os.getpid()),
            "uptime": lambda: str(int(time.time() - self._started_s) // 60),
            "expires": self._expires,
            "maxfd": _descriptor_limit,
            "usedfd": lambda: str(len(os.listdir("/proc/self/fd"))),
            "useddirp": lambda: "0",
            "nclg": lambda: str(facts.tree.open_count),
            "inode_max": lambda: str(facts.tree.inode_max),
            "nopen": lambda: self._requests("OPEN"),
            "ndiropen": lambda: self._requests("OPENDIR"),
            "ndownload": lambda: str(http.statistics.downloads),
            "hitrate": self._hit_rate,
            "rx": lambda: str(http.statistics.received_bytes // 1024),
            "speed": self._speed,
            "nioerr": lambda: str(self.gauges.faults.io_errors),
            "timestamp_last_ioerr": lambda: str(self.gauges.faults.last_io_error_s),
            "ncleanup24": self._cleanings,
            "host": lambda: http.routes.active_host,
            "host_list": lambda: ";".join(http.hosts()),
            "proxy": lambda: http.routes.active_proxy,
            "proxy_list": lambda: _proxy_lines(http),
            "proxy_list_external": lambda: _proxy_lines(facts.external_http),
            "external_host": self._external_host,
            "timeout": lambda: str(facts.timeouts_s[0]),
            "timeout_direct": lambda: str(facts.timeouts_s[1]),
            "external_timeout": lambda: str(facts.timeouts_s[1]),
            "pubkeys": lambda: b"".join(facts.master_keys).decode(errors="replace"),
            "repo_counters": self._repository_counters,
            "repo_metainfo": lambda: "manifest not available",
            "logbuffer": _log_lines,
            "fuse_requests": self._all_requests,
            "talk_socket": lambda: self.talk_socket,
            "read_ahead": lambda: _count_lines(facts.ahead_counts()),
            "network_failures": lambda: _failure_lines(http),
        }
        return {b"user." + name.encode(): value for name, value in values.items()}

    def _expires(self) -> str:
        expires_in_s = self.facts.shown.expires_in_s()
        if expires_in_s is None:
            return "never (fixed root catalog)"
        return str(int(expires_in_s) // 60)

    def _requests(self, kind: str) -> str:
        return str(self.gauges.requests.get(kind, 0))

    def _all_requests(self) -> str:
        return _count_lines(dict(sorted(self.gauges.requests.items())))

    def _hit_rate(self) -> str:
        opened_count = self.facts.fetcher.opened_count
        if not opened_count:
            return "n/a"
        hit_count = opened_count - self.facts.fetcher.missed_count
        return f"{100 * hit_count / opened_count:.3f}"

    def _cleanings(self) -> str:
        quota = self.facts.quota
        return "-1" if quota is None else str(quota.cleanings_within(_DAY_S))

    def _speed(self) -> str:
        statistics = self.facts.http.statistics
        if not statistics.seconds:
            return "n/a"
        return str(int(statistics.received_bytes / 1024 / statistics.seconds))

    def _external_host(self) -> str:
        external = self.facts.external_http
        return external.routes.active_host if external else ""

    def _repository_counters(self) -> str:
        return counter_lines(self.facts.tree.catalog(self.facts.tree.root).counters())


def _proxy_lines(http: HttpClient | None) -> str:
    if http is None:
        return ""
    return "".join(f"{proxy}\n" for proxy in http.routes.proxies() if proxy != "DIRECT")


def _failure_lines(http: HttpClient) -> str:
    return "".join(
        f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(one.at_s))} "
        f"{one.host} by {one.proxy}: {harmless(one.text)}\n"
        for one in http.failures()
    )


def _log_lines() -> str:
    return "".join(
        f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(at_s))} {text}\n"
        for at_s, text in log.recent()
    )


def _count_lines(counts: Mapping[str, int]) -> str:
    return "".join(f"{kind},{count}\n" for kind, count in counts.items())


def _descriptor_limit() -> str:
    import resource

    return str(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
