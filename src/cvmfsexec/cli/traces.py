"""Traces in files that the user names: read as they come, however long they are.

They may be pipes, and compressed by gzip.
"""

import os
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from cvmfsexec import log
from cvmfsexec.cli.progress import progress_bar
from cvmfsexec.errors import ConfigurationError, FormatError
from cvmfsexec.format.trace import TraceReader, TraceRecord

if TYPE_CHECKING:
    from gzip import GzipFile
    from io import BufferedReader

_PIECE_BYTES = 1 << 20
_NONSENSE_BYTES_MAX = 4 << 20
"""What has no event in so many bytes is no trace, even if it has no end."""

_GZIP_MAGIC = b"\x1f\x8b"


def read_trace(path: str, *, beside_output: bool = False) -> Iterator[TraceRecord]:
    """Yield what a trace tells, in its order.

    Args:
        path: Of a file or a pipe.
        beside_output: Whether something is printed meanwhile.

    Raises:
        ConfigurationError: It cannot be read.
        FormatError: It is no trace.
    """
    reader = TraceReader()
    has_events = False
    read_bytes = 0
    for piece in _pieces(path, beside_output=beside_output):
        for record in reader.finish() if piece is None else reader.read(piece):
            has_events = True
            yield record
        read_bytes += len(piece or b"")
        is_enough = piece is None or read_bytes > _NONSENSE_BYTES_MAX
        if is_enough and reader.refusal is not None and not has_events:
            raise FormatError(f"{path}: {reader.refusal}") from reader.refusal
    if reader.refused_count:
        log.warning(
            "%s: %d lines make no sense, and are left out", path, reader.refused_count
        )


def _pieces(path: str, *, beside_output: bool) -> Iterator[bytes | None]:
    """Yield the content of a file, and ``None`` at its end."""
    try:
        with open(path, "rb") as file:
            content, size_bytes = _content(file)
            with progress_bar(
                size_bytes, "bytes", path, beside_output=beside_output
            ) as progress:
                while piece := content.read1(_PIECE_BYTES):
                    yield piece
                    progress(len(piece))
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigurationError(f"cannot read {path}: {reason}") from error
    yield None


def _content(file: "BufferedReader") -> "tuple[BufferedReader | GzipFile, int | None]":
    """Return what a file holds, and how much that is, if it is known."""
    if file.peek(2)[:2] == _GZIP_MAGIC:
        from gzip import GzipFile

        return GzipFile(fileobj=file), None
    return file, os.fstat(file.fileno()).st_size or None
