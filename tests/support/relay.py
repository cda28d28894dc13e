"""A way to a port that a test can make slow: what comes back is metered."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from typing import Self

_PIECE_S = 0.05


class Relay:
    """Passes connections on to a port of this machine.

    Args:
        target_port: Where to.
        listener: Takes the connections; a new one if none is given.

    Attributes:
        port: Where it listens.
        bytes_per_s: How much comes back on each connection; ``None``: no limit.
        answered_bytes: About how much has come back while there was a limit.
    """

    def __init__(self, target_port: int, listener: socket.socket | None = None) -> None:
        self._target_port = target_port
        self._listener = listener or socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.bytes_per_s: int | None = None
        self.answered_bytes = 0
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    @property
    def url(self) -> str:
        """URL of what answers here."""
        return f"http://127.0.0.1:{self.port}"

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._sockets.append(client)
            try:
                target = socket.create_connection(("127.0.0.1", self._target_port))
            except OSError:
                client.close()
                continue
            self._sockets.append(target)
            self._run(self._pump, client, target)
            self._run(self._pump_metered, target, client)

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
        _end(source, sink)

    def _pump_metered(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                while data:
                    data = self._send_some(sink, data)
        _end(source, sink)

    def _send_some(self, sink: socket.socket, data: bytes) -> bytes:
        """Send what the rate allows now; return the rest."""
        if self.bytes_per_s is None:
            sink.sendall(data)
            return b""
        size = max(int(self.bytes_per_s * _PIECE_S), 1)
        sink.sendall(data[:size])
        self.answered_bytes += size
        time.sleep(_PIECE_S)
        return data[size:]

    def _run(self, work: Callable[..., None], *arguments: socket.socket) -> None:
        thread = threading.Thread(target=work, args=arguments)
        self._threads.append(thread)
        thread.start()

    def __enter__(self) -> Self:
        self._run(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self.bytes_per_s = None
        _end(self._listener)
        self._threads[0].join()
        _end(*self._sockets)
        for thread in self._threads[1:]:
            thread.join()
        for one in (self._listener, *self._sockets):
            one.close()


def _end(*sockets: socket.socket) -> None:
    """Let nobody wait for them any more."""
    for one in sockets:
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
