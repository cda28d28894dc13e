"""Any chunk list is the file from end to end, or a FormatError.

The input is numbers of two bytes: file size, offset and size of a read, and then
offset and size of each chunk.
"""

import struct

from cvmfsexec.errors import FormatError
from cvmfsexec.format.chunk import Chunk, check_chunks, covering
from cvmfsexec.format.digest import ContentHash

HASH = ContentHash(b"\1" * 20)
HEADER_NUMBERS = 3


def target(data: bytes) -> None:
    """Raise only on a finding."""
    count = len(data) // 2
    numbers = struct.unpack(f">{count}h", data[: 2 * count])
    if count < HEADER_NUMBERS:
        return
    (file_size, offset, size), rest = numbers[:3], numbers[3:]
    chunks = [
        Chunk(start, length, HASH)
        for start, length in zip(rest[::2], rest[1::2], strict=False)
    ]
    try:
        check_chunks(chunks, file_size)
    except FormatError:
        return
    wanted = range(max(offset, 0), min(max(offset, 0) + size, file_size))
    position = wanted.start
    for chunk, start, length in covering(chunks, wanted.start, size):
        assert chunk.offset + start == position
        assert 0 < length <= chunk.size - start
        position += length
    assert position == max(wanted.start, wanted.stop)
