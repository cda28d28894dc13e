"""The seam in front of the network: one request in, one answer out.

A transport asks exactly one route, once. It knows nothing of retries, other
servers, or what the bytes should be. Implementations: ``curl_transport`` (HTTP),
``local_transport`` (directories); tests have one in memory. All may be called from
several threads at once and pass ``tests/support/transport_contract.py``.
"""

from enum import Enum
from typing import TYPE_CHECKING, NamedTuple, Protocol

from cvmfsexec.errors import TransferError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cvmfsexec.network.credentials import Credential

REDIRECTS_MAX = 4  # of one request; the original's number
REDIRECTIONS = frozenset({301, 302, 303, 307})  # 308 is not followed there


class FaultKind(Enum):
    """What can go wrong below HTTP, as far as it matters for what to do next."""

    PROXY_RESOLVE = "cannot resolve proxy"
    HOST_RESOLVE = "cannot resolve host"
    CONNECT = "cannot connect"
    TOO_SLOW = "too slow"
    CUT_OFF = "transfer cut short"
    HOST_CONNECTION = "host refuses the connection"
    """TLS that does not verify, endless redirects: the host's doing via any proxy."""
    OTHER = "unknown network error"


class TransportFault(TransferError):  # noqa: N818 -- a fault, not yet an error
    """A request that got no complete answer; never leaves this package.

    Attributes:
        kind: What happened, for the decision.
        received_bytes: Bytes that had gone to the sink before.
    """

    def __init__(self, kind: FaultKind, text: str, received_bytes: int = 0) -> None:
        super().__init__(text)
        self.kind = kind
        self.received_bytes = received_bytes


class Request(NamedTuple):
    """One GET over one route.

    Attributes:
        url: The whole, escaped URL.
        proxy: The proxy's URL, or ``DIRECT``.
        limit_bytes: A body of more bytes than this is refused.
        no_cache: Ask caches on the way to fetch it again.
        byte_range: First and last byte wanted; None for all.
        skip_bytes: Leave out so many bytes at the beginning of the whole. The body of
            an answer that has them nevertheless (200) is not for the sink.
        credential: Who asks; for the server of the URL alone, and only by https.
        headers: Further lines of the request.
    """

    url: str
    proxy: str
    limit_bytes: int
    no_cache: bool = False
    byte_range: tuple[int, int] | None = None
    skip_bytes: int = 0
    credential: "Credential | None" = None
    headers: tuple[str, ...] = ()


class Answer(NamedTuple):
    """What came back.

    Attributes:
        status: HTTP status.
        header_lines: Status line and headers as they came, of the last answer if
            there were several (redirects, tunnels).
        received_bytes: Length of the body that went to the sink.
    """

    status: int
    header_lines: "Sequence[bytes]" = ()
    received_bytes: int = 0

    @property
    def is_success(self) -> bool:
        """Whether the body is what was asked for."""
        return 200 <= self.status < 300

    def header(self, name: str) -> str:
        """Return the last value of a header, or an empty text.

        Looked for only when asked: most answers are never asked.
        """
        wanted = name.lower().encode("ascii")
        for line in reversed(self.header_lines):
            key, colon, value = line.partition(b":")
            if colon and key.strip().lower() == wanted:
                return value.strip().decode("latin-1")
        return ""


class Transport(Protocol):
    """A way to get bytes."""

    def get(self, request: Request, sink: "Callable[[bytes], object]") -> Answer:
        """Ask once and wait for the whole answer.

        Args:
            request: What to ask, and how.
            sink: Called with each piece of the body of a successful (2xx) answer,
                in order, in the calling thread. Bodies of other answers, and of those
                that do not skip what they were asked to skip, are thrown away. What it
                raises ends the transfer and is raised again here.

        Raises:
            TransportFault: No complete answer.
            ObjectTooLargeError: The body has more than ``limit_bytes``; the sink
                got at most that many.
        """
