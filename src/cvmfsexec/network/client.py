"""Bytes from whichever server has them: limits, retries and failover in one call.

Threads: any may call. One lock guards routes and counters; it is held for
microseconds and never while waiting for the network. Processes: make the client
after the fork.
"""

import os
import re
import threading
import time
from collections import deque
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
from cvmfsexec.network.resolution import ProxyAddresses
from cvmfsexec.network.statistics import RouteFailure, TransferStatistics
from cvmfsexec.network.transport import FaultKind, Request, TransportFault

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cvmfsexec.format.proxy_groups import ProxyGroup
    from cvmfsexec.network.credentials import Credential
    from cvmfsexec.network.failover import Attempt, Route
    from cvmfsexec.network.failure import Failure
    from cvmfsexec.network.route_map import RouteMap
    from cvmfsexec.network.settings import NetworkSettings
    from cvmfsexec.network.transport import Transport

RESUMED_BYTES_MIN = 1 << 17
"""Of a transfer that was cut off earlier, the little that came is asked for again."""

FAILURES_KEPT_MAX = 50

_ROUTES_SHOWN_MAX = 4
_FAULTS_TO_RESUME_AFTER = frozenset({FaultKind.CUT_OFF, FaultKind.TOO_SLOW})
_PARTIAL_CONTENT = 206
_RANGE_NOT_SATISFIABLE = 416
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
    can_resume: bool = False


class _Outcome(NamedTuple):
    """What came of asking once, if it was not all that was wanted.

    Attributes:
        failure: None if the server did not leave out what was to be left out.
        sent_bytes: How much of the whole the sink has, and can go on from.
    """

    failure: "Failure | None"
    sent_bytes: int = 0


class HttpClient:
    """Downloads from the servers of one repository.

    Args:
        settings: Servers, proxies and patience.
        transport: Asks one route; the real network if None.
        clock: Seconds that do not jump.
        sleep: Waits for so many seconds.
        randomness: Returns numbers from 0 up to, but not including, 1.
        addresses: Knows which machines are behind the names of proxies; asks the
            system's resolver if None.
    """

    def __init__(
        self,
        settings: "NetworkSettings",
        transport: "Transport | None" = None,
        *,
        clock: "Callable[[], float]" = time.monotonic,
        sleep: "Callable[[float], object]" = time.sleep,
        randomness: "Callable[[], float] | None" = None,
        addresses: ProxyAddresses | None = None,
    ) -> None:
        groups = settings.all_proxy_groups
        if not settings.servers or not groups:
            raise NoRouteError("no server or no proxy is configured")
        self._addresses = addresses or ProxyAddresses(groups, settings.resolution)
        self._groups: Sequence[ProxyGroup] = groups
        self._servers = settings.servers[: settings.servers_max or None]
        self._fallback_order: tuple[int, ...] = ()
        self._settings = settings
        self._transport = transport or DefaultTransport(settings)
        self._clock = clock
        self._sleep = sleep
        self._routes = RouteTable(
            self._servers, groups, settings.failover, randomness or _randomness
        )
        self._lock = threading.Lock()
        self._downloads = 0
        self._received_bytes = 0
        self._seconds = 0.0
        self._failed_attempts = 0
        self._failures: deque[RouteFailure] = deque(maxlen=FAILURES_KEPT_MAX)
        self._credential: Callable[[], Credential] | None = None
        self._is_stranded = False

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
        all caches, then from other servers and proxies. When a transfer is cut off or
        stalls after a good part, the next attempt asks for the rest.

        Args:
            path: Below a server's base URL, without leading slash.
            sink_factory: Makes a sink for each attempt that starts from the beginning;
                the one before is not used any more, so that both may write to the
                same place.
            limit_bytes: More stored bytes than this are refused.
            byte_range: First and last byte wanted; None for all.

        Raises:
            TransferError: No server was reachable, or none had it.
            IntegrityError: The bytes were wrong wherever they came from.
            CvmfsError: Whatever else a sink raises; it ends the request.
        """
        wanted = _Wanted(
            path, limit_bytes, byte_range=byte_range, can_resume=byte_range is None
        )
        self._download(wanted, sink_factory)

    def show_credential(self, credential: "Callable[[], Credential]") -> None:
        """Let https servers see who asks, from now on.

        Args:
            credential: Returns it as it is at the moment; what it raises ends a
                request.
        """
        self._credential = credential

    def order_routes(
        self, servers: "Sequence[str]", fallback_order: "Sequence[int]"
    ) -> None:
        """Prefer servers and fallback proxies in this order from now on.

        Args:
            servers: All servers of the settings; cut to as many as are to be used.
            fallback_order: The fallback groups, by their place in the settings.
        """
        with self._lock:
            self._servers = tuple(servers[: self._settings.servers_max or None])
            self._fallback_order = tuple(fallback_order)
            self._replace_routes()

    def ask_aside(self, url: str, limit_bytes: int) -> bytes | None:
        """Return what a server says by the active proxy, or None; asks just once.

        Nothing follows from a failure: this is for what we can do without.
        """
        pieces: list[bytes] = []
        self._follow_addresses()
        with self._lock:
            proxy = self._routes.active.proxy
        try:
            request = Request(url, proxy, limit_bytes)
            answer = self._transport.get(request, pieces.append)
        except (TransportFault, IntegrityError):
            return None
        return b"".join(pieces) if answer.is_success else None

    def first_request(self, path: str, limit_bytes: int) -> Request:
        """Return what ``fetch_object`` would ask first, to be asked by other means.

        Whoever asks tells by ``count`` what came of it, and leaves what fails to
        ``fetch_object``.
        """
        self._follow_addresses()
        with self._lock:
            host, proxy = self._routes.route(path)
        request = Request(f"{host}/{escape_path(path)}", proxy, limit_bytes)
        if self._credential is not None and host.startswith("https:"):
            return request._replace(credential=self._credential())
        return request

    def count(self, received_bytes: int, seconds: float) -> None:
        """Take a download by other means into the statistics."""
        with self._lock:
            self._downloads += 1
            self._received_bytes += received_bytes
            self._seconds += seconds

    @property
    def settings(self) -> "NetworkSettings":
        """Whom it asks, and how patiently; see ``change``."""
        return self._settings

    def change(self, settings: "NetworkSettings") -> None:
        """Go by other settings from now on; what is under way is not disturbed.

        Raises:
            NoRouteError: There would be no server or no proxy.
        """
        groups = settings.all_proxy_groups
        if not settings.servers or not groups:
            raise NoRouteError("no server or no proxy is configured")
        addresses = self._addresses
        if groups != self._settings.all_proxy_groups:
            addresses = ProxyAddresses(groups, settings.resolution)
        resolved = addresses.groups(self._clock())
        transport = self._transport
        if _patience(settings) != _patience(self._settings):
            transport = DefaultTransport(settings)
        with self._lock:
            former, self._settings = self._settings, settings
            self._transport = transport
            if groups != former.all_proxy_groups or settings.servers != former.servers:
                self._addresses, self._groups = addresses, resolved
                self._servers = settings.servers[: settings.servers_max or None]
                self._fallback_order = ()
                # From the beginning: what was left before is another's business now.
                self._routes = RouteTable(
                    self._servers,
                    resolved,
                    settings.failover,
                    self._routes.randomness,
                )

    def leave_proxy_group(self) -> None:
        """Make the next group of proxies active."""
        with self._lock:
            self._routes.leave_group(self._clock())

    def rebalance_proxies(self) -> None:
        """Draw a proxy of the active group anew."""
        with self._lock:
            self._routes.rebalance()

    def route_map(self) -> "RouteMap":
        """Return all routes as they are at the moment, to be shown."""
        from cvmfsexec.network.route_map import RouteMap, ShownProxy

        def shown(member: str) -> ShownProxy:
            return ShownProxy(
                without_credentials(member),
                without_credentials(self._addresses.named_member(member)),
                self._addresses.is_unresolved(member),
            )

        self._follow_addresses()
        with self._lock:
            active = self._routes.active
            return RouteMap(
                tuple(map(without_credentials, self._servers)),
                without_credentials(active.host),
                tuple(tuple(map(shown, group.members)) for group in self._groups),
                without_credentials(active.proxy),
                self._routes.group_index,
                self._addresses.valid_for_s(self._clock()),
            )

    def next_host(self) -> bool:
        """Make the next server active: what this one says is not believed.

        Returns:
            Whether there is another one.
        """
        with self._lock:
            self._routes.leave_host(self._routes.active.host, self._clock())
        return len(self._servers) > 1

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

    def failures(self) -> tuple[RouteFailure, ...]:
        """Return the last failed attempts, the oldest first."""
        with self._lock:
            return tuple(self._failures)

    @property
    def active_host(self) -> str:
        """Base URL of the server that is asked first."""
        return self.hosts()[0]

    @property
    def active_proxy(self) -> str:
        """URL of the proxy in use, or ``DIRECT``."""
        with self._lock:
            return without_credentials(self._routes.active.proxy)

    @property
    def configured_proxy(self) -> str:
        """The proxy in use as it was configured, with user and password."""
        with self._lock:
            return self._addresses.named_member(self._routes.active.proxy)

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
        self._follow_addresses()
        with self._lock:
            failover = RequestFailover(
                self._routes, self._clock(), wanted.path, no_cache=wanted.no_cache
            )
        try:
            self._ask_routes(failover, wanted, url_path, sink_factory)
        finally:
            if failover.is_scout:
                with self._lock:
                    failover.end(self._clock())

    def _ask_routes(
        self,
        failover: RequestFailover,
        wanted: _Wanted,
        url_path: str,
        sink_factory: "Callable[[], Sink]",
    ) -> None:
        attempt: Attempt | None = failover.attempt
        failures: list[tuple[Route, Failure]] = []
        sink, sent_bytes = sink_factory(), 0
        is_fresh = True
        while attempt is not None:
            if not sent_bytes and not is_fresh:
                sink = sink_factory()
            is_fresh = False
            request = self._request(attempt, wanted, url_path, sent_bytes)
            outcome = self._ask(request, sink, failover)
            if outcome is None:
                return
            sent_bytes = outcome.sent_bytes if wanted.can_resume else 0
            if outcome.failure is None:
                wanted = wanted._replace(can_resume=False)
                continue
            failures.append((attempt.route, outcome.failure))
            attempt = self._after(failover, outcome.failure)
        raise _give_up(wanted.path, failures)

    def _request(
        self, attempt: "Attempt", wanted: _Wanted, url_path: str, sent_bytes: int
    ) -> Request:
        host, proxy = attempt.route
        request = Request(
            host + url_path,
            proxy,
            wanted.limit_bytes - sent_bytes,
            attempt.no_cache,
            wanted.byte_range,
            sent_bytes,
        )
        if self._credential is not None and host.startswith("https:"):
            return request._replace(credential=self._credential())
        return request

    def _ask(
        self, request: Request, sink: Sink, failover: RequestFailover
    ) -> _Outcome | None:
        """Ask one route once; None means that the sink has what it wants."""
        via_proxy = request.proxy != DIRECT and not request.url.startswith("file:")
        received_bytes = 0
        sent_bytes = request.skip_bytes
        failure: Failure | None = None
        started_s = self._clock()
        try:
            answer = self._transport.get(request, sink.write)
            received_bytes = answer.received_bytes
            if sent_bytes and _repeats(answer.status):
                return _Outcome(None)
            failure = failure_of_answer(
                answer,
                via_proxy=via_proxy,
                is_tunnelled=request.url.startswith("https:"),
            )
            if failure is None:
                sink.finish()
        except TransportFault as fault:
            failure = failure_of_fault(fault.kind, str(fault), via_proxy=via_proxy)
            received_bytes = fault.received_bytes
            sent_bytes = _bytes_to_go_on_from(request.skip_bytes, fault)
        except IntegrityError as error:
            failure = failure_of_data(str(error))
            sent_bytes = 0
        ended_s = self._clock()
        with self._lock:
            self._seconds += ended_s - started_s
            self._received_bytes += received_bytes
            if failure is None:
                self._is_stranded = False
                self._downloads += 1
                failover.succeeded(ended_s)
                return None
            self._failed_attempts += 1
        return _Outcome(failure, sent_bytes)

    def _after(self, failover: RequestFailover, failure: "Failure") -> "Attempt | None":
        """Decide what follows a failure, keep it, tell the log, and wait if need be."""
        asked = failover.attempt.route
        with self._lock:
            self._failures.append(self._route_failure(asked, failure))
            attempt = failover.after(failure, self._clock())
        if attempt is None:
            return None
        log.info(
            "%s; next: %s", _attempt_text(asked, failure), _route_text(attempt.route)
        )
        if self._settings.failover.is_indefinite and self._is_interrupted():
            return None
        if attempt.is_new_round and not self._is_stranded:
            self._is_stranded = True
            log.warning(
                "%s: all routes have failed; they are tried again and again until %s "
                "exists",
                _attempt_text(asked, failure),
                self._settings.interrupt_file,
            )
        if not attempt.wait_s:
            return attempt
        self._sleep(attempt.wait_s)
        with self._lock:
            return failover.awake()

    def _route_failure(self, route: "Route", failure: "Failure") -> RouteFailure:
        return RouteFailure(
            time.time(),
            without_credentials(route.host),
            without_credentials(route.proxy),
            failure.text,
        )

    def _follow_addresses(self) -> None:
        """Use the machines that the names of the proxies stand for now."""
        groups = self._addresses.groups(self._clock())
        if groups is not self._groups:
            with self._lock:
                self._groups = groups
                self._replace_routes()

    def _replace_routes(self) -> None:
        groups = self._groups
        if self._fallback_order:
            regular_count = len(self._settings.proxy_groups)
            regular, fallback = groups[:regular_count], groups[regular_count:]
            groups = (*regular, *(fallback[n] for n in self._fallback_order))
        self._routes.replace(self._servers, groups)

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


def _patience(settings: "NetworkSettings") -> tuple[int, int]:
    return settings.timeout_s, settings.timeout_direct_s


def _repeats(status: int) -> bool:
    """Whether a server does not leave out what it was asked to leave out."""
    is_whole = 200 <= status < 300 and status != _PARTIAL_CONTENT
    return is_whole or status == _RANGE_NOT_SATISFIABLE


def _bytes_to_go_on_from(skipped_bytes: int, fault: TransportFault) -> int:
    """Return from where the next attempt goes on; 0 to begin again."""
    if fault.kind not in _FAULTS_TO_RESUME_AFTER:
        return skipped_bytes
    sent_bytes = skipped_bytes + fault.received_bytes
    return sent_bytes if sent_bytes >= RESUMED_BYTES_MIN else 0


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
    if failures[-1][1].is_denial:
        return "the server wants to know who asks: see that your credential is valid"
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
