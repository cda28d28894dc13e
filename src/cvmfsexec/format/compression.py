"""Whole texts that packages hold compressed: gzip, xz, lzma, bzip2, zstd.

The method is what the first bytes say, since packages name it in several ways. Nothing
is decompressed beyond a limit. zstd needs Python 3.14 or the library ``zstandard``,
which is imported when there is something for it.
"""

from typing import TYPE_CHECKING, Any, Protocol

from cvmfsexec.errors import ConfigurationError, FormatError

if TYPE_CHECKING:
    from collections.abc import Callable

_STREAM_COUNT_MAX = 100  # concatenated streams count as one text
_MEMORY_BYTES_MAX = 160 << 20
"""What ``xz -9`` (65 MiB) and ``zstd --ultra -22`` (128 MiB) need at the most."""

_READ_BYTES = 1 << 20


class _Engine(Protocol):
    """What the standard library's decompressors have in common."""

    @property
    def eof(self) -> bool:
        """Whether the end of the stream was seen."""

    @property
    def unused_data(self) -> bytes:
        """What follows the stream."""

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        """Return so many bytes at the most."""


def decompress(data: bytes, limit_bytes: int) -> bytes:
    """Return the text; what has no known beginning is not compressed.

    Raises:
        FormatError: It is damaged, cut short, or more than ``limit_bytes``.
        ConfigurationError: It needs a library that is not there.
    """
    for magic, method in _METHODS.items():
        if data.startswith(magic):
            return method(data, limit_bytes)
    return _limited(data, limit_bytes)


def _gzip(data: bytes, limit_bytes: int) -> bytes:
    import zlib

    return _streams(lambda: zlib.decompressobj(31), data, limit_bytes, zlib.error)


def _bzip2(data: bytes, limit_bytes: int) -> bytes:
    import bz2

    return _streams(bz2.BZ2Decompressor, data, limit_bytes, OSError)


def _xz(data: bytes, limit_bytes: int) -> bytes:
    import lzma

    def new() -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(lzma.FORMAT_AUTO, _MEMORY_BYTES_MAX)

    return _streams(new, data, limit_bytes, lzma.LZMAError)


def _zstd(data: bytes, limit_bytes: int) -> bytes:
    try:
        import zstandard
    except ImportError:
        return _zstd_of_python(data, limit_bytes)
    engine = zstandard.ZstdDecompressor(max_window_size=1 << 27)
    try:
        return _read_all(engine, data, limit_bytes)
    except (zstandard.ZstdError, MemoryError) as error:
        raise FormatError(f"compressed data are damaged: {error}") from error


def _read_all(engine: Any, data: bytes, limit_bytes: int) -> bytes:  # noqa: ANN401
    reader = engine.stream_reader(data, read_across_frames=True)
    parts, left = [], limit_bytes + 1
    while left > 0:
        part = reader.read(min(left, _READ_BYTES))
        if not part:
            break
        parts.append(part)
        left -= len(part)
    return _limited(b"".join(parts), limit_bytes)


def _zstd_of_python(data: bytes, limit_bytes: int) -> bytes:
    from importlib import import_module

    try:
        zstd = import_module("compression.zstd")  # of Python 3.14
    except ImportError as error:
        raise ConfigurationError(
            "this package is compressed by zstd, for which a library is missing",
            hint="install the Python package zstandard, or use a package that is "
            "compressed in another way (--from)",
        ) from error
    return _streams(zstd.ZstdDecompressor, data, limit_bytes, zstd.ZstdError)


def _streams(
    new: "Callable[[], _Engine]",
    data: bytes,
    limit_bytes: int,
    error_class: type[Exception],
) -> bytes:
    """Decompress one stream after the other."""
    parts: list[bytes] = []
    left = limit_bytes
    for _ in range(_STREAM_COUNT_MAX):
        engine = new()
        try:
            parts.append(engine.decompress(data, left + 1))
        except (error_class, EOFError, ValueError, MemoryError) as error:
            raise FormatError(f"compressed data are damaged: {error}") from error
        left -= len(parts[-1])
        if left < 0:
            raise _too_long(limit_bytes)
        if not engine.eof:
            raise FormatError("compressed data are cut short")
        data = engine.unused_data.lstrip(b"\0")  # files are padded now and then
        if not data:
            return b"".join(parts)
    raise FormatError("compressed data have too many parts")


def _limited(text: bytes, limit_bytes: int) -> bytes:
    if len(text) > limit_bytes:
        raise _too_long(limit_bytes)
    return text


def _too_long(limit_bytes: int) -> FormatError:
    return FormatError(f"decompressed data have more than {limit_bytes} bytes")


_METHODS = {
    b"\x1f\x8b": _gzip,
    b"\xfd7zXZ\0": _xz,
    b"]\0\0": _xz,  # the older format, lzma
    b"BZh": _bzip2,
    b"\x28\xb5\x2f\xfd": _zstd,
}
