"""A real HTTP/1.1 server and a forward proxy on loopback, which misbehave on request.

::

    with HttpServer(directory) as server:
        server.misbehave(Status(500), path=".cvmfspublished", times=1)
        ...  # ask server.url
        assert server.count(".cvmfspublished") == 2

The first rule that fits a request applies to it, until its ``times`` are used up.
"""

import contextlib
import http.client
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType, TracebackType
from typing import BinaryIO, NamedTuple, Self
from urllib.parse import unquote, urlsplit

NOTHING: Mapping[str, bytes] = {}

_REASONS = http.client.responses


class Status(NamedTuple):
    """Answer with a status of its own."""

    code: int
    headers: Mapping[str, str] = MappingProxyType({})
    body: bytes = b"<html>an error page</html>"


class CutOff(NamedTuple):
    """Promise the whole body, send some of it, and close."""

    after_bytes: int = 0


class Stall(NamedTuple):
    """Send so many bytes of the body, then nothing; None: not even a status line."""

    after_bytes: int | None = None


class Hold(NamedTuple):
    """Do nothing until a gate opens, then answer as if nothing had been."""

    gate: threading.Event


class Slow(NamedTuple):
    """Send the body bit by bit, ten times a second."""

    bytes_per_s: int


class Corrupt(NamedTuple):
    """Change the last byte of the body."""


class Oversized(NamedTuple):
    """Send more than there is, with a length that fits."""

    extra_bytes: int


class WrongLength(NamedTuple):
    """Promise another number of bytes than there are; close after the last one."""

    extra_bytes: int


class WholeAnyway(NamedTuple):
    """Take no notice of a range."""


class Redirect(NamedTuple):
    """Send elsewhere."""

    location: str
    code: int = 302


class Garbage(NamedTuple):
    """Say something that is not HTTP, and close."""

    raw: bytes = b"SSH-2.0-OpenSSH_9.2\r\n"


Behaviour = (
    Status
    | CutOff
    | Stall
    | Hold
    | Slow
    | Corrupt
    | Oversized
    | WrongLength
    | WholeAnyway
    | Redirect
    | Garbage
)


class RecordedRequest(NamedTuple):
    """A request as it came.

    Attributes:
        target: Path, or the whole URL if the request went to a proxy.
        headers: By name in lower case.
        connection: Number of the connection that it came on.
    """

    target: str
    headers: Mapping[str, str]
    connection: int


@dataclass
class _Rule:
    behaviour: Behaviour
    path: str
    times: int | None


@dataclass
class _Reply:
    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


class HttpServer:
    """Serves a directory, or files given as a mapping from path to content.

    Args:
        source: Directory, or files by path such as ``/data/ab/cd``.
        tls: Speaks https with this context.
        token: Bearer token that it wants to see, if any.
        address: Where on this machine it listens.
    """

    def __init__(
        self,
        source: str | Mapping[str, bytes] = NOTHING,
        tls: ssl.SSLContext | None = None,
        *,
        token: str = "",
        address: str = "127.0.0.1",
    ) -> None:
        self.requests: list[RecordedRequest] = []
        self._source = source
        self._tls = tls
        self._token = token
        self._address = address
        self._rules: list[_Rule] = []
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._connections = 0
        self._port = 0
        self._listener: socket.socket | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Base URL without trailing slash."""
        name = f"[{self._address}]" if ":" in self._address else self._address
        return f"http{'s' if self._tls else ''}://{name}:{self._port}"

    def start(self) -> None:
        """Listen; after ``stop`` on the same port as before."""
        self._stopping.clear()
        is_ipv6 = ":" in self._address
        listener = socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((self._address, self._port))
        listener.listen(64)
        self._listener = listener
        self._port = listener.getsockname()[1]
        self._spawn(self._accept, listener)

    def stop(self) -> None:
        """Close everything at once, as a crash would."""
        with self._lock:
            self._stopping.set()
            sockets = [*self._open, *([self._listener] if self._listener else [])]
            self._listener = None
        for each in sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        self._threads.clear()

    def misbehave(
        self, behaviour: Behaviour, path: str = "", times: int | None = None
    ) -> None:
        """Do this to requests that have ``path`` in them, so many times or always."""
        with self._lock:
            self._rules.append(_Rule(behaviour, path, times))

    def behave(self) -> None:
        """Forget all rules."""
        with self._lock:
            self._rules.clear()

    def count(self, path: str = "") -> int:
        """Return how many requests had ``path`` in them."""
        with self._lock:
            return sum(path in request.target for request in self.requests)

    @property
    def connections(self) -> int:
        """How many connections have been accepted."""
        with self._lock:
            return self._connections

    def reply_to(self, target: str, headers: Mapping[str, str]) -> _Reply:
        """Return the well-behaved reply."""
        if self._token and headers.get("authorization") != f"Bearer {self._token}":
            return _Reply(401, headers={"WWW-Authenticate": "Bearer"})
        path = unquote(urlsplit(target).path, errors="surrogateescape")
        content = self._content(path)
        if content is None:
            return _Reply(404, b"not here")
        if "range" in headers:
            first, last = headers["range"].removeprefix("bytes=").split("-")
            end = int(last) + 1 if last else len(content)
            if int(first) >= len(content):
                return _Reply(416)
            shown = f"bytes {first}-{min(end, len(content)) - 1}/{len(content)}"
            return _Reply(206, content[int(first) : end], {"Content-Range": shown})
        return _Reply(200, content)

    def _content(self, path: str) -> bytes | None:
        if not isinstance(self._source, str):
            return self._source.get(path)
        try:
            with open(os.path.join(self._source, path.lstrip("/")), "rb") as file:
                return file.read()
        except OSError:
            return None

    def _spawn(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        with listener:
            while not self._stopping.is_set():
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with self._lock:
                    self._connections += 1
                    number = self._connections
                self._spawn(self._serve, connection, number)

    def _serve(self, plain: socket.socket, number: int) -> None:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with (
            contextlib.suppress(OSError, ValueError, IndexError),
            contextlib.ExitStack() as stack,
        ):
            connection = stack.enter_context(plain)
            if self._tls:
                connection = self._tls.wrap_socket(plain, server_side=True)
                stack.enter_context(connection)
            stack.callback(self._open.discard, connection)
            with self._lock:
                if self._stopping.is_set():
                    return
                self._open.add(connection)
            stream = stack.enter_context(connection.makefile("rb"))
            for target, headers in _requests(stream):
                with self._lock:
                    self.requests.append(RecordedRequest(target, headers, number))
                    behaviour = self._behaviour_for(target)
                behaviour = self._held(behaviour)
                if behaviour is None and self._takes_over(connection, target):
                    return
                if not self._answer(connection, target, headers, behaviour):
                    return

    def _takes_over(self, connection: socket.socket, target: str) -> bool:  # noqa: ARG002 -- proxies do
        """Do something else with the connection than to answer requests on it."""
        return False

    def _held(self, behaviour: Behaviour | None) -> Behaviour | None:
        if not isinstance(behaviour, Hold):
            return behaviour
        while not behaviour.gate.wait(0.02) and not self._stopping.is_set():
            pass
        return None

    def _behaviour_for(self, target: str) -> Behaviour | None:
        for rule in self._rules:
            if rule.path in target and rule.times != 0:
                if rule.times is not None:
                    rule.times -= 1
                return rule.behaviour
        return None

    def _answer(
        self,
        connection: socket.socket,
        target: str,
        headers: Mapping[str, str],
        behaviour: Behaviour | None,
    ) -> bool:
        """Answer one request; return whether the connection goes on."""
        if isinstance(behaviour, Garbage):
            connection.sendall(behaviour.raw)
            return False
        if isinstance(behaviour, Stall) and behaviour.after_bytes is None:
            self._stopping.wait()
            return False
        reply = _own_reply(behaviour)
        if reply is None:
            if isinstance(behaviour, WholeAnyway):
                headers = {n: v for n, v in headers.items() if n != "range"}
            reply = _changed(self.reply_to(target, headers), behaviour)
        connection.sendall(_head(reply))
        if isinstance(behaviour, CutOff):
            connection.sendall(reply.body[: behaviour.after_bytes])
            return False
        if isinstance(behaviour, Stall):
            connection.sendall(reply.body[: behaviour.after_bytes])
            self._stopping.wait()
            return False
        if isinstance(behaviour, Slow):
            return self._drip(connection, reply.body, behaviour.bytes_per_s)
        connection.sendall(reply.body)
        return not isinstance(behaviour, WrongLength)

    def _drip(self, connection: socket.socket, body: bytes, bytes_per_s: int) -> bool:
        step = max(1, bytes_per_s // 10)
        for start in range(0, len(body), step):
            connection.sendall(body[start : start + step])
            if self._stopping.wait(step / bytes_per_s):
                return False
        return True


class ForwardProxy(HttpServer):
    """A proxy that caches for ever, as squids do with immutable objects.

    Args:
        is_caching: Whether it caches at all.
        credentials: ``user:password`` in base64 that it wants to see, if any.

    Attributes:
        cache: Replies by URL; tests may poison it.
    """

    def __init__(
        self,
        *,
        is_caching: bool = False,
        credentials: str = "",
        address: str = "127.0.0.1",
    ) -> None:
        super().__init__(address=address)
        self.cache: dict[str, _Reply] = {}
        self._is_caching = is_caching
        self._credentials = credentials

    def reply_to(self, target: str, headers: Mapping[str, str]) -> _Reply:
        """Return what the cache has, else what the server says."""
        if self._credentials:
            given = headers.get("proxy-authorization", "")
            if given != f"Basic {self._credentials}":
                return _Reply(407, headers={"Proxy-Authenticate": "Basic realm=x"})
        wants_fresh = "no-cache" in headers.get("cache-control", "")
        if target in self.cache and not wants_fresh:
            return self.cache[target]
        reply = self._ask_server(target, headers)
        if self._is_caching and reply.status == 200:
            self.cache[target] = reply
        return reply

    def _takes_over(self, connection: socket.socket, target: str) -> bool:
        """Tunnel to a server, if that is asked for (``CONNECT``)."""
        if "/" in target:
            return False
        host, _, port = target.rpartition(":")
        try:
            server = socket.create_connection((host.strip("[]"), int(port)), timeout=10)
        except OSError:
            connection.sendall(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")
            return True
        with server:
            connection.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
            self._spawn(_pour, server, connection)
            _pour(connection, server)
        return True

    def _ask_server(self, target: str, headers: Mapping[str, str]) -> _Reply:
        url = urlsplit(target)
        server = http.client.HTTPConnection(url.hostname or "", url.port, timeout=10)
        passed_on = {
            name: value for name, value in headers.items() if name in _PASSED_ON
        }
        try:
            server.request("GET", url.path, headers=passed_on)
            with server.getresponse() as response:
                shown = response.headers.get("Content-Range")
                headers_back = {"Content-Range": shown} if shown else {}
                return _Reply(response.status, response.read(), headers_back)
        except (OSError, http.client.HTTPException) as error:
            mark = {"X-Squid-Error": "ERR_CONNECT_FAIL 111"}
            return _Reply(503, str(error).encode(), mark)
        finally:
            server.close()


_PASSED_ON = frozenset({"range", "cache-control", "pragma", "user-agent"})


def unused_port_url() -> str:
    """Return a URL of loopback where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def _pour(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def _requests(stream: BinaryIO) -> Iterator[tuple[str, Mapping[str, str]]]:
    while line := stream.readline(65536).decode("latin-1").split():
        headers = {}
        while header := stream.readline(65536).decode("latin-1").strip():
            name, _, value = header.partition(":")
            headers[name.lower()] = value.strip()
        yield line[1], headers


def _own_reply(behaviour: Behaviour | None) -> _Reply | None:
    """Return a reply that does not depend on what is asked for."""
    if isinstance(behaviour, Status):
        return _Reply(behaviour.code, behaviour.body, dict(behaviour.headers))
    if isinstance(behaviour, Redirect):
        return _Reply(behaviour.code, b"moved", {"Location": behaviour.location})
    return None


def _changed(reply: _Reply, behaviour: Behaviour | None) -> _Reply:
    if isinstance(behaviour, Corrupt) and reply.body:
        flipped = bytes([reply.body[-1] ^ 1])
        return _Reply(reply.status, reply.body[:-1] + flipped, reply.headers)
    if isinstance(behaviour, Oversized):
        return _Reply(reply.status, reply.body + bytes(behaviour.extra_bytes))
    if isinstance(behaviour, WrongLength):
        promised = {"Content-Length": str(len(reply.body) + behaviour.extra_bytes)}
        return _Reply(reply.status, reply.body, reply.headers | promised)
    return reply


def _head(reply: _Reply) -> bytes:
    lines = [f"HTTP/1.1 {reply.status} {_REASONS.get(reply.status, 'Odd')}"]
    lines += [f"{name}: {value}" for name, value in reply.headers.items()]
    if reply.status not in {204, 304} and "Content-Length" not in reply.headers:
        lines.append(f"Content-Length: {len(reply.body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
