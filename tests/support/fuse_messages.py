"""Requests as the kernel would write them, and replies as it would read them.

Written from the kernel's header file and not from ``fuse.protocol``, so that the two
check each other.
"""

import struct
from typing import NamedTuple

LOOKUP, FORGET, GETATTR, SETATTR, READLINK = 1, 2, 3, 4, 5
OPEN, READ, STATFS, RELEASE, FSYNC = 14, 15, 17, 18, 20
GETXATTR, LISTXATTR, FLUSH, INIT, OPENDIR, READDIR = 22, 23, 25, 26, 27, 28
ACCESS, INTERRUPT, IOCTL, BATCH_FORGET, READDIRPLUS = 34, 36, 39, 42, 44


ATTR_FIELDS = (
    *("ino", "size", "blocks", "atime", "mtime", "ctime"),
    *("atimensec", "mtimensec", "ctimensec"),
    *("mode", "nlink", "uid", "gid", "rdev", "blksize", "flags"),
)


class Answer(NamedTuple):
    """A reply taken apart."""

    errno: int
    unique: int
    body: bytes


class Entry(NamedTuple):
    """What LOOKUP and READDIRPLUS tell of an entry."""

    nodeid: int
    entry_valid_s: int
    attr_valid_s: int
    attr: dict[str, int]


class Dirent(NamedTuple):
    """One record of a listing; ``entry`` is missing in those of READDIR."""

    inode: int
    cookie: int
    type: int
    name: bytes
    entry: Entry | None


NOBODY = 1 << 30
"""A process that cannot be: numbers end before."""


def request(
    opcode: int,
    nodeid: int = 1,
    body: bytes = b"",
    unique: int = 7,
    pid: int = NOBODY,
) -> bytes:
    """Return a request."""
    header = struct.pack(
        "=IIQQIIIHH", 40 + len(body), opcode, unique, nodeid, 0, 0, pid, 0, 0
    )
    return header + body


def interrupt_request(unique: int) -> bytes:
    """Return INTERRUPT of another request, as kernels from 4.20 on send it."""
    return request(INTERRUPT, 0, struct.pack("=Q", unique), unique | 1, 0)


def init_request(
    features: int, *, major: int = 7, minor: int = 45, max_readahead: int = 131072
) -> bytes:
    """Return INIT as a kernel from 7.36 on sends it."""
    low, high = features & 0xFFFFFFFF, features >> 32
    body = struct.pack("=IIIII44x", major, minor, max_readahead, low, high)
    return request(INIT, 0, body)


def read_request(
    inode: int, offset: int, size: int, *, opcode: int = READ, unique: int = 7
) -> bytes:
    """Return READ, READDIR or READDIRPLUS."""
    body = struct.pack("=QQIIQII", 0, offset, size, 0, 0, 0, 0)
    return request(opcode, inode, body, unique)


def getxattr_request(inode: int, name: bytes, size: int) -> bytes:
    """Return GETXATTR."""
    return request(GETXATTR, inode, struct.pack("=II", size, 0) + name + b"\0")


def answer(reply: object) -> Answer:
    """Take a reply apart, and check the length it names."""
    parts = reply if isinstance(reply, tuple) else (reply,)
    blob = b"".join(bytes(part) for part in parts)
    length, error, unique = struct.unpack_from("=IiQ", blob)
    assert length == len(blob)
    return Answer(-error, unique, blob[16:])


def attr(body: bytes) -> dict[str, int]:
    """Read ``struct fuse_attr``."""
    return dict(
        zip(ATTR_FIELDS, struct.unpack_from("=QQQqqqIIIIIIIIII", body), strict=True)
    )


def entry(body: bytes) -> Entry:
    """Read ``struct fuse_entry_out``."""
    fields = struct.unpack_from("=QQQQII", body)
    nodeid, generation, entry_valid, attr_valid, nanos_1, nanos_2 = fields
    assert (generation, nanos_1, nanos_2) == (0, 0, 0)
    return Entry(nodeid, entry_valid, attr_valid, attr(body[40:128]))


def dirents(body: bytes, *, plus: bool) -> list[Dirent]:
    """Read all records of a listing."""
    found = []
    while body:
        of = entry(body) if plus else None
        start = 128 if plus else 0
        inode, cookie, length, kind = struct.unpack_from("=QQII", body, start)
        name = body[start + 24 : start + 24 + length]
        assert len(name) == length
        found.append(Dirent(inode, cookie, kind, name, of))
        end = start + 24 + length
        padded = -(-end // 8) * 8
        assert body[end:padded] == bytes(padded - end)
        body = body[padded:]
    return found
