"""What every ``Transport`` promises, as one suite for all of them.

A test module subclasses ``TransportContract`` and says with ``serve`` how files come
to be reachable; ``tests/unit/network/test_transports.py`` has one for each.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest

from cvmfsexec.errors import CacheError, IntegrityError, ObjectTooLargeError
from cvmfsexec.format.proxy_groups import DIRECT
from cvmfsexec.network.transport import Request, Transport
from tests.support.http_server import HttpServer

SMALL = b"a small object"
LARGE = bytes(range(256)) * 4096  # 1 MiB, so several pieces in any transport
FILES = {"/data/small": SMALL, "/data/large": LARGE, "/data/empty": b""}

Serve = Callable[[Mapping[str, bytes]], tuple[Transport, str]]


@contextmanager
def served_over_http(new_transport: Callable[[], Transport]) -> Iterator[Serve]:
    """Return what serves files over HTTP, for transports made by ``new_transport``."""
    with ExitStack() as servers:

        def serve(files: Mapping[str, bytes]) -> tuple[Transport, str]:
            server = servers.enter_context(HttpServer(files))
            return new_transport(), server.url

        yield serve


class TransportContract:
    """The promises; ``serve`` returns a transport and the base URL of the files."""

    @pytest.fixture
    @abstractmethod
    def serve(self) -> Serve:
        """Make files reachable; paths begin with a slash."""

    def test_brings_the_whole_body(self, serve: Serve) -> None:
        transport, base = serve(FILES)
        pieces: list[bytes] = []
        answer = transport.get(request(base + "/data/large"), pieces.append)
        assert b"".join(pieces) == LARGE
        assert answer.is_success
        assert answer.received_bytes == len(LARGE)

    def test_empty_body_is_a_success(self, serve: Serve) -> None:
        transport, base = serve(FILES)
        answer = transport.get(request(base + "/data/empty"), unexpected)
        assert answer.is_success
        assert answer.received_bytes == 0

    def test_absent_object_is_a_404_and_nothing_for_the_sink(
        self, serve: Serve
    ) -> None:
        transport, base = serve(FILES)
        answer = transport.get(request(base + "/data/absent"), unexpected)
        assert answer.status == 404
        assert answer.received_bytes == 0

    def test_body_as_long_as_the_limit_is_accepted(self, serve: Serve) -> None:
        transport, base = serve(FILES)
        pieces: list[bytes] = []
        transport.get(request(base + "/data/small", len(SMALL)), pieces.append)
        assert b"".join(pieces) == SMALL

    @pytest.mark.parametrize("limit_bytes", [0, 1, len(SMALL) - 1])
    def test_longer_body_is_refused(self, serve: Serve, limit_bytes: int) -> None:
        transport, base = serve(FILES)
        pieces: list[bytes] = []
        with pytest.raises(ObjectTooLargeError):
            transport.get(request(base + "/data/small", limit_bytes), pieces.append)
        assert sum(map(len, pieces)) <= limit_bytes

    @pytest.mark.parametrize("kind", [IntegrityError, CacheError, ZeroDivisionError])
    def test_exception_of_the_sink_comes_back(
        self, serve: Serve, kind: type[Exception]
    ) -> None:
        transport, base = serve(FILES)
        raised = kind("by the sink")

        def failing(_: bytes) -> None:
            raise raised

        with pytest.raises(kind) as caught:
            transport.get(request(base + "/data/large"), failing)
        assert caught.value is raised

    def test_goes_on_after_an_exception(self, serve: Serve) -> None:
        transport, base = serve(FILES)
        with pytest.raises(ObjectTooLargeError):
            transport.get(request(base + "/data/large", 1), ignore)
        pieces: list[bytes] = []
        transport.get(request(base + "/data/small"), pieces.append)
        assert b"".join(pieces) == SMALL

    @pytest.mark.parametrize(
        "byte_range", [(0, 0), (0, 999), (1000, 99_999), (len(LARGE) - 5, len(LARGE))]
    )
    def test_brings_a_range(self, serve: Serve, byte_range: tuple[int, int]) -> None:
        transport, base = serve(FILES)
        pieces: list[bytes] = []
        wanted = request(base + "/data/large")._replace(byte_range=byte_range)
        assert transport.get(wanted, pieces.append).is_success
        assert b"".join(pieces) == LARGE[byte_range[0] : byte_range[1] + 1]
        pieces.clear()
        transport.get(request(base + "/data/small"), pieces.append)
        assert b"".join(pieces) == SMALL

    @pytest.mark.parametrize("skip_bytes", [1, 1000, len(LARGE) - 1])
    def test_skips_what_is_there_already(self, serve: Serve, skip_bytes: int) -> None:
        transport, base = serve(FILES)
        pieces: list[bytes] = []
        wanted = request(base + "/data/large")._replace(skip_bytes=skip_bytes)
        answer = transport.get(wanted, pieces.append)
        assert answer.status == 206
        assert b"".join(pieces) == LARGE[skip_bytes:]
        assert answer.received_bytes == len(LARGE) - skip_bytes
        pieces.clear()
        transport.get(request(base + "/data/small"), pieces.append)
        assert b"".join(pieces) == SMALL

    def test_serves_many_threads(self, serve: Serve) -> None:
        transport, base = serve(FILES)

        def ask(number: int) -> bytes:
            pieces: list[bytes] = []
            path = "/data/large" if number % 5 == 0 else "/data/small"
            transport.get(request(base + path), pieces.append)
            return b"".join(pieces)

        with ThreadPoolExecutor(24) as pool:
            bodies = list(pool.map(ask, range(100)))
        assert bodies == [LARGE if n % 5 == 0 else SMALL for n in range(100)]


def request(url: str, limit_bytes: int = 1 << 30) -> Request:
    """Ask directly, with a limit that does not matter unless given."""
    return Request(url, DIRECT, limit_bytes)


def ignore(_: bytes) -> None:
    """Take a piece."""


def unexpected(_: bytes) -> None:
    """Take no piece at all."""
    raise AssertionError("the sink got a piece of an answer that has none")
