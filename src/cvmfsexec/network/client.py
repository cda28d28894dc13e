"""Bytes from whichever server has them: limits, retries and failover in one call.

Threads: any may call. One lock guards routes and counters; it is held for
microseconds and never while waiting for the network. Processes: make the client
after the fork.
"""

import os
import re
import threading
import time
from typing import TYPE_CHECKING, NamedTuple, Protocol

from cvmfsexec import log
from cvmfsexec.errors import IntegrityError, NoRouteError, TransferError
from cvmfsexec.format.proxy_groups import DIRECT, without_credentials
from cvmfsexec.network.default_transport import DefaultTransport
from cvmfsexec.network.failover import RequestFailover, RouteTable
from cvmfsexec.network.failure import (
    Blame,
    failure_of_answer,
    failure_of_data,
    failure_of_fault,
)
from cvmfsexec.network.statistics import TransferStatistics
from cvmfsexec.network.transport import Request, TransportFault

if TYPE_CHECKING:
    from collections.abc import Callable

    from cvmfsexec.network.failover import Attempt, Route
    from cvmfsexec.network.failure import Failure
    from cvmfsexec.network.settings import NetworkSettings
    from cvmfsexec.network.transport import Transport

_ROUTES_SHOWN_MAX = 4
_PLAIN_PATH = re.compile(r"[A-Za-z0-9/:.@+\-_~\[\],]*")
_NEEDS_ESCAPE = re.compile(rb"[^A-Za-z0-9/:.@+\-_~\[\],]")


class Sink(Protocol):
    """Where the bytes of one attempt go."""

    def write(self, data: bytes, /) -> object:
        """Take the next piece.

        Raises:
            IntegrityError: These cannot be the wanted bytes.
        """

    def finish(self) -> object:
        """Accept the whole.

        Raises:
            IntegrityError: These are not the wanted bytes.
        """


class _Wanted(NamedTuple):
    """What a caller asks for, wherever it comes from."""

    path: str
    limit_bytes: int
    no_cache: bool = False
    byte_range: tuple[int, int] | None = None


class HttpClient:
    """Downloads from the servers of one repository.

    Args:
        settings: Servers, proxies and patience.
        transport: Asks one route; the real network if None.
        clock: Seconds that do not jump.
        sleep: Waits for so many seconds.
        randomness: Returns numbers from 0 up to, but not including, 1.
    """

    def __init__(
        self,
        settings: "NetworkSettings",
        transport: "Transport | None" = None,
        *,
        clock: "Callable[[], float]" = time.monotonic,
        sleep: "Callable[[float], object]" = time.sleep,
        randomness: "Callable[[], float] | None" = None,
    ) -> None:
        groups = settings.all_proxy_groups
        if not settings.servers or not groups:
            raise NoRouteError("no server or no proxy is configured")
        self._settings = settings
        self._transport = transport or DefaultTransport(settings)
        self._clock = clock
        self._sleep = sleep
        self._routes = RouteTable(
            settings.servers, groups, settings.failover, randomness or _randomness
        )
        self._lock = threading.Lock()
        self._downloads = 0
        self._received_bytes = 0
        self._seconds = 0.0
        self._failed_attempts = 0

    def fetch(self, path: str, *, limit_bytes: int, no_cache: bool = False) -> bytes:
        """Return a small document, such as ``.cvmfspublished``.

        Args:
            path: Below a server's base URL, without leading slash.
            limit_bytes: A longer document is refused.
            no_cache: Ask past caches: what they had was not believed.

        Raises:
            TransferError: No server was reachable, or none had it.
            IntegrityError: The document is too long, wherever it was asked for.
        """
        documents: list[_Document] = []

        def new_document() -> _Document:
            documents.append(_Document())
            return documents[-1]

        self._download(_Wanted(path, limit_bytes, no_cache), new_document)
        return b"".join(documents[-1].pieces)

    def fetch_object(
        self,
        path: str,
        sink_factory: "Callable[[], Sink]",
        *,
        limit_bytes: int,
        byte_range: tuple[int, int] | None = None,
    ) -> None:
        """Stream an object into a sink that knows whether the bytes are right.

        When a sink says that they are not, the object is asked for once more past
        all caches, then from other servers and proxies.

        Args:
            path: Below a server's base URL, without leading slash.
            sink_factory: Makes a sink for each attempt; the one before is not used
                any more, so that both may write to the same place.
            limit_bytes: More stored bytes than this are refused.
            byte_range: First and last byte wanted; None for all.

        Raises:
            TransferError: No server was reachable, or none had it.
            IntegrityError: The bytes were wrong wherever they came from.
            CvmfsError: Whatever else a sink raises; it ends the request.
        """
        wanted = _Wanted(path, limit_bytes, byte_range=byte_range)
        self._download(wanted, sink_factory)

    def next_host(self) -> bool:
        """Make the next server active: what this one says is not believed.

        Returns:
            Whether there is another one.
        """
        with self._lock:
            self._routes.leave_host(self._routes.active.host, self._clock())
        return len(self._settings.servers) > 1

    @property
    def statistics(self) -> TransferStatistics:
        """Sums since the client was made."""
        with self._lock:
            return TransferStatistics(
                self._downloads,
                self._received_bytes,
                self._seconds,
                self._failed_attempts,
            )

    @property
    def active_host(self) -> str:
        """Base URL of the server that is asked first."""
        return self.hosts()[0]

    @property
    def active_proxy(self) -> str:
        """URL of the proxy in use, or ``DIRECT``."""
        with self._lock:
            return without_credentials(self._routes.active.proxy)

    def hosts(self) -> list[str]:
        """Return the base URLs of all servers, the active one first."""
        with self._lock:
            return [without_credentials(host) for host in self._routes.hosts()]

    def proxies(self) -> list[str]:
        """Return all proxies, the active one first."""
        with self._lock:
            return [without_credentials(proxy) for proxy in self._routes.proxies()]

    def _download(self, wanted: _Wanted, sink_factory: "Callable[[], Sink]") -> None:
        """Ask routes until one brings what the sink accepts."""
        url_path = "/" + escape_path(wanted.path)
        with self._lock:
            failover = RequestFailover(
                self._routes, self._clock(), no_cache=wanted.no_cache
            )
        attempt: Attempt | None = failover.attempt
        failures: list[tuple[Route, Failure]] = []
        while attempt is not None:
            if attempt.wait_s:
                self._sleep(attempt.wait_s)
            route = attempt.route
            request = Request(
                route.host + url_path,
                route.proxy,
                wanted.limit_bytes,
                attempt.no_cache,
                wanted.byte_range,
            )
            failure = self._ask(request, sink_factory())
            if failure is None:
                return
            failures.append((route, failure))
            attempt = self._after(failover, failure)
        raise _give_up(wanted.path, failures)

    def _ask(self, request: Request, sink: Sink) -> "Failure | None":
        """Ask one route once; None means that the sink has what it wants."""
        via_proxy = request.proxy != DIRECT and not request.url.startswith("file:")
        received_bytes = 0
        started_s = self._clock()
        try:
            answer = self._transport.get(request, sink.write)
            received_bytes = answer.received_bytes
            failure = failure_of_answer(answer, via_proxy=via_proxy)
            if failure is None:
                sink.finish()
        except TransportFault as fault:
            failure = failure_of_fault(fault.kind, str(fault), via_proxy=via_proxy)
        except IntegrityError as error:
            failure = failure_of_data(str(error))
        with self._lock:
            self._seconds += self._clock() - started_s
            self._received_bytes += received_bytes
            if failure is None:
                self._downloads += 1
            else:
                self._failed_attempts += 1
        return failure

    def _after(self, failover: RequestFailover, failure: "Failure") -> "Attempt | None":
        """Decide what follows a failure, and tell the log."""
        asked = failover.attempt.route
        with self._lock:
            attempt = failover.after(failure, self._clock())
        if attempt is None:
            return None
        log.info(
            "%s; next: %s", _attempt_text(asked, failure), _route_text(attempt.route)
        )
        if self._settings.failover.is_indefinite and self._is_interrupted():
            return None
        return attempt

    def _is_interrupted(self) -> bool:
        """Whether somebody wants endless failover to end; takes notice once."""
        try:
            os.unlink(self._settings.interrupt_file)
        except OSError:
            return False
        return True


class _Document:
    """A sink that keeps everything and doubts nothing."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.write = self.pieces.append

    def finish(self) -> None:
        """Accept."""


def escape_path(path: str) -> str:
    """Return a path as it is written in a URL.

    Bytes of a name that are no text are expected as surrogates (``os.fsdecode``).
    """
    if _PLAIN_PATH.fullmatch(path):
        return path
    raw = path.encode("utf-8", "surrogateescape")
    return _NEEDS_ESCAPE.sub(lambda match: b"%%%02X" % ord(match[0]), raw).decode()


def _give_up(
    path: str, failures: "list[tuple[Route, Failure]]"
) -> TransferError | IntegrityError:
    """Return the error that tells what was tried and what to do."""
    routes = tuple(_attempt_text(route, failure) for route, failure in failures)
    tried = _enumerate(routes)
    last = failures[-1][1]
    if last.blame is Blame.DATA:
        return IntegrityError(
            f"{path} is corrupt wherever it was fetched: {tried}",
            hint="tell the operators of the proxies and servers named",
        )
    if all(failure.is_absence for _, failure in failures):
        return TransferError(
            f"no server has {path}: {tried}",
            routes=routes,
            hint="check the name of the repository and CVMFS_SERVER_URL",
        )
    return TransferError(
        f"cannot download {path}: {tried}", routes=routes, hint=_hint(failures)
    )


def _hint(failures: "list[tuple[Route, Failure]]") -> str:
    if any(failure.blame is Blame.PROXY for _, failure in failures):
        return "check the network, and that CVMFS_HTTP_PROXY names working proxies"
    return (
        "check the network and CVMFS_SERVER_URL; where only proxies are let out, "
        "set CVMFS_HTTP_PROXY"
    )


def _enumerate(texts: tuple[str, ...]) -> str:
    unique = tuple(dict.fromkeys(texts))
    shown = "; ".join(unique[:_ROUTES_SHOWN_MAX])
    more = len(unique) - _ROUTES_SHOWN_MAX
    return f"{shown}; and {more} more" if more > 0 else shown


def _attempt_text(route: "Route", failure: "Failure") -> str:
    return f"{_route_text(route)}: {failure.text}"


def _route_text(route: "Route") -> str:
    host = without_credentials(route.host)
    if route.proxy == DIRECT:
        return host
    return f"{host} via {without_credentials(route.proxy)}"


def _randomness() -> float:
    # The module random costs 3 ms of start-up; this is drawn once per failure.
    return int.from_bytes(os.urandom(4)) / (1 << 32)
