"""Single files from the web, such as packages: retried, resumed, redirected.

Not for repositories: those have servers and proxies of their own, and every object has
a hash (``client``). Here somebody else has to tell whether the bytes are right.

Nobody is sent from https to http: what a redirect can do is to name another server.
"""

from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urljoin, urlsplit

from cvmfsexec.errors import ObjectTooLargeError, TransferError
from cvmfsexec.network.transport import (
    REDIRECTS_MAX,
    Answer,
    FaultKind,
    Request,
    TransportFault,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO

    from cvmfsexec.network.environment_proxies import EnvironmentProxies
    from cvmfsexec.network.transport import Transport

ATTEMPT_COUNT = 3
_WAITS_S = (1.0, 3.0)  # between the attempts
_REDIRECTIONS = frozenset({301, 302, 303, 307, 308})
_RANGE_NOT_SATISFIABLE = 416
_SCHEMES = ("http", "https")
_LASTING = (
    FaultKind.PROXY_RESOLVE,
    FaultKind.HOST_RESOLVE,
    FaultKind.HOST_CONNECTION,
    FaultKind.OTHER,
)


class Patience(NamedTuple):
    """How a download waits.

    Attributes:
        wait: Called with seconds.
        on_bytes: Called with the number of bytes that have come.
    """

    wait: "Callable[[float], object]"
    on_bytes: "Callable[[int], object]"


class Downloader:
    """Gets files by URL.

    Args:
        transport: Asks; must not follow redirects itself.
        proxies: By which way.
        patience: See there.
    """

    def __init__(
        self,
        transport: "Transport",
        proxies: "EnvironmentProxies",
        patience: Patience,
    ) -> None:
        self._transport = transport
        self._proxies = proxies
        self._patience = patience

    def download(self, url: str, part: "BinaryIO", limit_bytes: int) -> None:
        """Complete a file, which may hold the beginning already.

        Args:
            url: Of ``http`` or ``https``.
            part: Gets the bytes, at its end; what came stays there if this fails.
            limit_bytes: The file may have so many.

        Raises:
            TransferError: It cannot be had. ``routes`` tells of each attempt.
            ObjectTooLargeError: It has more bytes.
        """
        failures: list[str] = []
        for attempt in range(ATTEMPT_COUNT):
            if attempt:
                self._patience.wait(_WAITS_S[attempt - 1])
            try:
                self._attempt(url, part, limit_bytes)
            except TransportFault as fault:
                failures.append(self._told(url, f"{fault.kind.value} ({fault})"))
                is_lasting = fault.kind in _LASTING or _is_silence(fault)
            except _RefusedError as error:
                failures.append(self._told(url, str(error)))
                is_lasting = error.is_lasting
            else:
                return
            if is_lasting:
                break
        raise TransferError(f"cannot download {url}", routes=tuple(failures))

    def _attempt(self, url: str, part: "BinaryIO", limit_bytes: int) -> None:
        import io

        have = part.seek(0, io.SEEK_END)
        answer = self._ask(url, part, limit_bytes, have)
        is_whole_anyway = answer.is_success and answer.status != 206
        if have and (is_whole_anyway or answer.status == _RANGE_NOT_SATISFIABLE):
            # It cannot be continued, or has changed.
            part.seek(0)
            part.truncate()
            answer = self._ask(url, part, limit_bytes, 0)
        if not answer.is_success:
            raise _RefusedError(answer.status)

    def _ask(self, url: str, part: "BinaryIO", limit_bytes: int, skip: int) -> Answer:
        left = limit_bytes - skip
        if left < 0:
            raise ObjectTooLargeError(f"{url} has more than {limit_bytes} bytes")

        def sink(data: bytes) -> None:
            part.write(data)
            part.flush()  # whoever is killed finds it the next time
            self._patience.on_bytes(len(data))

        for _ in range(REDIRECTS_MAX + 1):
            _check(url)
            route = self._proxies.route_to(url)
            answer = self._transport.get(
                Request(url, route, left, skip_bytes=skip), sink
            )
            if answer.status not in _REDIRECTIONS:
                return answer
            url = _target(url, answer)
        raise TransportFault(FaultKind.HOST_CONNECTION, "too many redirects")

    def _told(self, url: str, reason: str) -> str:
        return f"{url} via {self._proxies.route_to(url)}: {reason}"


class _RefusedError(Exception):
    """The server answered, but not with the file."""

    def __init__(self, status: int) -> None:
        super().__init__(f"HTTP status {status}")
        self.is_lasting = 400 <= status < 500 and status not in {408, 429}


def _is_silence(fault: TransportFault) -> bool:
    """Whether a whole timeout brought nothing: a firewall, most likely."""
    return fault.kind is FaultKind.TOO_SLOW and not fault.received_bytes


def _target(url: str, answer: Answer) -> str:
    location = answer.header("Location")
    try:
        target = urljoin(url, location)
        is_downgrade = url.startswith("https:") and urlsplit(target).scheme != "https"
    except ValueError as error:
        raise TransportFault(
            FaultKind.HOST_CONNECTION, f"redirect to {location[:200]}"
        ) from error
    if is_downgrade:
        raise TransportFault(
            FaultKind.HOST_CONNECTION, f"redirect from https to {target[:200]}"
        )
    return target


def is_url(text: str) -> bool:
    """Whether a text is a URL that can be asked for."""
    try:
        parts = urlsplit(text)
        is_complete = parts.scheme in _SCHEMES and bool(parts.hostname)
    except ValueError:
        return False
    return is_complete and text.isascii() and text.isprintable() and " " not in text


def _check(url: str) -> None:
    if not is_url(url):
        raise TransportFault(FaultKind.HOST_CONNECTION, f"no URL: {url[:200]}")
