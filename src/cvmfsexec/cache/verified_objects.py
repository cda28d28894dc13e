"""What was verified before: for each object, the digest of its decompressed bytes.

To verify a cached object means to compress it again, which takes twenty times as long
as to hash it. So the digest of its bytes is remembered, and next time compared. Nothing
is assumed of the file: not its size, its times, or its inode, all of which others may
set.

The memory is a file in a directory that only this user can write: a table of records of
64 bytes in which each object has one place, given by its hash. Two that share a place
push each other out. Any number of processes read and write it without locks; a record
that is torn does not match its checksum, and counts as none.

Facts: 131,072 places are 8 MiB, of which the file system stores what was written. A
look-up is one ``pread``.
"""

import contextlib
import os
import struct
import zlib

from cvmfsexec import log
from cvmfsexec.cache.open_files import close_quietly
from cvmfsexec.format.digest import ContentHash

FILE_NAME = "cvmfsexec.verified"
PLACES = 1 << 17

_RECORD = struct.Struct(">B20s32s7x")  # algorithm + 1, digest, SHA-256
_CHECKSUM = struct.Struct(">I")
_RECORD_BYTES = _RECORD.size + _CHECKSUM.size
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


class VerifiedObjects:
    """The digests that are remembered; safe to call from any thread.

    Args:
        directory: Descriptor of a directory of this user alone, which stays the
            caller's. Without a file in it, the memory lasts as long as the process.
    """

    def __init__(self, directory: int) -> None:
        self._new: dict[ContentHash, bytes] = {}
        self._file: int | None = None
        try:
            self._file = os.open(FILE_NAME, _FLAGS, 0o600, dir_fd=directory)
        except OSError as error:
            log.debug("cannot remember what was verified: %s", error.strerror)

    def digest_of(self, content_hash: ContentHash) -> bytes | None:
        """Return the SHA-256 of an object's bytes, or ``None`` if it is not known."""
        known = self._new.get(content_hash)
        if known is not None or self._file is None:
            return known
        try:
            record = os.pread(self._file, _RECORD_BYTES, _offset(content_hash))
        except OSError:
            return None
        return parse_record(record, content_hash)

    def remember(self, content_hash: ContentHash, digest: bytes) -> None:
        """Note the SHA-256 of an object that was verified."""
        if len(self._new) >= PLACES:
            self._new.clear()
        self._new[content_hash] = digest
        if self._file is not None:
            record = serialize_record(content_hash, digest)
            with contextlib.suppress(OSError):  # no room: it is in memory
                os.pwrite(self._file, record, _offset(content_hash))

    def close(self) -> None:
        """Give back the file."""
        if self._file is not None:
            close_quietly(self._file)
            self._file = None


def serialize_record(content_hash: ContentHash, digest: bytes) -> bytes:
    """Return the record of one object."""
    text = _RECORD.pack(content_hash.algorithm + 1, content_hash.digest, digest)
    return text + _CHECKSUM.pack(zlib.crc32(text))


def parse_record(record: bytes, content_hash: ContentHash) -> bytes | None:
    """Return the digest in a record, if it is one of this object."""
    if len(record) != _RECORD_BYTES:
        return None
    if zlib.crc32(record[:-4]) != _CHECKSUM.unpack(record[-4:])[0]:
        return None
    algorithm, named, digest = _RECORD.unpack(record[:-4])
    wanted = (content_hash.algorithm + 1, content_hash.digest)
    return bytes(digest) if (algorithm, named) == wanted else None


def _offset(content_hash: ContentHash) -> int:
    place = int.from_bytes(content_hash.digest[:8]) % PLACES
    return place * _RECORD_BYTES
