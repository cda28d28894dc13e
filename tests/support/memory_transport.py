"""A ``Transport`` without a network: servers are mappings, faults are scripted."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from threading import Lock

from cvmfsexec.errors import ObjectTooLargeError
from cvmfsexec.network.transport import Answer, FaultKind, Request, TransportFault

Script = FaultKind | int | bytes | None
"""A fault, a status, other bytes than the right ones, or nothing special."""

_PIECE_BYTES = 1000


class MemoryTransport:
    """Answers from mappings; keeps what it was asked.

    Args:
        files: Content by whole URL.
        script: What to do to the first requests, one after the other.
        decide: Says what to do to a request once the script is through.

    Attributes:
        files: May be changed at any time.
        requests: What was asked, in order.
    """

    def __init__(
        self,
        files: Mapping[str, bytes] | None = None,
        script: Iterable[Script] = (),
        decide: Callable[[Request], Script] | None = None,
    ) -> None:
        self.files = dict(files or {})
        self.requests: list[Request] = []
        self._script = deque(script)
        self._decide = decide
        self._lock = Lock()

    def get(self, request: Request, sink: Callable[[bytes], object]) -> Answer:
        """Ask once, as ``Transport.get`` says."""
        with self._lock:
            self.requests.append(request)
            event = self._event(request)
        if isinstance(event, FaultKind):
            raise TransportFault(event, "scripted")
        if isinstance(event, int):
            return Answer(event, (b"HTTP/1.1 %d Scripted\r\n" % event,))
        content = self.files.get(request.url) if event is None else event
        if content is None:
            return Answer(404, (b"HTTP/1.1 404 Not Found\r\n",))
        return _send(content, request, sink)

    def _event(self, request: Request) -> Script:
        if self._script:
            return self._script.popleft()
        return self._decide(request) if self._decide else None


def _send(content: bytes, request: Request, sink: Callable[[bytes], object]) -> Answer:
    if request.byte_range is not None:
        first, last = request.byte_range
        content = content[first : last + 1]
    content = content[request.skip_bytes :]
    for start in range(0, len(content), _PIECE_BYTES):
        piece = content[start : start + _PIECE_BYTES]
        if start + len(piece) > request.limit_bytes:
            raise ObjectTooLargeError(f"more than {request.limit_bytes} bytes")
        sink(piece)
    if request.skip_bytes:
        return Answer(206, (b"HTTP/1.1 206 Partial Content\r\n",), len(content))
    return Answer(200, (b"HTTP/1.1 200 OK\r\n",), len(content))
