"""Both ways to decompress: the same answer, never more than announced.

The first two bytes are the announced size, the rest is the compressed data.
"""

import zlib

from cvmfsexec.errors import IntegrityError
from cvmfsexec.fetch.inflate import PIECE_BYTES, inflate, new_decoder
from cvmfsexec.format.dirent import Compression

PIECES = 7


def target(data: bytes) -> None:
    size_bytes, stored = int.from_bytes(data[:2], "big"), data[2:]
    whole, parts = _whole(stored, size_bytes), _in_pieces(stored, size_bytes)
    if whole != parts:
        # The one known difference: see inflate about bytes that look like the end.
        assert parts is None
        stream = zlib.decompressobj()
        assert whole == stream.decompress(stored)
        assert stream.eof
        assert stream.unused_data
    assert whole is None or len(whole) == size_bytes


def _whole(stored: bytes, size_bytes: int) -> bytes | None:
    try:
        return bytes(inflate(stored, size_bytes))
    except IntegrityError:
        return None


def _in_pieces(stored: bytes, size_bytes: int) -> bytes | None:
    decoder = new_decoder(Compression.ZLIB, size_bytes, size_bytes)
    content: list[bytes] = []
    step = len(stored) // PIECES + 1
    try:
        for start in range(0, len(stored), step):
            for piece in decoder.decode(stored[start : start + step]):
                assert len(piece) <= PIECE_BYTES
                content.append(piece)
        decoder.finish()
    except IntegrityError:
        return None
    return b"".join(content)
