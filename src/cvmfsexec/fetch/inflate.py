"""Decompression that never yields more than was announced.

Two ways, with the same answers:

* :func:`inflate` for bytes in memory whose exact size is known: libdeflate, which is
  1.3 to 4 times as fast as zlib. It needs the size, and does not say what is wrong;
  whatever it does not like, zlib judges.
* :class:`Inflater` for a stream of any length, in pieces of bounded size.

A stream is valid if it ends with its end marker and checksum, and nothing follows.
libdeflate does not say whether something does, so the last bytes are compared with
the checksum. A publisher could append bytes that end like it; the content is the same.

Source: docs/reference/repository-format.md, "Compression, and what the content hash
covers".
"""

import functools
import zlib
from collections.abc import Callable, Iterator
from typing import Protocol

from cvmfsexec.errors import IntegrityError, ObjectTooLargeError
from cvmfsexec.format.dirent import Compression

PIECE_BYTES = 256 * 1024  # what one step of a decompression bomb can cost

_CHECKSUM_BYTES = 4


class Decoder(Protocol):
    """Stored bytes in, content out, piece by piece."""

    def decode(self, stored: bytes) -> Iterator[bytes]:
        """Yield the content of the next stored bytes.

        Raises:
            IntegrityError: The bytes are not valid here.
            ObjectTooLargeError: There is more content than there may be.
        """

    def finish(self) -> None:
        """Learn that there are no more bytes.

        Raises:
            IntegrityError: Something is missing.
        """


def new_decoder(
    compression: Compression, size_bytes: int | None, size_max_bytes: int
) -> Decoder:
    """Return a decoder for one object.

    Args:
        compression: How it is stored.
        size_bytes: Exact size of its content, if known.
        size_max_bytes: The most bytes of content; ``size_bytes`` if that is known.
    """
    if compression is Compression.NONE:
        return Verbatim(size_bytes, size_max_bytes)
    return Inflater(size_bytes, size_max_bytes)


class _Counter:
    """Counts content against what was announced."""

    def __init__(self, size_bytes: int | None, size_max_bytes: int) -> None:
        self._size_bytes = size_bytes
        self._left_bytes = size_max_bytes
        self._size_max_bytes = size_max_bytes

    def _count(self, piece: bytes) -> None:
        self._left_bytes -= len(piece)
        if self._left_bytes < 0:
            raise ObjectTooLargeError(
                f"more than {self._size_max_bytes} bytes of content"
            )

    def _check_size(self) -> None:
        if self._size_bytes is not None and self._left_bytes:
            raise IntegrityError(
                f"{self._size_bytes - self._left_bytes} bytes of content "
                f"instead of {self._size_bytes}"
            )


class Verbatim(_Counter):
    """A decoder of objects that are stored as they are."""

    def decode(self, stored: bytes) -> Iterator[bytes]:
        """See ``Decoder``."""
        self._count(stored)
        yield stored

    def finish(self) -> None:
        """See ``Decoder``."""
        self._check_size()


class Inflater(_Counter):
    """A decoder of zlib streams (RFC 1950)."""

    def __init__(self, size_bytes: int | None, size_max_bytes: int) -> None:
        super().__init__(size_bytes, size_max_bytes)
        self._stream = zlib.decompressobj()

    def decode(self, stored: bytes) -> Iterator[bytes]:
        """See ``Decoder``."""
        while True:
            piece = self._step(stored)
            if piece:
                self._count(piece)
                yield piece
            if len(piece) < PIECE_BYTES:  # zlib holds nothing back
                break
            stored = self._stream.unconsumed_tail
        if self._stream.unused_data:
            raise IntegrityError("bytes after the end of the compressed data")

    def _step(self, stored: bytes) -> bytes:
        try:
            return self._stream.decompress(stored, PIECE_BYTES)
        except zlib.error as error:
            raise IntegrityError(f"cannot decompress: {error}") from error

    def finish(self) -> None:
        """See ``Decoder``."""
        if not self._stream.eof:
            raise IntegrityError("the compressed data is cut off")
        self._check_size()


def inflate(stored: bytes, size_bytes: int) -> bytes | bytearray:
    """Return the content of a whole zlib stream.

    Args:
        stored: All of the stream.
        size_bytes: Exact size of the content; so much memory is taken at once.

    Raises:
        IntegrityError: Not a valid stream, or less content than that.
        ObjectTooLargeError: More content than that.
    """
    fast = _libdeflate()
    # libdeflate's binding takes 0 for "whatever fits into nothing" and succeeds.
    if fast is not None and size_bytes:
        content = fast(stored, size_bytes)
        if content is not None:
            return content
    decoder = Inflater(size_bytes, size_bytes)
    pieces = list(decoder.decode(stored))
    decoder.finish()
    return b"".join(pieces)


@functools.cache
def _libdeflate() -> Callable[[bytes, int], bytearray | None] | None:
    """Return the fast way, or ``None`` where the wheel is missing."""
    try:
        import deflate
    except ImportError:
        return None

    def inflate_fast(stored: bytes, size_bytes: int) -> bytearray | None:
        try:
            content: bytearray = deflate.zlib_decompress(stored, size_bytes)
        except deflate.DeflateError:
            return None
        # The checksum ends the stream; it stands elsewhere if bytes follow.
        checksum = deflate.adler32(content).to_bytes(_CHECKSUM_BYTES, "big")
        if len(content) != size_bytes or stored[-_CHECKSUM_BYTES:] != checksum:
            return None
        return content

    return inflate_fast
