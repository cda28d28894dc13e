"""A server of objects in memory that can lie: tamper, cut off, stall, repeat itself.

It treats bad data as ``HttpClient`` does: the next answer is tried with a new sink,
and the last error is raised when there is none left.
"""

import threading
import zlib
from collections.abc import Callable, Iterable

from cvmfsexec.errors import IntegrityError, TransferError
from cvmfsexec.fetch import ObjectRequest
from cvmfsexec.format.digest import ContentHash, HashAlgorithm, ObjectKind
from cvmfsexec.format.dirent import Compression
from cvmfsexec.network.client import Sink

PIECE_BYTES = 16_384  # what libcurl hands out


class MemorySource:
    """An ``ObjectSource``.

    Attributes:
        requests: Paths that were asked for, in order.
        ranges: The byte range of each of those requests.
        limits: The byte limit of each of those requests.
        gate: Every request waits until this is set; it is, unless a test clears it.
        finishes: Whether sinks are told that an answer is complete.
        asked: Set when a request has come in.
    """

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.ranges: list[tuple[int, int] | None] = []
        self.labels: list[str | None] = []
        self.limits: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self.finishes = True
        self.asked = threading.Event()
        self._answers: dict[str, tuple[bytes | Exception, ...]] = {}

    def publish(
        self,
        content: bytes,
        *,
        kind: ObjectKind = ObjectKind.FILE,
        compression: Compression = Compression.ZLIB,
        algorithm: HashAlgorithm = HashAlgorithm.SHA1,
    ) -> ObjectRequest:
        """Serve an object and return the request for it."""
        stored = zlib.compress(content) if compression is Compression.ZLIB else content
        return self.publish_stored(
            stored,
            size_bytes=len(content),
            kind=kind,
            compression=compression,
            algorithm=algorithm,
        )

    def publish_stored(
        self,
        stored: bytes,
        *,
        size_bytes: int | None,
        kind: ObjectKind = ObjectKind.FILE,
        compression: Compression = Compression.ZLIB,
        algorithm: HashAlgorithm = HashAlgorithm.SHA1,
    ) -> ObjectRequest:
        """Serve stored bytes under their right hash, whatever they are."""
        content_hash = ContentHash.of(stored, algorithm)
        self.answer(content_hash.object_path(kind), stored)
        return ObjectRequest(content_hash, kind, size_bytes, compression, 2**30)

    def answer(self, path: str, *answers: bytes | Exception) -> None:
        """Set what is answered to one request, attempt by attempt."""
        self._answers[path] = answers

    def fetch_object(
        self,
        path: str,
        sink_factory: Callable[[], Sink],
        *,
        limit_bytes: int,
        byte_range: tuple[int, int] | None = None,
        label: Callable[[], str] | None = None,
    ) -> None:
        """See ``ObjectSource``."""
        self.requests.append(path)
        self.labels.append(label and label())
        self.ranges.append(byte_range)
        self.limits.append(limit_bytes)
        self.asked.set()
        assert self.gate.wait(10)
        last: Exception = TransferError(f"404 {path}")
        for answer in self._answers.get(path, ()):
            try:
                self._deliver(answer, byte_range, sink_factory())
            except IntegrityError as error:
                last = error
            else:
                return
        raise last

    def _deliver(
        self,
        answer: bytes | Exception,
        byte_range: tuple[int, int] | None,
        sink: Sink,
    ) -> None:
        if isinstance(answer, Exception):
            raise answer
        if byte_range is not None:
            answer = answer[byte_range[0] : byte_range[1] + 1]
        for piece in pieces_of(answer):
            sink.write(piece)
        if self.finishes:
            sink.finish()


def pieces_of(stored: bytes, size_bytes: int = PIECE_BYTES) -> Iterable[bytes]:
    """Yield stored bytes as a transport hands them out."""
    for start in range(0, len(stored), size_bytes):
        yield stored[start : start + size_bytes]
