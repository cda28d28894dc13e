import bz2
import gzip
import lzma
import sys
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.errors import ConfigurationError, FormatError
from cvmfsexec.format.compression import decompress

LIMIT = 1 << 20


def compress_zstd(data: bytes) -> bytes:
    zstandard = pytest.importorskip("zstandard", reason="no zstandard here")
    compressed = zstandard.compress(data)
    assert isinstance(compressed, bytes)
    return compressed


METHODS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
    "bzip2": bz2.compress,
    "zstd": compress_zstd,
}

methods = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


@methods
@given(data=st.binary(max_size=2000))
def test_what_was_compressed_comes_back(
    method: Callable[[bytes], bytes], data: bytes
) -> None:
    assert decompress(method(data), LIMIT) == data


def test_what_is_not_compressed_stays() -> None:
    assert decompress(b"text", LIMIT) == b"text"


@pytest.mark.parametrize("name", ["gzip", "xz", "bzip2"])
def test_parts_count_as_one(name: str) -> None:
    method = METHODS[name]
    assert decompress(method(b"a") + method(b"b") + bytes(4), LIMIT) == b"ab"


@methods
def test_no_more_than_the_limit_comes_out(method: Callable[[bytes], bytes]) -> None:
    bomb = method(bytes(LIMIT + 1))
    assert len(bomb) < LIMIT / 100
    with pytest.raises(FormatError, match="more than"):
        decompress(bomb, LIMIT)
    assert len(decompress(bomb, LIMIT + 1)) == LIMIT + 1


@pytest.mark.parametrize("name", ["gzip", "xz", "bzip2"])
def test_what_is_cut_short_is_refused(name: str) -> None:
    with pytest.raises(FormatError, match="cut short"):
        decompress(METHODS[name](b"text" * 100)[:-1], LIMIT)


@pytest.mark.parametrize("name", ["gzip", "xz", "bzip2"])
def test_what_is_damaged_is_refused(name: str) -> None:
    damaged = bytearray(METHODS[name](b"text" * 100))
    damaged[len(damaged) // 2] ^= 0x55
    with pytest.raises(FormatError, match=r"damaged|cut short"):
        decompress(bytes(damaged), LIMIT)


def test_damaged_zstd_is_refused() -> None:
    damaged = bytearray(compress_zstd(bytes(range(256)) * 10))
    damaged[6] ^= 0xFF
    damaged[7] ^= 0xFF
    with pytest.raises(FormatError):
        decompress(bytes(damaged), 10)


def test_endless_parts_are_refused() -> None:
    with pytest.raises(FormatError, match="too many parts"):
        decompress(gzip.compress(b"") * 1000, LIMIT)


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="this Python has zstd itself")
def test_a_missing_library_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    compressed = compress_zstd(b"text")
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(ConfigurationError, match="zstd") as caught:
        decompress(compressed, LIMIT)
    assert "zstandard" in caught.value.hint
