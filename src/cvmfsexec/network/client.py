"""Bytes from whichever server has them: limits, retries and failover in one call.

Threads: any may call. What they share has locks of its own (``shared_routes``,
``statistics``). Processes: make the client after the fork.
"""

import os
import time
from typing import TYPE_CHECKING, NamedTuple, Protocol

from cvmfsexec import log
from cvmfsexec.errors import IntegrityError
from cvmfsexec.format.proxy_groups import DIRECT, without_credentials
from cvmfsexec.format.url_path import escape_path
from cvmfsexec.network.default_transport import DefaultTransport
from cvmfsexec.network.failure import (
    error_after,
    failure_of_answer,
    failure_of_data,
    failure_of_fault,
)
from cvmfsexec.network.shared_routes import SharedRoutes
from cvmfsexec.network.statistics import (
    RouteFailure,
    TransferAccount,
    TransferStatistics,
)
from cvmfsexec.network.transport import FaultKind, Request, TransportFault

if TYPE_CHECKING:
    from collections.abc import Callable

    from cvmfsexec.network.credentials import Credential
    from cvmfsexec.network.failover import Attempt, RequestFailover, Route
    from cvmfsexec.network.failure import Failure
    from cvmfsexec.network.request_headers import Disclosure, RequestHeaders
    from cvmfsexec.network.resolution import ProxyAddresses
    from cvmfsexec.network.settings import NetworkSettings
    from cvmfsexec.network.transport import Transport

RESUMED_BYTES_MIN = 1 << 17
"""Of a transfer that was cut off earlier, the little that came is asked for again."""

_FAULTS_TO_RESUME_AFTER = frozenset({FaultKind.CUT_OFF, FaultKind.TOO_SLOW})
_PARTIAL_CONTENT = 206
_RANGE_NOT_SATISFIABLE = 416


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
    headers: tuple[str, ...] = ()


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
        randomness: As ``SharedRoutes`` has it.
        addresses: As ``SharedRoutes`` has it.

    Attributes:
        routes: Whom it asks.
        headers: Tells servers who asks; ``None`` if it is not to.

    Raises:
        NoRouteError: There is no server or no proxy.
    """

    def __init__(
        self,
        settings: "NetworkSettings",
        transport: "Transport | None" = None,
        *,
        clock: "Callable[[], float]" = time.monotonic,
        sleep: "Callable[[float], object]" = time.sleep,
        randomness: "Callable[[], float] | None" = None,
        addresses: "ProxyAddresses | None" = None,
    ) -> None:
        self.routes = SharedRoutes(settings, clock, randomness, addresses)
        self._transport = transport or DefaultTransport(settings)
        self._clock = clock
        self._sleep = sleep
        self._account = TransferAccount()
        self._credential: Callable[[], Credential] | None = None
        self._is_stranded = False
        told = settings.disclosure
        self.headers = None if told is None else _request_headers(told)

    def fetch(
        self,
        path: str,
        *,
        limit_bytes: int,
        no_cache: bool = False,
        label: "Callable[[], str] | None" = None,
    ) -> bytes:
        """Return a small document, such as ``.cvmfspublished``.

        Args:
            path: Below a server's base URL, without leading slash.
            limit_bytes: A longer document is refused.
            no_cache: Ask past caches: what they had was not believed.
            label: As ``RequestHeaders.lines`` has it.

        Raises:
            TransferError: No server was reachable, or none had it.
            IntegrityError: The document is too long, wherever it was asked for.
        """
        documents: list[_Document] = []

        def new_document() -> _Document:
            documents.append(_Document())
            return documents[-1]

        wanted = _Wanted(path, limit_bytes, no_cache, headers=self._lines(label))
        self._download(wanted, new_document)
        return b"".join(documents[-1].pieces)

    def fetch_object(
        self,
        path: str,
        sink_factory: "Callable[[], Sink]",
        *,
        limit_bytes: int,
        byte_range: tuple[int, int] | None = None,
        label: "Callable[[], str] | None" = None,
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
            label: As ``RequestHeaders.lines`` has it.

        Raises:
            TransferError: No server was reachable, or none had it.
            IntegrityError: The bytes were wrong wherever they came from.
            CvmfsError: Whatever else a sink raises; it ends the request.
        """
        wanted = _Wanted(
            path,
            limit_bytes,
            byte_range=byte_range,
            can_resume=byte_range is None,
            headers=self._lines(label),
        )
        self._download(wanted, sink_factory)

    def show_credential(self, credential: "Callable[[], Credential]") -> None:
        """Let https servers see who asks, from now on.

        Args:
            credential: Returns it as it is at the moment; what it raises ends a
                request.
        """
        self._credential = credential

    def ask_aside(self, url: str, limit_bytes: int) -> bytes | None:
        """Return what a server says by the active proxy, or None; asks just once.

        Nothing follows from a failure: this is for what we can do without.
        """
        pieces: list[bytes] = []
        try:
            proxy = self.routes.active().proxy
            request = Request(url, proxy, limit_bytes, headers=self._lines())
            answer = self._transport.get(request, pieces.append)
        except (TransportFault, IntegrityError):
            return None
        return b"".join(pieces) if answer.is_success else None

    def first_request(
        self,
        path: str,
        limit_bytes: int,
        label: "Callable[[], str] | None" = None,
    ) -> Request:
        """Return what ``fetch_object`` would ask first, to be asked by other means.

        Whoever asks tells by ``count`` what came of it, and leaves what fails to
        ``fetch_object``.
        """
        host, proxy = self.routes.first(path)
        url = f"{host}/{escape_path(path)}"
        request = Request(url, proxy, limit_bytes, headers=self._lines(label))
        return self._shown_to(host, request)

    def count(self, received_bytes: int, seconds: float) -> None:
        """Take a download by other means into the statistics."""
        self._account.count(received_bytes, seconds)

    def change(self, settings: "NetworkSettings") -> None:
        """Go by other settings from now on; what is under way is not disturbed.

        Raises:
            NoRouteError: There would be no server or no proxy.
        """
        former = self.routes.settings
        self.routes.change(settings)
        if _patience(settings) != _patience(former):
            self._transport = DefaultTransport(settings)

    def hosts(self) -> list[str]:
        """Return the base URLs of all servers, the active one first."""
        return self.routes.hosts()

    def next_host(self) -> bool:
        """Make the next server active: what this one says is not believed.

        Returns:
            Whether there is another one.
        """
        return self.routes.leave_host()

    @property
    def statistics(self) -> TransferStatistics:
        """Sums since the client was made."""
        return self._account.sums

    def failures(self) -> tuple[RouteFailure, ...]:
        """Return the last failed attempts, the oldest first."""
        return self._account.failures()

    def _lines(self, label: "Callable[[], str] | None" = None) -> tuple[str, ...]:
        return () if self.headers is None else self.headers.lines(label)

    def _download(self, wanted: _Wanted, sink_factory: "Callable[[], Sink]") -> None:
        """Ask routes until one brings what the sink accepts."""
        failover = self.routes.start(wanted.path, no_cache=wanted.no_cache)
        try:
            self._ask_routes(failover, wanted, sink_factory)
        finally:
            self.routes.end(failover)

    def _ask_routes(
        self,
        failover: "RequestFailover",
        wanted: _Wanted,
        sink_factory: "Callable[[], Sink]",
    ) -> None:
        url_path = "/" + escape_path(wanted.path)
        attempt: Attempt | None = failover.attempt
        failures: list[tuple[str, Failure]] = []
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
            failures.append((attempt.route.shown, outcome.failure))
            attempt = self._after(failover, outcome.failure)
        raise error_after(wanted.path, failures)

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
            headers=wanted.headers,
        )
        return self._shown_to(host, request)

    def _shown_to(self, host: str, request: Request) -> Request:
        """Return a request that shows who asks, if the server is to see it."""
        if self._credential is not None and host.startswith("https:"):
            return request._replace(credential=self._credential())
        return request

    def _ask(
        self, request: Request, sink: Sink, failover: "RequestFailover"
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
        seconds = self._clock() - started_s
        if failure is None:
            self._account.count(received_bytes, seconds)
            self._is_stranded = False
            self.routes.succeeded(failover)
            return None
        shown = _route_failure(failover.attempt.route, failure)
        self._account.count(received_bytes, seconds, shown)
        return _Outcome(failure, sent_bytes)

    def _after(
        self, failover: "RequestFailover", failure: "Failure"
    ) -> "Attempt | None":
        """Decide what follows a failure, tell the log, and wait if need be."""
        failed = f"{failover.attempt.route.shown}: {failure.text}"
        attempt = self.routes.after(failover, failure)
        if attempt is None:
            return None
        log.info("%s; next: %s", failed, attempt.route.shown)
        settings = self.routes.settings
        if settings.failover.is_indefinite and _is_interrupted(settings):
            return None
        if attempt.is_new_round and not self._is_stranded:
            self._is_stranded = True
            log.warning(
                "%s: all routes have failed; they are tried again and again until %s "
                "exists",
                failed,
                settings.interrupt_file,
            )
        if not attempt.wait_s:
            return attempt
        self._sleep(attempt.wait_s)
        return self.routes.awake(failover)


class _Document:
    """A sink that keeps everything and doubts nothing."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.write = self.pieces.append

    def finish(self) -> None:
        """Accept."""


def _request_headers(told: "Disclosure") -> "RequestHeaders":
    from cvmfsexec.network.request_headers import RequestHeaders

    return RequestHeaders(told)


def _route_failure(route: "Route", failure: "Failure") -> RouteFailure:
    return RouteFailure(
        time.time(),
        without_credentials(route.host),
        without_credentials(route.proxy),
        failure.text,
    )


def _is_interrupted(settings: "NetworkSettings") -> bool:
    """Whether somebody wants endless failover to end; takes notice once."""
    try:
        os.unlink(settings.interrupt_file)
    except OSError:
        return False
    return True


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
