import sys
import zlib
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.errors import IntegrityError, ObjectTooLargeError
from cvmfsexec.fetch import inflate as inflate_module
from cvmfsexec.fetch.inflate import PIECE_BYTES, inflate, new_decoder
from cvmfsexec.format.dirent import Compression
from tests.support.memory_source import pieces_of

EMPTY = bytes.fromhex("789c030000000001")
TEXT = b"".join(b"line %d\n" % number for number in range(3000))

Decode = Callable[[bytes, int], bytes]


def inflate_in_pieces(stored: bytes, size_bytes: int, piece_bytes: int = 100) -> bytes:
    decoder = new_decoder(Compression.ZLIB, size_bytes, size_bytes)
    content = b"".join(
        part
        for piece in pieces_of(stored, piece_bytes)
        for part in decoder.decode(piece)
    )
    decoder.finish()
    return content


@pytest.fixture
def _no_libdeflate(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "deflate", None)
    inflate_module._libdeflate.cache_clear()
    yield
    inflate_module._libdeflate.cache_clear()


@pytest.fixture(params=["libdeflate", "without libdeflate", "in pieces"])
def decode(request: pytest.FixtureRequest) -> Decode:
    if request.param == "in pieces":
        return inflate_in_pieces
    if request.param == "without libdeflate":
        request.getfixturevalue("_no_libdeflate")
    return lambda stored, size_bytes: bytes(inflate(stored, size_bytes))


@pytest.mark.parametrize("level", [0, 1, 6, 9])
@pytest.mark.parametrize("content", [TEXT, b"x", bytes(PIECE_BYTES * 2)])
def test_content_comes_back(decode: Decode, content: bytes, level: int) -> None:
    assert decode(zlib.compress(content, level), len(content)) == content


def test_the_empty_file_comes_back(decode: Decode) -> None:
    assert zlib.compress(b"") == EMPTY
    assert decode(EMPTY, 0) == b""


@pytest.mark.parametrize(
    "stored",
    [
        b"",
        b"no zlib stream",
        zlib.compress(TEXT)[:-1],
        zlib.compress(TEXT)[:-5],
        zlib.compress(TEXT)[:1000],
        zlib.compress(TEXT)[:-4] + b"\0\0\0\0",
        zlib.compress(TEXT) + b"\0",
        zlib.compress(TEXT) + zlib.compress(b"more"),
        zlib.compress(TEXT)[2:-4],
        zlib.compress(TEXT)[:500] + b"\xff" * 40 + zlib.compress(TEXT)[540:],
    ],
    ids=[
        "nothing",
        "text",
        "last byte missing",
        "checksum missing",
        "half",
        "wrong checksum",
        "one byte too many",
        "two streams",
        "raw deflate",
        "damaged inside",
    ],
)
def test_what_is_no_single_whole_stream_is_refused(
    decode: Decode, stored: bytes
) -> None:
    with pytest.raises(IntegrityError):
        decode(stored, len(TEXT))


def test_a_preset_dictionary_is_refused(decode: Decode) -> None:
    compressor = zlib.compressobj(zdict=b"line ")
    stored = compressor.compress(TEXT) + compressor.flush()
    with pytest.raises(IntegrityError, match="cannot decompress"):
        decode(stored, len(TEXT))


@pytest.mark.parametrize("size_bytes", [0, 1, len(TEXT) - 1])
def test_more_content_than_announced_is_refused(
    decode: Decode, size_bytes: int
) -> None:
    with pytest.raises(ObjectTooLargeError):
        decode(zlib.compress(TEXT), size_bytes)


@pytest.mark.parametrize("size_bytes", [len(TEXT) + 1, 10 * len(TEXT)])
def test_less_content_than_announced_is_refused(
    decode: Decode, size_bytes: int
) -> None:
    with pytest.raises(IntegrityError, match="instead of"):
        decode(zlib.compress(TEXT), size_bytes)


@pytest.mark.parametrize("over", [-1, 0, 1])
def test_content_around_the_size_of_a_piece(decode: Decode, over: int) -> None:
    content = bytes(2 * PIECE_BYTES + over)
    assert decode(zlib.compress(content), len(content)) == content


def test_a_bomb_costs_one_piece_of_memory() -> None:
    bomb = zlib.compress(bytes(100 * 1024 * 1024), 9)
    decoder = new_decoder(Compression.ZLIB, None, 1000)
    parts = decoder.decode(bomb)
    with pytest.raises(ObjectTooLargeError, match="more than 1000 bytes"):
        next(parts)


def test_content_of_unknown_size_ends_with_its_stream() -> None:
    decoder = new_decoder(Compression.ZLIB, None, 10**6)
    content = b"".join(decoder.decode(zlib.compress(TEXT)))
    decoder.finish()
    assert content == TEXT


@given(st.binary(max_size=2000), st.integers(1, 300), st.integers(0, 9))
def test_any_content_in_any_pieces(content: bytes, piece: int, level: int) -> None:
    stored = zlib.compress(content, level)
    assert inflate(stored, len(content)) == content
    assert inflate_in_pieces(stored, len(content), piece) == content


@pytest.mark.parametrize("content", [b"", b"as it is"])
def test_what_is_stored_verbatim_is_passed_on(content: bytes) -> None:
    decoder = new_decoder(Compression.NONE, len(content), len(content))
    assert b"".join(decoder.decode(content)) == content
    decoder.finish()


def test_verbatim_content_of_another_size_is_refused() -> None:
    decoder = new_decoder(Compression.NONE, 5, 5)
    with pytest.raises(ObjectTooLargeError):
        list(decoder.decode(b"sixsix"))
    decoder = new_decoder(Compression.NONE, 5, 5)
    list(decoder.decode(b"four"))
    with pytest.raises(IntegrityError, match="4 bytes of content instead of 5"):
        decoder.finish()
