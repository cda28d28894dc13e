"""The delaying proxy of the benchmarks (``bench/latency.py``)."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

PATIENCE_S = 60


@contextmanager
def delayed(target_port: int, round_trip_s: float) -> Iterator[int]:
    """Run the proxy in front of a port, and tell its own."""
    words = [sys.executable, "-m", "bench.latency", str(target_port)]
    with subprocess.Popen(
        [*words, str(round_trip_s)], stdout=subprocess.PIPE, text=True
    ) as proxy:
        try:
            assert proxy.stdout is not None
            yield int(proxy.stdout.readline())
        finally:
            proxy.terminate()


def echo(listener: socket.socket) -> None:
    """Send one connection back what it sends."""
    connection, _ = listener.accept()
    with connection:
        while data := connection.recv(1 << 16):
            connection.sendall(data)


@contextmanager
def echoed(round_trip_s: float) -> Iterator[socket.socket]:
    """Connect by way of the proxy to what answers with what it gets."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=echo, args=(listener,), daemon=True)
        thread.start()
        with (
            delayed(listener.getsockname()[1], round_trip_s) as port,
            socket.create_connection(("127.0.0.1", port), PATIENCE_S) as connection,
        ):
            yield connection
        thread.join(PATIENCE_S)


def read_all(connection: socket.socket) -> bytes:
    """Read until the other side ends."""
    return b"".join(iter(lambda: connection.recv(1 << 16), b""))


def test_answer_takes_a_round_trip_and_the_first_one_two() -> None:
    with echoed(0.05) as connection:
        begin = time.monotonic()
        connection.sendall(b"a")
        assert connection.recv(1) == b"a"
        first = time.monotonic()
        connection.sendall(b"b")
        assert connection.recv(1) == b"b"
        assert first - begin >= 0.09  # the clock starts after connect()
        assert time.monotonic() - first >= 0.05


def test_many_bytes_arrive_whole_and_in_order() -> None:
    content = bytes(range(256)) * 100_000
    with echoed(0.01) as connection:
        sender = threading.Thread(target=lambda: send_and_end(connection, content))
        sender.start()
        assert read_all(connection) == content
        sender.join(PATIENCE_S)


def send_and_end(connection: socket.socket, content: bytes) -> None:
    """Send everything, and that it is everything."""
    connection.sendall(content)
    connection.shutdown(socket.SHUT_WR)
