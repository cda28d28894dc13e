"""The kernel's FUSE messages: numbers and layouts, as data.

Every message is a header and a body; all integers are little-endian here, because all
machines this runs on are (the protocol uses the machine's order). The layouts hold for
protocol 7.12 (Linux 2.6.31) and later.

Facts about the device:

- One ``read`` takes exactly one request, one ``write`` gives exactly one reply. The
  buffer of a read must hold 8 KiB, or the largest WRITE request that was negotiated if
  that is more; a smaller one is refused with EINVAL, whatever the request.
- A reply is matched by its ``unique``. If the request is gone (its process died), the
  write fails with ENOENT, and nothing is wrong.
- INTERRUPT names another request, and may be read before that by another thread. It
  gets no answer but EAGAIN, which has the kernel send it again as long as the other
  request is not answered. Requests of a process that dies before they were read are
  taken back without INTERRUPT.
- A reply with an error has no body. ENOSYS means "never ask again" for most opcodes,
  and "treat as done" for several: see ``operations``.

Source: Linux, include/uapi/linux/fuse.h; the names are those of the kernel without
the prefix ``FUSE_``.
"""

import struct

MAJOR = 7
MINOR = 45  # the newest protocol whose messages were compared with this module
MINOR_MIN = 12  # Linux 2.6.31; older ones have shorter messages

READ_BUFFER_BYTES_MIN = 8192
XATTR_BYTES_MAX = 65536  # XATTR_SIZE_MAX, XATTR_LIST_MAX of Linux


class Opcode:
    """What a request asks for."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    SETXATTR = 21
    GETXATTR = 22
    LISTXATTR = 23
    REMOVEXATTR = 24
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    GETLK = 31
    SETLK = 32
    SETLKW = 33
    ACCESS = 34
    CREATE = 35
    INTERRUPT = 36
    BMAP = 37
    DESTROY = 38
    IOCTL = 39
    POLL = 40
    NOTIFY_REPLY = 41
    BATCH_FORGET = 42
    FALLOCATE = 43
    READDIRPLUS = 44
    RENAME2 = 45
    LSEEK = 46
    COPY_FILE_RANGE = 47
    SETUPMAPPING = 48
    REMOVEMAPPING = 49
    SYNCFS = 50
    TMPFILE = 51
    STATX = 52
    COPY_FILE_RANGE_64 = 53


OPCODE_NAMES = {
    value: name for name, value in vars(Opcode).items() if isinstance(value, int)
}
OPCODE_LIMIT = 64  # size of tables by opcode; larger numbers are unknown ones


class Feature:
    """Flags of INIT: bits 0-31 are ``flags``, bits 32-63 are ``flags2``."""

    ASYNC_READ = 1 << 0
    EXPORT_SUPPORT = 1 << 4
    DO_READDIRPLUS = 1 << 13
    READDIRPLUS_AUTO = 1 << 14
    NO_OPEN_SUPPORT = 1 << 17
    PARALLEL_DIROPS = 1 << 18
    POSIX_ACL = 1 << 20
    MAX_PAGES = 1 << 22
    CACHE_SYMLINKS = 1 << 23
    NO_OPENDIR_SUPPORT = 1 << 24
    INIT_EXT = 1 << 30
    HAS_EXPIRE_ONLY = 1 << 35
    NOTIFICATIONS = 1 << 64  # not a flag, but a wish like those


class OpenFlag:
    """Flags of a reply to OPEN and OPENDIR."""

    KEEP_CACHE = 1 << 1
    CACHE_DIR = 1 << 3


Reply = bytes | memoryview | tuple[bytes, bytes | memoryview] | None
"""One message, or two halves of one, or nothing to say."""

REQUEST_HEADER = struct.Struct("<IIQQIIIHH")
"""length, opcode, unique, nodeid, uid, gid, pid, total_extlen, padding"""

REQUEST_START = struct.Struct("<IIQQ")
"""The part of the request header that every request needs."""

BODY_OFFSET = REQUEST_HEADER.size

REPLY_HEADER = struct.Struct("<IiQ")
"""length, negative errno, unique"""

HEADER_BYTES = REPLY_HEADER.size

INIT_REQUEST = struct.Struct("<IIII")
"""major, minor, max_readahead, flags"""

INIT_FLAGS2_OFFSET = BODY_OFFSET + INIT_REQUEST.size

INIT_BODY = struct.Struct("<IIIIHHIIHHI28x")
"""major, minor, max_readahead, flags, max_background, congestion_threshold, max_write,
time_gran, max_pages, map_alignment, flags2"""

INIT_BODY_BYTES_BEFORE_7_23 = 24

READ_REQUEST = struct.Struct("<QQI")
"""fh, offset, size; of READ, READDIR and READDIRPLUS"""

OPEN_REQUEST = struct.Struct("<I")
"""flags of open(2)"""

ACCESS_REQUEST = struct.Struct("<I")
"""mode of access(2)"""

GETXATTR_REQUEST = struct.Struct("<II")
"""size, padding; of GETXATTR (a name follows) and LISTXATTR"""

INTERRUPT_REQUEST = struct.Struct("<Q")
"""unique of the request that is not to be waited for any more"""

GETXATTR_NAME_OFFSET = BODY_OFFSET + GETXATTR_REQUEST.size

OPEN_REPLY = struct.Struct("<IiQ QII")
"""reply header; fh, flags, padding"""

XATTR_SIZE_REPLY = struct.Struct("<IiQ II")
"""reply header; size, padding"""

STATFS_REPLY = struct.Struct("<IiQ QQQQQ III 28x")
"""reply header; blocks, bfree, bavail, files, ffree, bsize, namelen, frsize"""

# struct fuse_attr is: ino, size, blocks, three times in seconds, three nanoseconds,
# mode, nlink, uid, gid, rdev, blksize, flags. Seconds are unsigned in the header but
# the kernel reads them as signed. Replies are packed by one call each, with their
# constant parts as one argument: packing is half of the time that LOOKUP takes.
_ATTR = "QQQ qqq III IIIII 8s"

ENTRY_REPLY = struct.Struct(f"<IiQ Q32s {_ATTR}")
"""reply header; nodeid, ``entry_validity``, attributes, BLOCK_SIZE"""

ENTRY_REPLY_BYTES = ENTRY_REPLY.size

ATTR_REPLY = struct.Struct(f"<IiQ 16s {_ATTR}")
"""reply header; ``attr_validity``, attributes, BLOCK_SIZE"""

ATTR_REPLY_BYTES = ATTR_REPLY.size

DIRENT_FORMAT = "QQII"
"""inode, offset of the next entry, length of the name, type; the name follows"""

DIRENTPLUS_FORMAT = f"Q32s {_ATTR} {DIRENT_FORMAT}"

DIRENT_ALIGNMENT = 8

FOREVER_S = 2**31 - 1
"""Validity of names and attributes in seconds.

Of what changes the kernel is told, and 68 years outlive every mount. Not the largest
64-bit number: kernels convert to ticks, and this one is far from every overflow, on
32-bit kernels too (they cut it to 12 days and ask again).
"""


def entry_validity(seconds: int) -> bytes:
    """Return the part of an entry that says how long to keep it.

    That is: generation, entry_valid, attr_valid, and the nanoseconds of both.
    """
    return struct.pack("<QQQII", 0, seconds, seconds, 0, 0)


def attr_validity(seconds: int) -> bytes:
    """Return the same for attributes alone."""
    return struct.pack("<QII", seconds, 0, 0)


BLOCK_SIZE = struct.pack("<II", 4096, 0)
"""st_blksize; attribute flags"""


def error_reply(unique: int, errno: int) -> bytes:
    """Return the reply that fails a request; an errno of 0 says "done"."""
    return REPLY_HEADER.pack(HEADER_BYTES, -errno, unique)


def no_entry_body(validity_s: int) -> bytes:
    """Return what follows the header in a reply to LOOKUP that there is no such name.

    A nodeid of 0 means ENOENT like the error, but the kernel keeps it.
    """
    return struct.pack("<QQQQII88x", 0, 0, validity_s, 0, 0, 0)
