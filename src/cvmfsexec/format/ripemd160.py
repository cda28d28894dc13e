"""RIPEMD-160 in plain Python, for where OpenSSL does not offer it.

OpenSSL 3.0.0 to 3.0.6 keep it in the legacy provider, which a system may not load;
FIPS builds leave it out. Slow (half a megabyte a second), and used only then.

Source: H. Dobbertin, A. Bosselaers, B. Preneel, "RIPEMD-160: A Strengthened Version
of RIPEMD", 1996; ISO/IEC 10118-3.
"""

import struct
from collections.abc import Callable

BLOCK_BYTES = 64

_MASK = 0xFFFFFFFF
_INITIAL = (0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0)
_WORDS = struct.Struct("<16I")

# A block passes two lines of five rounds of sixteen steps. A step is (which word of
# the block, how far to rotate); the right line takes the round functions in reverse.
_LEFT_WORDS = (
    (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
    (7, 4, 13, 1, 10, 6, 15, 3, 12, 0, 9, 5, 2, 14, 11, 8),
    (3, 10, 14, 4, 9, 15, 8, 1, 2, 7, 0, 6, 13, 11, 5, 12),
    (1, 9, 11, 10, 0, 8, 12, 4, 13, 3, 7, 15, 14, 5, 6, 2),
    (4, 0, 5, 9, 7, 12, 2, 10, 14, 1, 3, 8, 11, 6, 15, 13),
)
_RIGHT_WORDS = (
    (5, 14, 7, 0, 9, 2, 11, 4, 13, 6, 15, 8, 1, 10, 3, 12),
    (6, 11, 3, 7, 0, 13, 5, 10, 14, 15, 8, 12, 4, 9, 1, 2),
    (15, 5, 1, 3, 7, 14, 6, 9, 11, 8, 12, 2, 10, 0, 4, 13),
    (8, 6, 4, 1, 3, 11, 15, 0, 5, 12, 2, 13, 9, 7, 10, 14),
    (12, 15, 10, 4, 1, 5, 8, 7, 6, 2, 13, 14, 0, 3, 9, 11),
)
_LEFT_ROTATIONS = (
    (11, 14, 15, 12, 5, 8, 7, 9, 11, 13, 14, 15, 6, 7, 9, 8),
    (7, 6, 8, 13, 11, 9, 7, 15, 7, 12, 15, 9, 11, 7, 13, 12),
    (11, 13, 6, 7, 14, 9, 13, 15, 14, 8, 13, 6, 5, 12, 7, 5),
    (11, 12, 14, 15, 14, 15, 9, 8, 9, 14, 5, 6, 8, 6, 5, 12),
    (9, 15, 5, 11, 6, 8, 13, 12, 5, 12, 13, 14, 11, 8, 5, 6),
)
_RIGHT_ROTATIONS = (
    (8, 9, 9, 11, 13, 15, 15, 5, 7, 7, 8, 11, 14, 14, 12, 6),
    (9, 13, 15, 7, 12, 8, 9, 11, 7, 7, 12, 7, 6, 15, 13, 11),
    (9, 7, 15, 11, 8, 6, 6, 14, 12, 13, 5, 14, 13, 13, 7, 5),
    (15, 5, 8, 11, 14, 14, 6, 14, 6, 9, 12, 9, 12, 5, 15, 8),
    (8, 5, 12, 9, 12, 5, 14, 6, 8, 13, 6, 5, 15, 13, 11, 11),
)
_LEFT_CONSTANTS = (0x00000000, 0x5A827999, 0x6ED9EBA1, 0x8F1BBCDC, 0xA953FD4E)
_RIGHT_CONSTANTS = (0x50A28BE6, 0x5C4DD124, 0x6D703EF3, 0x7A6D76E9, 0x00000000)

_ROUND_FUNCTIONS: tuple[Callable[[int, int, int], int], ...] = (
    lambda x, y, z: x ^ y ^ z,
    lambda x, y, z: (x & y) | (~x & z),
    lambda x, y, z: (x | ~y) ^ z,
    lambda x, y, z: (x & z) | (y & ~z),
    lambda x, y, z: x ^ (y | ~z),
)

_State = tuple[int, int, int, int, int]
_Round = tuple[Callable[[int, int, int], int], int, tuple[tuple[int, int], ...]]

_LEFT: tuple[_Round, ...] = tuple(
    (function, constant, tuple(zip(words, rotations, strict=True)))
    for function, constant, words, rotations in zip(
        _ROUND_FUNCTIONS, _LEFT_CONSTANTS, _LEFT_WORDS, _LEFT_ROTATIONS, strict=True
    )
)
_RIGHT: tuple[_Round, ...] = tuple(
    (function, constant, tuple(zip(words, rotations, strict=True)))
    for function, constant, words, rotations in zip(
        reversed(_ROUND_FUNCTIONS),
        _RIGHT_CONSTANTS,
        _RIGHT_WORDS,
        _RIGHT_ROTATIONS,
        strict=True,
    )
)


class Ripemd160:
    """A running hash with the two methods of ``hashlib`` that are needed."""

    def __init__(self) -> None:
        self._state: _State = _INITIAL
        self._pending = b""  # less than a block
        self._length_bytes = 0

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        """Add bytes."""
        buffer = self._pending + bytes(data)
        self._length_bytes += len(buffer) - len(self._pending)
        whole = len(buffer) - len(buffer) % BLOCK_BYTES
        self._state = _absorb(self._state, buffer[:whole])
        self._pending = buffer[whole:]

    def digest(self) -> bytes:
        """Return the 20 bytes for all that was added so far; more may follow."""
        padding = b"\x80" + bytes(-(len(self._pending) + 9) % BLOCK_BYTES)
        length_bits = struct.pack("<Q", self._length_bytes * 8 & 0xFFFFFFFFFFFFFFFF)
        state = _absorb(self._state, self._pending + padding + length_bits)
        return struct.pack("<5I", *state)


def _absorb(state: _State, blocks: bytes) -> _State:
    for words in _WORDS.iter_unpack(blocks):
        left = _line(state, words, _LEFT)
        right = _line(state, words, _RIGHT)
        state = (
            (state[1] + left[2] + right[3]) & _MASK,
            (state[2] + left[3] + right[4]) & _MASK,
            (state[3] + left[4] + right[0]) & _MASK,
            (state[4] + left[0] + right[1]) & _MASK,
            (state[0] + left[1] + right[2]) & _MASK,
        )
    return state


def _line(state: _State, words: tuple[int, ...], rounds: tuple[_Round, ...]) -> _State:
    a, b, c, d, e = state
    for function, constant, steps in rounds:
        for index, rotation in steps:
            t = (a + function(b, c, d) + words[index] + constant) & _MASK
            t = (t << rotation | t >> 32 - rotation) + e & _MASK
            a, b, c, d, e = e, t, b, (c << 10 | c >> 22) & _MASK, d
    return a, b, c, d, e
