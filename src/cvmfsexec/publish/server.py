"""A static HTTP server for repositories on the local machine.

One thread accepts, one thread per connection answers, so that a slow client holds up
nobody. Clients keep connections that they may never use again; when there are too many,
the one that was silent for longest makes room. Written on sockets and ``sendfile``
because its callers measure clients with it: ``http.server`` takes 0.5 ms of processor
time for a request, this one 0.03 ms.

A missing object is a plain 404: any other answer delays a client's failover. Mutable
documents may be cached for a minute, immutable objects for days, as the original's
web server configuration has it.

Source: docs/reference/publisher-format.md, "Directory skeleton".
"""

import os
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from cvmfsexec.errors import FormatError, PublishError
from cvmfsexec.publish.http_message import (
    END_OF_HEAD,
    HEAD_BYTES_MAX,
    ByteRange,
    Request,
    compose_head,
    format_date,
    parse_request,
)
from cvmfsexec.publish.served_files import OpenFile, ServedFiles

_IDLE_S = 60
_LINGER_S = 1
_LINGER_READS = 64
_CONNECTIONS_MAX = 256  # two descriptors each stay below the usual limit of 1024
_MAKE_ROOM_S = 1
_OUT_OF_MEANS_WAIT_S = 0.1
_ONE_WRITE_BYTES = 64 * 1024  # head and body in one system call up to here
_MUTABLE_MAX_AGE_S = 61
_IMMUTABLE_MAX_AGE_S = 3 * 24 * 3600

Report = Callable[[str], None]


class RepositoryServer:
    """Serves the repositories of a directory below ``/cvmfs/``.

    ``stop`` may be called from any thread. As a context manager it serves in a thread
    of its own.

    Args:
        directory: One repository, or a directory with one repository per fqrn.
        host: Address to listen on.
        port: 0 takes a free one.
        report: Called with one line per answer, from many threads.

    Raises:
        PublishError: No repository, or the address cannot be used.
    """

    def __init__(
        self,
        directory: str,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        report: Report | None = None,
    ) -> None:
        self.files = ServedFiles(directory)
        self._report = report
        self._listener = _listen(host, port)
        self._wake, self._waker = socket.socketpair()
        self._places = threading.BoundedSemaphore(_CONNECTIONS_MAX)
        self._silent = _SilentConnections()
        self._lock = threading.Lock()
        self._connections: dict[socket.socket, threading.Thread] = {}
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """The URL below which each repository is found by its name."""
        host, port = self._listener.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        return f"http://{shown}:{port}/cvmfs"

    def serve(self, until: int | None = None) -> None:
        """Answer until ``stop`` is called, then end all connections.

        Args:
            until: A descriptor: end, too, when there is something to be read.
        """
        import selectors

        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._wake, selectors.EVENT_READ)
            if until is not None:
                selector.register(until, selectors.EVENT_READ)
            while all(key.fileobj is self._listener for key, _ in selector.select()):
                self._accept()
        self._close()

    def stop(self) -> None:
        """Make ``serve`` return soon."""
        try:
            self._waker.send(b"\0")
        except OSError:
            return  # it has ended already

    def __enter__(self) -> "RepositoryServer":
        self._thread = threading.Thread(target=self.serve, name="repository-server")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        if self._thread is not None:
            self._thread.join()

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, ConnectionError):
            return  # the client went away first
        except OSError:
            time.sleep(_OUT_OF_MEANS_WAIT_S)  # until some connection ends
            return
        if not self._take_place():
            connection.close()
            return
        thread = threading.Thread(
            target=self._run, args=(connection,), name="connection", daemon=True
        )
        with self._lock:
            self._connections[connection] = thread
        try:
            thread.start()
        except RuntimeError:  # no more threads
            self._end(connection)
            time.sleep(_OUT_OF_MEANS_WAIT_S)

    def _take_place(self) -> bool:
        if self._places.acquire(blocking=False):
            return True
        return self._silent.end_one() and self._places.acquire(timeout=_MAKE_ROOM_S)

    def _run(self, connection: socket.socket) -> None:
        try:
            _Connection(connection, self.files, self._silent, self._report).run()
        finally:
            self._end(connection)

    def _end(self, connection: socket.socket) -> None:
        with self._lock:
            self._connections.pop(connection, None)
        connection.close()
        self._places.release()

    def _close(self) -> None:
        self._listener.close()
        with self._lock:
            remaining = list(self._connections.items())
        for connection, _ in remaining:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:  # closed by its own thread meanwhile
                continue
        for _, thread in remaining:
            thread.join(timeout=5)
        self._wake.close()
        self._waker.close()


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=128)
    except (OSError, OverflowError) as error:
        raise PublishError(
            f"cannot listen on {host}, port {port}: {error}",
            hint="--port 0 takes any free port",
        ) from error
    listener.settimeout(0)  # the client may be gone again before accept()
    return listener


class _SilentConnections:
    """Connections on which the next request has not begun, the longest silent first.

    Any thread may call.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sockets: dict[socket.socket, None] = {}

    def add(self, connection: socket.socket) -> None:
        with self._lock:
            self._sockets[connection] = None

    def remove(self, connection: socket.socket) -> None:
        with self._lock:
            self._sockets.pop(connection, None)

    def end_one(self) -> bool:
        """Let the first of them end; False if there is none.

        Its client may have begun to speak just now. It then asks again, as for any
        connection that was kept for too long.
        """
        with self._lock:
            connection = next(iter(self._sockets), None)
            if connection is None:
                return False
            del self._sockets[connection]
        with suppress(OSError):  # the client has left meanwhile
            connection.shutdown(socket.SHUT_RDWR)
        return True


class _Connection:
    """One client's connection; all methods run in its thread."""

    def __init__(
        self,
        connection: socket.socket,
        files: ServedFiles,
        silent: _SilentConnections,
        report: Report | None,
    ) -> None:
        self._socket = connection
        self._files = files
        self._silent = silent
        self._report = report
        self._received = b""

    def run(self) -> None:
        try:
            # Times out in the kernel: settimeout() would cost a poll() per call.
            limit = struct.pack("ll", _IDLE_S, 0)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while self._serve_one():
                pass
            self._linger()
        except OSError:
            return  # the client went away, or stayed silent for too long

    def _linger(self) -> None:
        """Wait for the client to close, so that it gets to read the last answer.

        Closing with bytes unread would make the kernel send a reset, and the client's
        kernel then throws away what it has received.
        """
        self._socket.shutdown(socket.SHUT_WR)
        limit = struct.pack("ll", _LINGER_S, 0)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        for _ in range(_LINGER_READS):
            if not self._socket.recv(HEAD_BYTES_MAX):
                break

    def _serve_one(self) -> bool:
        """Answer one request; False ends the connection."""
        head = self._read_head()
        if head is None:
            return False
        try:
            request = parse_request(head)
        except FormatError:
            self._send_error(400, None)
            return False
        if request.method not in ("GET", "HEAD"):
            self._send_error(405, request)
            return False
        try:
            opened = self._files.open(request.path)
        except OSError:
            self._send_error(503, request)
            return False
        if opened is None:
            self._send_error(404, request)
        else:
            try:
                self._send_file(request, opened)
            finally:
                os.close(opened.fd)
        return request.keeps_connection

    def _read_head(self) -> bytes | None:
        if not self._received:
            self._wait_for_request()
        while END_OF_HEAD not in self._received:
            if len(self._received) > HEAD_BYTES_MAX:
                self._send_error(431, None)
                return None
            more = self._socket.recv(HEAD_BYTES_MAX)
            if not more:
                return None
            self._received += more
        head, _, self._received = self._received.partition(END_OF_HEAD)
        return head

    def _wait_for_request(self) -> None:
        self._silent.add(self._socket)
        try:
            self._received = self._socket.recv(HEAD_BYTES_MAX)
        finally:
            self._silent.remove(self._socket)

    def _send_error(self, status: int, request: Request | None) -> None:
        keeps = status == 404 and request is not None and request.keeps_connection
        headers = {"Content-Length": "0", "Cache-Control": "no-store"}
        if status == 405:
            headers["Allow"] = "GET, HEAD"
        self._socket.sendall(compose_head(status, headers, keeps=keeps))
        self._tell(request, status, 0)

    def _send_file(self, request: Request, opened: OpenFile) -> None:
        headers = _headers_of(opened)
        status, part = 200, ByteRange(0, opened.size)
        wanted = request.byte_range(opened.size)
        if request.headers.get("if-none-match") == headers["ETag"]:
            status, part = 304, ByteRange(0, 0)
        elif wanted is not None and wanted.length > 0:
            status, part = 206, wanted
            last = part.start + part.length - 1
            headers["Content-Range"] = f"bytes {part.start}-{last}/{opened.size}"
        elif wanted is not None:
            status, part = 416, ByteRange(0, 0)
            headers["Content-Range"] = f"bytes */{opened.size}"
        if status != 304:
            headers["Content-Length"] = str(part.length)
        head = compose_head(status, headers, keeps=request.keeps_connection)
        if request.method == "HEAD":
            part = ByteRange(0, 0)
        self._send(head, opened.fd, part)
        self._tell(request, status, part.length)

    def _send(self, head: bytes, fd: int, part: ByteRange) -> None:
        if part.length <= _ONE_WRITE_BYTES:
            body = os.pread(fd, part.length, part.start) if part.length else b""
            if len(body) < part.length:
                raise ConnectionAbortedError("the file became shorter")
            self._socket.sendall(head + body)
            return
        self._socket.sendall(head, socket.MSG_MORE)
        at, end = part.start, part.start + part.length
        while at < end:
            sent = os.sendfile(self._socket.fileno(), fd, at, end - at)
            if sent == 0:
                raise ConnectionAbortedError("the file became shorter")
            at += sent

    def _tell(self, request: Request | None, status: int, size: int) -> None:
        if self._report is not None:
            what = f"{request.method} {os.fsdecode(request.path)!r}" if request else "?"
            self._report(f"{what} {status} {size}")


def _headers_of(opened: OpenFile) -> dict[str, str]:
    is_json = opened.name.endswith(b".json")
    is_mutable = is_json or opened.name.startswith(b".")
    age = _MUTABLE_MAX_AGE_S if is_mutable else _IMMUTABLE_MAX_AGE_S
    return {
        "Date": format_date(int(time.time())),
        "Content-Type": "application/json" if is_json else "application/x-cvmfs",
        # Two publications in one second have one Last-Modified, so nothing is
        # decided by it; proxies want one to compute with.
        "Last-Modified": format_date(opened.mtime_ns // 1_000_000_000),
        "ETag": f'"{opened.mtime_ns:x}-{opened.size:x}-{opened.inode:x}"',
        "Cache-Control": f"max-age={age}",
        "Accept-Ranges": "bytes",
    }
