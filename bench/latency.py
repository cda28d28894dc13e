"""A network that is slow to answer: a TCP proxy that delays all bytes.

``python -m bench.latency PORT SECONDS`` prints the port on which it listens, and hands
each connection on to the given port of loopback. Bytes arrive half a round trip after
they were sent, in both directions, and the first ones a whole round trip later, for
the handshake that a real network would have made. Bandwidth is not limited, and there
is no slow start: what is measured is who waits for whom.

One thread serves all connections. ``epoll`` counts its timeouts in milliseconds, too
coarse here, so its descriptor is awaited by ``select``, which counts microseconds.
"""

import contextlib
import select
import socket
import sys
import time
from collections import deque
from heapq import heappop, heappush
from itertools import count

_RECEIVE_BYTES = 1 << 18
_UNDERWAY_BYTES_MAX = 8 << 20  # in one direction of one connection
_RETRY_S = 0.001  # when the receiver has no room


class _Direction:
    """Bytes of one connection on their way from one socket to the other."""

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self.source = source
        self.sink = sink
        self.underway: deque[bytes] = deque()
        self.underway_bytes = 0
        self.not_before = 0.0
        self.opposite: _Direction
        self.is_read = True
        self.has_end = False
        self.is_ended = False


class DelayingProxy:
    """Hands connections on, late."""

    def __init__(self, target_port: int, round_trip_s: float) -> None:
        """Listen on a free port of loopback.

        Args:
            target_port: Where connections go, on loopback too.
            round_trip_s: From a question to its answer.
        """
        self._target = ("127.0.0.1", target_port)
        self._round_trip_s = round_trip_s
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._poll = select.epoll()
        self._poll.register(self._listener, select.EPOLLIN)
        self._directions: dict[int, _Direction] = {}
        self._due: list[tuple[float, int, _Direction]] = []
        self._order = count()

    @property
    def port(self) -> int:
        """Where it listens."""
        port: int = self._listener.getsockname()[1]
        return port

    def serve(self) -> None:
        """Work until the process is ended."""
        while True:
            self._await()
            for descriptor, _ in self._poll.poll(0):
                if descriptor == self._listener.fileno():
                    self._accept()
                elif descriptor in self._directions:
                    self._receive(self._directions[descriptor])
            while self._due and self._due[0][0] <= time.monotonic():
                self._deliver(heappop(self._due)[2])

    def _await(self) -> None:
        wait_s = max(0.0, self._due[0][0] - time.monotonic()) if self._due else None
        select.select([self._poll], [], [], wait_s)

    def _accept(self) -> None:
        near, _ = self._listener.accept()
        far = socket.create_connection(self._target)
        there, back = _Direction(near, far), _Direction(far, near)
        there.opposite, back.opposite = back, there
        there.not_before = time.monotonic() + self._round_trip_s
        for direction in (there, back):
            source = direction.source
            source.settimeout(0)
            source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._directions[source.fileno()] = direction
            self._poll.register(source, select.EPOLLIN)

    def _receive(self, direction: _Direction) -> None:
        try:
            received = direction.source.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return
        except ConnectionError:
            received = b""
        direction.underway.append(received)
        direction.underway_bytes += len(received)
        direction.has_end = not received
        if direction.has_end or direction.underway_bytes > _UNDERWAY_BYTES_MAX:
            direction.is_read = False
            self._poll.unregister(direction.source)
        sent_s = max(time.monotonic(), direction.not_before)
        self._plan(sent_s + self._round_trip_s / 2, direction)

    def _plan(self, due_s: float, direction: _Direction) -> None:
        heappush(self._due, (due_s, next(self._order), direction))

    def _deliver(self, direction: _Direction) -> None:
        if not direction.underway:  # it was closed meanwhile
            return
        data = direction.underway.popleft()
        if not data:
            self._end(direction)
            return
        try:
            sent = direction.sink.send(data)
        except BlockingIOError:
            sent = 0
        except ConnectionError:
            self._close(direction)
            return
        direction.underway_bytes -= sent
        if not (direction.is_read or direction.has_end):
            direction.is_read = True
            self._poll.register(direction.source, select.EPOLLIN)
        if sent < len(data):
            direction.underway.appendleft(data[sent:])
            self._plan(time.monotonic() + _RETRY_S, direction)

    def _end(self, direction: _Direction) -> None:
        """Tell the receiver that no more will come."""
        direction.is_ended = True
        if direction.opposite.is_ended:
            self._close(direction)
            return
        with contextlib.suppress(OSError):  # it has gone already
            direction.sink.shutdown(socket.SHUT_WR)

    def _close(self, direction: _Direction) -> None:
        for one in (direction, direction.opposite):
            self._directions.pop(one.source.fileno(), None)
            one.source.close()
            one.underway.clear()


def main() -> None:
    """Serve between the port and with the delay of the command line."""
    proxy = DelayingProxy(int(sys.argv[1]), float(sys.argv[2]))
    print(proxy.port, flush=True)
    proxy.serve()


if __name__ == "__main__":
    main()
