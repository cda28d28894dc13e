"""HTTP by libcurl, with few Python calls per request.

Connections are kept alive in handles that are used again, the last used first, so
that a single reader stays on one connection and many readers have at most
``connections_max``, by any one proxy and by all together. An option of a handle is
set when it changes, and the answer's headers are collected by C code: 60 µs of CPU a
request was the point of choosing libcurl (docs/adr).

Threads: any may call; a handle belongs to one call at a time. Processes: make the
transport after the fork.

libcurl reads proxies from the environment unless told otherwise, so each handle is
told: only configured routes are used.

Redirects are followed here, not by libcurl, which must not take a credential along.

A transfer that nobody waits for any more (``cvmfsexec.callers``) is ended by shutting
its connections down. libcurl would ask us regularly whether to go on, but that is eight
calls from C for a small object: with 16 threads it took three times the CPU.
"""

import os
import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from cvmfsexec import callers
from cvmfsexec.errors import ObjectTooLargeError
from cvmfsexec.format.proxy_groups import DIRECT
from cvmfsexec.network import libcurl
from cvmfsexec.network.transport import (
    REDIRECTIONS,
    REDIRECTS_MAX,
    Answer,
    FaultKind,
    TransportFault,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from cvmfsexec.network.credentials import Credential
    from cvmfsexec.network.settings import NetworkSettings
    from cvmfsexec.network.transport import Request

_BUFFER_BYTES = 1 << 17  # 500 MiB in 0.18 s of CPU; 0.28 s with the usual 16 KiB
_ERROR_PAGE_BYTES_MAX = 1 << 16
"""Read so much of an unwanted body to keep the connection; then drop both."""
_IDLE_CONNECTIONS_MAX = 2  # of a handle: server, and where it redirects to
_SOCKETS_NOTED_MAX = 8  # those, and all addresses that are tried at once
_NO_CACHE = ["Pragma: no-cache", "Cache-Control: no-cache"]
_PARTIAL_CONTENT = 206
_E_PROXY = 97  # CURLE_PROXY, a failed handshake; pycurl does not name it
_E_TOO_LARGE = 100  # CURLE_TOO_LARGE, headers without end

_FAULT_NAMES = {
    FaultKind.PROXY_RESOLVE: ("E_COULDNT_RESOLVE_PROXY",),
    FaultKind.HOST_RESOLVE: ("E_COULDNT_RESOLVE_HOST",),
    FaultKind.CONNECT: ("E_COULDNT_CONNECT",),
    FaultKind.TOO_SLOW: ("E_OPERATION_TIMEDOUT",),
    FaultKind.CUT_OFF: (
        "E_PARTIAL_FILE",
        "E_GOT_NOTHING",
        "E_RECV_ERROR",
        "E_SEND_ERROR",
        # What a machine says that speaks something else than HTTP/1.
        "E_UNSUPPORTED_PROTOCOL",
        "E_FTP_WEIRD_SERVER_REPLY",
        "E_BAD_CONTENT_ENCODING",
    ),
    FaultKind.HOST_CONNECTION: (
        "E_SSL_CONNECT_ERROR",
        "E_PEER_FAILED_VERIFICATION",
        "E_SSL_CACERT",
        "E_SSL_CACERT_BADFILE",
        "E_SSL_ISSUER_ERROR",
        "E_SSL_CIPHER",
        "E_URL_MALFORMAT",  # where a redirect leads; ours were checked
        "E_SSL_CERTPROBLEM",  # the credential that we show
    ),
}


class CurlTransport:
    """A ``Transport`` for ``http`` and ``https``.

    Args:
        settings: Timeouts, redirects, authorities, number of connections.
    """

    def __init__(self, settings: "NetworkSettings") -> None:
        self._settings = settings
        self._slots = threading.Semaphore(settings.connections_max)
        self._idle: dict[str, list[CurlHandle]] = {}

    def get(self, request: "Request", sink: "Callable[[bytes], object]") -> Answer:
        """Ask once, as ``Transport.get`` says."""
        self._take_slot()
        try:
            # Each proxy has handles of its own, so that to change the proxy, which
            # sharding does all the time, is not to change connections.
            idle = self._idle.get(request.proxy)
            if idle is None:
                idle = self._idle.setdefault(request.proxy, [])
            try:
                handle = idle.pop()
            except IndexError:
                handle = CurlHandle(self._settings, request.proxy)
            try:
                return _get(handle, request, sink)
            finally:
                idle.append(handle)
        finally:
            self._slots.release()

    def _take_slot(self) -> None:
        while not self._slots.acquire(timeout=callers.LOOK_S):
            if callers.is_lost():
                raise callers.CannotWait

    def close(self) -> None:
        """Close idle connections; a later request opens new ones."""
        for idle in tuple(self._idle.values()):
            while idle:
                idle.pop().close()


class CurlHandle:
    """One easy handle of libcurl and the state of its current transfer.

    Whoever drives it calls ``begin``, lets libcurl transfer, and calls ``end``; again,
    if that says so.

    Attributes:
        curl: The handle.
    """

    def __init__(self, settings: "NetworkSettings", proxy: str) -> None:
        self._pycurl = libcurl.load()
        self._faults = _fault_kinds(self._pycurl)
        self._settings = settings
        self._header_lines: list[bytes] = []
        self._no_cache = False
        self._credential: Credential | None = None
        self._headers: tuple[str, ...] = ()
        self._byte_range: tuple[int, int] | None = None
        self._skip_bytes = 0
        self._redirects_left = 0
        self._url = ""
        self._sink: Callable[[bytes], object] = _ignore
        self._received_bytes = 0
        self._sockets: deque[tuple[int, int]] = deque(maxlen=_SOCKETS_NOTED_MAX)
        self._reset(0, _ignore)
        self.curl = self._new_curl()
        self._use_proxy(proxy)

    def get(self, request: "Request", sink: "Callable[[bytes], object]") -> Answer:
        """Transfer in the calling thread."""
        self.begin(request, sink)
        answer = None
        while answer is None:
            try:
                self.curl.perform()
            except self._pycurl.error as error:
                answer = self.end(*error.args[:2])
            else:
                answer = self.end()
        return answer

    def begin(self, request: "Request", sink: "Callable[[bytes], object]") -> None:
        """Set what to transfer."""
        self._prepare(request)
        self._redirects_left = REDIRECTS_MAX
        self._reset(request.limit_bytes, sink)
        self._url = request.url
        self.curl.setopt(self._pycurl.URL, request.url)

    def end(self, code: int = 0, text: str = "") -> Answer | None:
        """Return the answer of a transfer that is over; ``None`` to transfer again.

        Args:
            code: What libcurl says, 0 for success.
            text: What it says about it.

        Raises:
            TransportFault: As ``Transport.get`` says; also what the sink raised.
        """
        sink, self._sink = self._sink, _ignore
        if code:
            self._raise_unless_enough(code, text)
        status = self.curl.getinfo(self._pycurl.RESPONSE_CODE)
        if status in REDIRECTIONS and self._settings.follows_redirects:
            self._redirect(sink)
            return None
        received = self._received_bytes if self._is_wanted else 0
        return Answer(status, tuple(self._header_lines), received)

    def cut(self) -> None:
        """Let nothing come any more on the connections that it has now.

        Any thread may call that knows the transfer to be the one it means.
        """
        for descriptor, inode in tuple(self._sockets):
            with suppress(OSError):
                _shut_down(descriptor, inode)

    def close(self) -> None:
        """Let go of its connections."""
        self.curl.close()

    def _new_curl(self) -> Any:  # noqa: ANN401 -- pycurl has no type hints
        pycurl, settings = self._pycurl, self._settings
        curl = pycurl.Curl()
        curl.setopt(pycurl.NOSIGNAL, 1)
        curl.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
        curl.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
        curl.setopt(pycurl.USERAGENT, settings.user_agent)
        curl.setopt(pycurl.NOPROXY, "")
        curl.setopt(pycurl.MAXCONNECTS, _IDLE_CONNECTIONS_MAX)
        curl.setopt(pycurl.BUFFERSIZE, _BUFFER_BYTES)
        curl.setopt(pycurl.LOW_SPEED_LIMIT, settings.low_speed_limit)
        if settings.is_ipv4_only:
            curl.setopt(pycurl.IPRESOLVE, pycurl.IPRESOLVE_V4)
        if settings.authorities.bundle:
            curl.setopt(pycurl.CAINFO, settings.authorities.bundle)
        if settings.authorities.directory:
            curl.setopt(pycurl.CAPATH, settings.authorities.directory)
        curl.setopt(pycurl.HEADERFUNCTION, self._header_lines.append)
        curl.setopt(pycurl.WRITEFUNCTION, self._receive)
        curl.setopt(pycurl.SOCKOPTFUNCTION, self._note_socket)
        return curl

    def _prepare(self, request: "Request") -> None:
        """Set what differs from the last request of this handle."""
        if (
            request.no_cache is not self._no_cache
            or request.credential is not self._credential
            or request.headers != self._headers
        ):
            self._headers = request.headers
            self._use_headers(request.credential, no_cache=request.no_cache)
        if (
            request.byte_range != self._byte_range
            or request.skip_bytes != self._skip_bytes
        ):
            self._use_range(request.byte_range, request.skip_bytes)

    def _use_proxy(self, proxy: str) -> None:
        pycurl, curl, settings = self._pycurl, self.curl, self._settings
        is_direct = proxy == DIRECT
        timeout_s = settings.timeout_direct_s if is_direct else settings.timeout_s
        # An empty text, unlike none, also keeps libcurl from asking the environment.
        curl.setopt(pycurl.PROXY, "" if is_direct else proxy)
        curl.setopt(pycurl.CONNECTTIMEOUT, timeout_s)
        curl.setopt(pycurl.LOW_SPEED_TIME, timeout_s)

    def _use_headers(self, credential: "Credential | None", *, no_cache: bool) -> None:
        pycurl, curl = self._pycurl, self.curl
        headers = [*_NO_CACHE, *self._headers] if no_cache else [*self._headers]
        if credential is not None and credential.bearer_token:
            headers.append(f"Authorization: Bearer {credential.bearer_token}")
        if headers:
            curl.setopt(pycurl.HTTPHEADER, headers)
        else:
            curl.unsetopt(pycurl.HTTPHEADER)  # an empty list is ignored
        if credential is not None and credential.certificate:
            curl.setopt(pycurl.SSLCERT_BLOB, credential.certificate)
            curl.setopt(pycurl.SSLKEY_BLOB, credential.certificate)
        elif self._credential is not None and self._credential.certificate:
            curl.unsetopt(pycurl.SSLCERT_BLOB)
            curl.unsetopt(pycurl.SSLKEY_BLOB)
        self._no_cache, self._credential = no_cache, credential

    def _use_range(self, byte_range: tuple[int, int] | None, skip_bytes: int) -> None:
        if byte_range is not None:
            self.curl.setopt(self._pycurl.RANGE, f"{byte_range[0]}-{byte_range[1]}")
        elif skip_bytes:
            self.curl.setopt(self._pycurl.RANGE, f"{skip_bytes}-")
        else:
            self.curl.unsetopt(self._pycurl.RANGE)
        self._byte_range, self._skip_bytes = byte_range, skip_bytes

    def _reset(self, limit_bytes: int, sink: "Callable[[bytes], object]") -> None:
        self._header_lines.clear()
        self._sink = sink
        self._limit_bytes = limit_bytes
        self._received_bytes = 0
        self._is_wanted: bool | None = None
        self._stopped_by: BaseException | None = None

    def _note_socket(self, descriptor: int, _purpose: int) -> int:
        """Take note of a new connection; called by libcurl, before it connects."""
        if callers.is_lost():
            return int(self._pycurl.SOCKOPT_ERROR)
        with suppress(OSError):
            self._sockets.append((descriptor, os.fstat(descriptor).st_ino))
        return int(self._pycurl.SOCKOPT_OK)

    def _receive(self, data: bytes) -> int | None:
        """Take a piece of a body; called by libcurl, which -1 stops.

        Exceptions must not pass through C code: they are kept for ``end``.
        """
        self._received_bytes += len(data)
        if self._is_wanted is None:
            status = _status(self._header_lines)
            self._is_wanted = 200 <= status < 300 and (
                not self._skip_bytes or status == _PARTIAL_CONTENT
            )
        if not self._is_wanted:
            return -1 if self._received_bytes > _ERROR_PAGE_BYTES_MAX else None
        try:
            if self._received_bytes > self._limit_bytes:
                raise ObjectTooLargeError(  # noqa: TRY301 -- for ``end``, see above
                    f"the answer has more than {self._limit_bytes} bytes"
                )
            self._sink(data)
        except BaseException as error:  # noqa: BLE001 -- raised again by ``end``
            self._stopped_by = error
            return -1
        return None

    def _raise_unless_enough(self, code: int, text: str) -> None:
        """Translate an error of libcurl, unless we stopped it at an error page."""
        stopped_by, self._stopped_by = self._stopped_by, None
        if stopped_by is not None:
            raise stopped_by from None
        if code == self._pycurl.E_WRITE_ERROR and self._is_wanted is False:
            return
        received = self._received_bytes if self._is_wanted else 0
        raise TransportFault(self._faults.get(code, FaultKind.OTHER), text, received)

    def _redirect(self, sink: "Callable[[bytes], object]") -> None:
        raw = self.curl.getinfo_raw(self._pycurl.REDIRECT_URL) or b""
        target = raw.decode("ascii", "replace")
        if not target.isascii() or not target.lower().startswith(
            ("http://", "https://")
        ):
            raise TransportFault(FaultKind.HOST_CONNECTION, "redirect to nowhere")
        if not self._redirects_left:
            raise TransportFault(FaultKind.HOST_CONNECTION, "too many redirects")
        self._redirects_left -= 1
        if _origin(target) != _origin(self._url):
            # Who asks is for the server alone that we wanted to ask.
            self._use_headers(None, no_cache=self._no_cache)
        self._reset(self._limit_bytes, sink)
        self.curl.setopt(self._pycurl.URL, target)


def _get(
    handle: CurlHandle, request: "Request", sink: "Callable[[bytes], object]"
) -> Answer:
    caller = callers.current()
    if caller is None:
        return handle.get(request, sink)
    try:
        with caller.ended_by(handle.cut):
            return handle.get(request, sink)
    except TransportFault:
        if caller.is_lost:
            raise callers.CannotWait from None
        raise


def _shut_down(descriptor: int, inode: int) -> None:
    """End a connection, unless its descriptor stands for something else by now."""
    import socket

    copy = os.dup(descriptor)  # which nobody can close meanwhile
    if os.fstat(copy).st_ino != inode:
        os.close(copy)
        return
    with socket.socket(fileno=copy) as connection:
        connection.shutdown(socket.SHUT_RDWR)


def _ignore(data: bytes) -> None:
    """Drop what comes without a transfer."""


def _status(header_lines: list[bytes]) -> int:
    """Read the status of the last status line, ``HTTP/1.1 200 OK``; 0 if unreadable."""
    for line in reversed(header_lines):
        if line.startswith(b"HTTP/"):
            digits = line.partition(b" ")[2][:3]
            return int(digits) if digits.isdigit() else 0
    return 0


def _origin(url: str) -> tuple[str, str]:
    """Return scheme and authority of a URL; another one is another server."""
    scheme, _, rest = url.partition("://")
    authority = rest.partition("/")[0].partition("?")[0].partition("#")[0]
    return scheme.lower(), authority.lower()


def _fault_kinds(pycurl: Any) -> dict[int, FaultKind]:  # noqa: ANN401
    kinds = {
        getattr(pycurl, name): kind
        for kind, names in _FAULT_NAMES.items()
        for name in names
        if hasattr(pycurl, name)
    }
    return {**kinds, _E_PROXY: FaultKind.CONNECT, _E_TOO_LARGE: FaultKind.CUT_OFF}
