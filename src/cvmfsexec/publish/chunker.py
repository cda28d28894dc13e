"""Where a large file is cut into chunks: content-defined, as the original cuts it.

Readers accept any boundaries. The original's rule is used nevertheless, because two
publications of one file, or two publishers, then share their chunks, and an insertion
near the front of a file moves one boundary and not all.

The rule runs a 32-bit register over the bytes, ``x = (x << 1) ^ byte``, and cuts
before a byte that brings ``x`` within a threshold of 2**31 - 1. Done byte by byte that
is 5 MB/s in Python. But bit *j* of ``x`` at position *p* is one diagonal of the bytes
before it::

    D(q) = bit 0 of byte[q] ^ bit 1 of byte[q+1] ^ ... ^ bit 7 of byte[q+7]
    bit j of x(p) = D(p - j)        for j >= 7; the lower bits see fewer bytes

and "near 2**31 - 1" means: the upper bits are 0111...1 or 1000...0. So a cut can only
be where the sequence D has one bit followed by a run of its opposite. D of a whole
block comes out of three shifts of one big integer, the run out of ``bytes.find``,
and the few places found are then checked by the rule itself: about 300 MB/s.

Pure; may be called from any thread.

Source: docs/reference/publisher-format.md, "Chunking".
"""

import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

from cvmfsexec.errors import ConfigurationError

Read = Callable[[int, int], bytes]
"""``read(offset, size)``: the bytes of a file; short only at its end."""

WINDOW_BYTES = 32  # the register holds 32 bits, one shift a byte
SMALLEST_MINIMUM_BYTES = 1024  # below, chunks cost more than they save

_MAGIC = 2**31 - 1
_FULL_BIT = 7  # the lowest bit of the register that sees all 8 bits of a diagonal
_SCAN_BYTES = 64 * 1024  # the big integers of a block then stay in the L2 cache


class ChunkSizes(NamedTuple):
    """Bounds of a chunk in bytes; a file up to ``minimum`` is never cut."""

    minimum: int = 4 << 20
    average: int = 8 << 20
    maximum: int = 16 << 20

    @classmethod
    def around(cls, average: int) -> "ChunkSizes":
        """Return the bounds with the original's proportions, half to double.

        Raises:
            ConfigurationError: Too small to be worth it.
        """
        sizes = cls(average // 2, average, average * 2)
        if sizes.minimum < SMALLEST_MINIMUM_BYTES:
            raise ConfigurationError(
                f"an average chunk size of {average} bytes is too small",
                hint=f"the smallest is {2 * SMALLEST_MINIMUM_BYTES}",
            )
        return sizes


def cut(read: Read, file_size: int, sizes: ChunkSizes) -> Iterator[tuple[int, int]]:
    """Yield (offset, size) of the chunks of a file, contiguous and in order.

    Args:
        read: Gives the bytes; asked for ascending ranges.
        file_size: Bytes of the file; not 0.
        sizes: Bounds; only the last chunk may be smaller than the minimum.
    """
    start = 0
    while file_size - start > sizes.minimum:
        end = min(start + sizes.maximum, file_size)
        at = _find_cut(read, start + sizes.minimum, end, sizes.average)
        if at is None:
            at = end
        yield start, at - start
        start = at
    if start < file_size:
        yield start, file_size - start


def _find_cut(read: Read, first: int, end: int, average: int) -> int | None:
    """Return the first position in [first, end) to cut before."""
    threshold = (2**32 - 1) // average
    while first < end:
        last = min(first + _SCAN_BYTES, end)
        window = read(first - WINDOW_BYTES + 1, last - first + WINDOW_BYTES - 1)
        for index in _candidates(window, threshold):
            if _is_boundary(window[index : index + WINDOW_BYTES], threshold):
                return first + index
        first = last
    return None


def _candidates(window: bytes, threshold: int) -> list[int]:
    """Return starts of the 32-byte windows after which a cut is possible, ascending.

    A window that begins at ``q`` ends at ``p = q + 31``, so that bit 31 of the
    register is D(q), bit 30 is D(q + 1), and so on down.
    """
    lowest = max((threshold - 1).bit_length(), _FULL_BIT)
    run = 31 - lowest
    diagonal = _diagonal(window)
    last = len(window) - WINDOW_BYTES
    found = []
    for lead, follow in ((b"\0", b"\1"), (b"\1", b"\0")):
        pattern = lead + follow * run
        at = diagonal.find(pattern)
        while 0 <= at <= last:
            found.append(at)
            at = diagonal.find(pattern, at + 1)
    return sorted(found)


def _diagonal(window: bytes) -> bytes:
    """Return D for each position, one byte of 0 or 1 each."""
    size = len(window)
    bits = int.from_bytes(window, "little")
    bits ^= bits >> 9
    bits ^= bits >> 18
    bits ^= bits >> 36
    return (bits & _ones(size)).to_bytes(size, "little")


@functools.lru_cache(maxsize=2)  # whole blocks, and the rest of a file
def _ones(size: int) -> int:
    return int.from_bytes(b"\1" * size, "little")


def _is_boundary(window: bytes, threshold: int) -> bool:
    register = 0
    for byte in window:
        register = (register << 1) ^ byte
    distance = ((register & 0xFFFFFFFF) - _MAGIC) & 0xFFFFFFFF
    return min(distance, 2**32 - distance) < threshold
