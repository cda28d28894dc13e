"""The index of a pack: where in a file of many objects each of them lies.

A *pack* is two files that one process appends to: ``<name>.pack`` with the bytes of
objects, one after the other, and ``<name>.index`` with a record of 64 bytes for each.
Numbers are big-endian::

    offset  bytes  what
         0      1  kind << 4 | algorithm
         1     20  digest
        21      8  offset in the pack; of a file of its own, any number; of a removal,
                   what the record has that it is about
        29      8  size
        37      4  CRC-32 of the object's bytes
        41      8  of a removal of an object in a pack: the pack's name
        49     11  zero
        60      4  CRC-32 of what comes before

The first record is a header, with a digest that spells the version. A record that does
not match its checksum (torn, or not written yet) is passed over; its neighbours are not
concerned, since all have the same size.

Nothing in an index is trusted further than that: offsets and sizes are checked against
the limits here and against the file by who reads, and bytes against their checksum.

Source: docs/adr/0027-packs-without-locks.md; this is the definition.
"""

import struct
import zlib
from enum import IntEnum
from typing import NamedTuple

from cvmfsexec.errors import FormatError
from cvmfsexec.format.digest import ContentHash, HashAlgorithm

RECORD_BYTES = 64
KEY_BYTES = 21
NAME_BYTES = 8

INDEX_BYTES_MAX = 32 << 20
"""Nobody writes more into one index, or reads more of one: half a million objects."""

_TEXT = struct.Struct(">B20sQQI8s11x")
_CHECKSUM = struct.Struct(">I")
_KEYS = struct.Struct(f"{KEY_BYTES}s{RECORD_BYTES - KEY_BYTES}x")
_VERSION = b"cvmfsexec pack v1\0\0\0"
_OFFSET_MAX = 1 << 48
_NO_NAME = bytes(NAME_BYTES)


class RecordKind(IntEnum):
    """What a record tells."""

    HEADER = 0
    PACKED = 1
    """An object lies in this pack."""

    OWN_FILE = 2
    """An object is too large, and lies in a file of its own."""

    REMOVED = 3
    """What some pack tells of an object is not true any more."""


class Record(NamedTuple):
    """One record.

    Attributes:
        kind: What it tells.
        content_hash: About which object.
        offset: Where the object begins in its pack; tells records of own files apart.
        size_bytes: Its size.
        checksum: CRC-32 of its bytes.
        pack: Of a removal, the name of the pack; none for a file of its own.
    """

    kind: RecordKind
    content_hash: ContentHash
    offset: int = 0
    size_bytes: int = 0
    checksum: int = 0
    pack: bytes = _NO_NAME

    @classmethod
    def parse(cls, text: bytes) -> "Record":
        """Read a record.

        Raises:
            FormatError: It is torn, or means nothing.
        """
        if len(text) != RECORD_BYTES:
            raise FormatError(f"a record of {len(text)} bytes")
        kind, digest, offset, size_bytes, checksum, pack = _TEXT.unpack(text[:-4])
        if _CHECKSUM.unpack(text[-4:])[0] != zlib.crc32(text[:-4]):
            raise FormatError("a record does not match its checksum")
        if any(text[49:60]):
            raise FormatError("a record of another version")
        try:
            content_hash = ContentHash(digest, HashAlgorithm(kind & 0xF))
            record = cls(
                RecordKind(kind >> 4), content_hash, offset, size_bytes, checksum, pack
            )
        except ValueError as error:
            raise FormatError("a record of an unknown kind") from error
        if offset + size_bytes > _OFFSET_MAX:
            raise FormatError("a record points too far")
        return record

    def serialize(self) -> bytes:
        """Return the text of the record."""
        text = _TEXT.pack(
            self.kind << 4 | self.content_hash.algorithm,
            self.content_hash.digest,
            self.offset,
            self.size_bytes,
            self.checksum,
            self.pack,
        )
        return text + _CHECKSUM.pack(zlib.crc32(text))


def header() -> bytes:
    """Return the first record of an index."""
    return Record(RecordKind.HEADER, ContentHash(_VERSION)).serialize()


def has_header(index: bytes) -> bool:
    """Whether bytes are the beginning of an index of this version."""
    return index[:RECORD_BYTES] == header()


def key_of(kind: RecordKind, content_hash: ContentHash) -> bytes:
    """Return how the record of an object begins."""
    return bytes((kind << 4 | content_hash.algorithm,)) + content_hash.digest


def keys_in(index: bytes | memoryview) -> list[bytes]:
    """Return how each record begins; the records are not checked yet.

    Args:
        index: Whole records.
    """
    return [key for (key,) in _KEYS.iter_unpack(index)]
