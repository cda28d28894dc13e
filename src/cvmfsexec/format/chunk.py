"""Chunks: the pieces of a large file, each an object of its own.

Source: docs/reference/repository-format.md, "Chunked files".
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import NamedTuple

from cvmfsexec.errors import FormatError
from cvmfsexec.format.digest import ContentHash


class Chunk(NamedTuple):
    """One piece of a file.

    Attributes:
        offset: First byte, from the start of the file.
        size: Bytes of the uncompressed piece.
        content_hash: Name of the object that holds it.
    """

    offset: int
    size: int
    content_hash: ContentHash


class Slice(NamedTuple):
    """What to take from one chunk.

    Attributes:
        chunk: The chunk.
        start: First byte wanted, from the start of the chunk.
        length: Bytes wanted, at least 1.
    """

    chunk: Chunk
    start: int
    length: int


_offset_of = attrgetter("offset")


def check_chunks(chunks: Sequence[Chunk], file_size: int) -> None:
    """Refuse a chunk list that is not exactly its file, from first to last byte.

    Args:
        chunks: In the order of their offsets.
        file_size: Bytes of the file, by its directory entry.

    Raises:
        FormatError: A hole, an overlap, a chunk without bytes, a missing end, or no
            chunk at all.
    """
    if not chunks:
        raise FormatError("a chunked file without chunks")
    position = 0
    for chunk in chunks:
        if chunk.offset != position:
            raise FormatError(f"chunk at {chunk.offset} where {position} was expected")
        if chunk.size <= 0:
            raise FormatError(f"chunk at {position} has {chunk.size} bytes")
        position += chunk.size
    if position != file_size:
        raise FormatError(f"chunks end at {position} in a file of {file_size} bytes")


def covering(chunks: Sequence[Chunk], offset: int, size: int) -> Iterator[Slice]:
    """Yield the pieces of ``chunks`` that make up a byte range, in file order.

    Args:
        chunks: As :func:`check_chunks` accepts them: contiguous from 0.
        offset: First byte wanted, from the start of the file.
        size: Bytes wanted; a range past the end is cut, not an error.
    """
    end = offset + size
    index = max(bisect_right(chunks, offset, key=_offset_of) - 1, 0)
    while index < len(chunks) and chunks[index].offset < end:
        chunk = chunks[index]
        start = max(offset - chunk.offset, 0)
        length = min(end - chunk.offset, chunk.size) - start
        if length > 0:
            yield Slice(chunk, start, length)
        index += 1
