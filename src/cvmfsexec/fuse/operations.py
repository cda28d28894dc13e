"""Each request of the kernel, answered from a file system.

Facts about ENOSYS, which does most of the work here. To most opcodes it means "this
server does not do that, never ask again", and the kernel then has its own way:

=================== ==============================================================
OPEN, OPENDIR       every open succeeds without a request, and all that was read
                    stays in the kernel's caches; if NO_OPEN_SUPPORT (or
                    NO_OPENDIR_SUPPORT) was offered, else the open fails
FLUSH               closing a file costs nothing
FSYNC, FSYNCDIR     succeed
ACCESS              access(2) succeeds, or is checked by mode under the mount
                    option ``default_permissions``
LSEEK               SEEK_HOLE finds the end: a file has no holes
POLL                always ready
STATX               asks GETATTR instead; there is no birth time
BMAP, SYNCFS, locks the kernel's own, or none
=================== ==============================================================

The mount is read-only, and then the kernel refuses writes itself. Where somebody else
made the mount (``apptainer --fusemount``) it is not, so every request that would
change something is refused here with EROFS.

Nothing here depends on who asks, and handles (``fh``) are not used: there is no open
state.

This module is one of the three borders at which any exception ends: the application
gets EIO, the log gets the rest, and the server goes on.

Threads: any may call; nothing here changes but the parts that guard themselves.
"""

import errno
import os
import struct
from collections.abc import Callable

from cvmfsexec.errors import CvmfsError, FormatError
from cvmfsexec.format.names import NAME_BYTES_MAX
from cvmfsexec.fuse.directory import DirectoryReader
from cvmfsexec.fuse.errno_map import errno_of
from cvmfsexec.fuse.faults import FaultAccount
from cvmfsexec.fuse.negotiation import Terms
from cvmfsexec.fuse.protocol import (
    ATTR_REPLY,
    ATTR_REPLY_BYTES,
    BLOCK_SIZE,
    BODY_OFFSET,
    ENTRY_REPLY,
    ENTRY_REPLY_BYTES,
    GETXATTR_NAME_OFFSET,
    GETXATTR_REQUEST,
    HEADER_BYTES,
    INTERRUPT_REQUEST,
    OPCODE_LIMIT,
    OPCODE_NAMES,
    OPEN_REPLY,
    OPEN_REQUEST,
    READ_REQUEST,
    REPLY_HEADER,
    REQUEST_HEADER,
    REQUEST_START,
    STATFS_REPLY,
    XATTR_BYTES_MAX,
    XATTR_SIZE_REPLY,
    Feature,
    Opcode,
    OpenFlag,
    Reply,
    attr_validity,
    entry_validity,
    error_reply,
    no_entry_body,
)
from cvmfsexec.vfs.attributes import BLOCK_BYTES, Attributes, FileSystem

_Handler = Callable[[int, int, bytes], Reply]
"""Takes nodeid, unique and the whole request."""

_READ_BYTES_MAX = 1 << 20  # the kernel's own limit
_WRITE_FLAGS = os.O_ACCMODE | os.O_TRUNC  # O_RDONLY is 0
_GID_FIELD = 5  # of REQUEST_HEADER
_UNKNOWN = 0  # stands for the opcodes beyond the tables

_CHANGES = (
    Opcode.SETATTR,
    Opcode.SYMLINK,
    Opcode.MKNOD,
    Opcode.MKDIR,
    Opcode.UNLINK,
    Opcode.RMDIR,
    Opcode.RENAME,
    Opcode.RENAME2,
    Opcode.LINK,
    Opcode.WRITE,
    Opcode.SETXATTR,
    Opcode.REMOVEXATTR,
    Opcode.CREATE,
    Opcode.TMPFILE,
    Opcode.FALLOCATE,
    Opcode.COPY_FILE_RANGE,
    Opcode.COPY_FILE_RANGE_64,
)

_WITHOUT_REPLY = (
    Opcode.FORGET,
    Opcode.BATCH_FORGET,
    Opcode.INTERRUPT,
    Opcode.NOTIFY_REPLY,
)


class Operations:
    """The table of handlers for one mount.

    Attributes:
        refusal: Why every request fails; ``None`` while they do not.
        interrupt: Told the unique of a request that is not to be waited for; returns
            whether there is such a one.
    """

    def __init__(
        self, file_system: FileSystem, terms: Terms, faults: FaultAccount
    ) -> None:
        """Choose the handlers that fit what was agreed with the kernel."""
        self.refusal: CvmfsError | None = None
        self.interrupt: Callable[[int], bool] = lambda _unique: True
        self._file_system = file_system
        self._faults = faults
        self._lookup_name = file_system.lookup
        self._read_bytes = file_system.read
        self._directories = DirectoryReader(
            file_system,
            with_attributes=terms.uses(Feature.DO_READDIRPLUS),
            validity_s=terms.validity_s,
        )
        self._entry_validity = entry_validity(terms.validity_s)
        self._attr_validity = attr_validity(terms.validity_s)
        self._no_entry_body = no_entry_body(terms.validity_s)
        self._listing_flags = OpenFlag.KEEP_CACHE | OpenFlag.CACHE_DIR
        if terms.is_bounded:
            self._listing_flags = 0
        self._is_open_asked = not terms.uses(Feature.NO_OPEN_SUPPORT)
        self._is_opendir_asked = not terms.uses(Feature.NO_OPENDIR_SUPPORT)
        self._handlers = self._table()

    def answer(self, request: bytes, counts: list[int]) -> Reply:
        """Return the reply to one request, whatever the request is.

        Args:
            request: As read from the device.
            counts: ``OPCODE_LIMIT`` numbers; the one of the request's opcode is raised
                by one. Each thread brings its own.
        """
        if len(request) < BODY_OFFSET:
            error = FormatError(f"FUSE request of {len(request)} bytes")
            self._faults.record("a request", error, errno.EINVAL)
            return None
        opcode: int
        length, opcode, unique, nodeid = REQUEST_START.unpack_from(request)
        if opcode >= OPCODE_LIMIT:
            opcode = _UNKNOWN
        counts[opcode] += 1
        if length != len(request):
            error = FormatError(f"FUSE request of {length} bytes has {len(request)}")
            return self._fail(request, error)
        if self.refusal is not None and opcode not in _WITHOUT_REPLY:
            return self._fail(request, self.refusal)
        try:
            return self._handlers[opcode](nodeid, unique, request)
        except struct.error as cause:
            error = FormatError(f"a field does not fit its message: {cause}")
            return self._fail(request, error)
        except Exception as error:  # noqa: BLE001 -- one of the three borders
            return self._fail(request, error)

    def _fail(self, request: bytes, error: Exception) -> bytes:
        """Account for a failed request and return its reply."""
        _, opcode, unique, nodeid = REQUEST_START.unpack_from(request)
        place = self._file_system.describe(nodeid)
        what = f"{OPCODE_NAMES.get(opcode, opcode)} of {place}"
        if opcode == Opcode.LOOKUP:
            what += f" name {request[BODY_OFFSET:-1]!r}"
        number = errno_of(error)
        self._faults.record(what, error, number)
        return error_reply(unique, number)

    def _table(self) -> list[_Handler]:
        table: list[_Handler] = [_refuse(errno.ENOSYS)] * OPCODE_LIMIT
        for opcode in _CHANGES:
            table[opcode] = _refuse(errno.EROFS)
        for opcode in _WITHOUT_REPLY:
            table[opcode] = _ignore
        for opcode in (Opcode.RELEASE, Opcode.RELEASEDIR, Opcode.DESTROY):
            table[opcode] = _refuse(0)
        table[Opcode.INIT] = _refuse(errno.EIO)  # a second one; the first is not ours
        table[Opcode.IOCTL] = _refuse(errno.ENOTTY)
        table[Opcode.LOOKUP] = self._lookup
        table[Opcode.GETATTR] = self._getattr
        table[Opcode.READLINK] = self._readlink
        table[Opcode.OPEN] = self._open
        table[Opcode.OPENDIR] = self._opendir
        table[Opcode.READ] = self._read
        table[Opcode.READDIR] = self._readdir
        table[Opcode.READDIRPLUS] = self._readdir
        table[Opcode.STATFS] = self._statfs
        table[Opcode.GETXATTR] = self._getxattr
        table[Opcode.LISTXATTR] = self._listxattr
        table[Opcode.INTERRUPT] = self._interrupt
        return table

    def _lookup(self, nodeid: int, unique: int, request: bytes) -> Reply:
        name = request[BODY_OFFSET:-1]
        found = (
            self._lookup_name(nodeid, name)
            if name not in _SPECIAL_NAMES
            else self._lookup_special(nodeid, name)
        )
        if found is None:
            header = REPLY_HEADER.pack(ENTRY_REPLY_BYTES, 0, unique)
            return header + self._no_entry_body
        return ENTRY_REPLY.pack(
            ENTRY_REPLY_BYTES,
            0,
            unique,
            found.inode,
            self._entry_validity,
            *_fields(found),
        )

    def _lookup_special(self, nodeid: int, name: bytes) -> Attributes | None:
        """Resolve "." and "..", which the kernel asks for under EXPORT_SUPPORT."""
        if not name:
            raise FormatError("LOOKUP without a name")
        parent = self._file_system.parent
        return self._file_system.attributes(nodeid if name == b"." else parent(nodeid))

    def _getattr(self, nodeid: int, unique: int, request: bytes) -> Reply:  # noqa: ARG002
        found = self._file_system.attributes(nodeid)
        if found is None:
            return error_reply(unique, errno.ESTALE)
        return ATTR_REPLY.pack(
            ATTR_REPLY_BYTES, 0, unique, self._attr_validity, *_fields(found)
        )

    def _readlink(self, nodeid: int, unique: int, request: bytes) -> Reply:  # noqa: ARG002
        target = self._file_system.readlink(nodeid)
        if target is None:
            return error_reply(unique, errno.EINVAL)
        return _with_data(unique, target)

    def _open(self, nodeid: int, unique: int, request: bytes) -> Reply:  # noqa: ARG002
        (flags,) = OPEN_REQUEST.unpack_from(request, BODY_OFFSET)
        if flags & _WRITE_FLAGS:
            return error_reply(unique, errno.EROFS)
        if not self._is_open_asked:
            return error_reply(unique, errno.ENOSYS)
        return OPEN_REPLY.pack(OPEN_REPLY.size, 0, unique, 0, OpenFlag.KEEP_CACHE, 0)

    def _opendir(self, nodeid: int, unique: int, request: bytes) -> Reply:  # noqa: ARG002
        if not self._is_opendir_asked:
            return error_reply(unique, errno.ENOSYS)
        flags = self._listing_flags
        return OPEN_REPLY.pack(OPEN_REPLY.size, 0, unique, 0, flags, 0)

    def _read(self, nodeid: int, unique: int, request: bytes) -> Reply:
        _, offset, size = READ_REQUEST.unpack_from(request, BODY_OFFSET)
        data = self._read_bytes(nodeid, offset, min(size, _READ_BYTES_MAX))
        return REPLY_HEADER.pack(HEADER_BYTES + len(data), 0, unique), data

    def _readdir(self, nodeid: int, unique: int, request: bytes) -> Reply:
        _, cookie, size = READ_REQUEST.unpack_from(request, BODY_OFFSET)
        return self._directories.read(unique, nodeid, cookie, size)

    def _statfs(self, nodeid: int, unique: int, request: bytes) -> Reply:  # noqa: ARG002
        blocks, free_blocks, files, free_files = self._file_system.statfs()
        return STATFS_REPLY.pack(
            STATFS_REPLY.size,
            0,
            unique,
            blocks,
            free_blocks,
            free_blocks,
            files,
            free_files,
            BLOCK_BYTES,
            NAME_BYTES_MAX,
            BLOCK_BYTES,
        )

    def _getxattr(self, nodeid: int, unique: int, request: bytes) -> Reply:
        room, _ = GETXATTR_REQUEST.unpack_from(request, BODY_OFFSET)
        name = request[GETXATTR_NAME_OFFSET:-1]
        gid = REQUEST_HEADER.unpack_from(request)[_GID_FIELD]
        value = self._file_system.getxattr(nodeid, name, gid)
        if value is None:
            is_label = name in _SECURITY_LABELS
            return error_reply(unique, errno.EOPNOTSUPP if is_label else errno.ENODATA)
        return _xattr_reply(unique, value, room)

    def _interrupt(self, nodeid: int, unique: int, request: bytes) -> Reply:  # noqa: ARG002
        (interrupted,) = INTERRUPT_REQUEST.unpack_from(request, BODY_OFFSET)
        if self.interrupt(interrupted):
            return None
        return error_reply(unique, errno.EAGAIN)  # it has come before the other one

    def _listxattr(self, nodeid: int, unique: int, request: bytes) -> Reply:
        room, _ = GETXATTR_REQUEST.unpack_from(request, BODY_OFFSET)
        names = self._file_system.listxattr(nodeid)
        return _xattr_reply(unique, b"".join(name + b"\0" for name in names), room)


# "ls -l" asks each file for these, and the kernel keeps no answer. Told that the file
# system has no labels, ls and cp ask once for all files: seven times faster then.
_SECURITY_LABELS = frozenset({b"security.selinux", b"security.SMACK64"})

_SPECIAL_NAMES = frozenset({b"", b".", b".."})


def _fields(found: Attributes) -> tuple[int | bytes, ...]:
    """Return what follows in a reply that ends with attributes."""
    inode, size, blocks, mtime, nanos, mode, nlink, uid, gid, rdev = found
    times = (mtime, mtime, mtime, nanos, nanos, nanos)
    return (inode, size, blocks, *times, mode, nlink, uid, gid, rdev, BLOCK_SIZE)


def _with_data(unique: int, data: bytes) -> bytes:
    return REPLY_HEADER.pack(HEADER_BYTES + len(data), 0, unique) + data


def _xattr_reply(unique: int, value: bytes, room: int) -> bytes:
    """Return a value, or its size where the caller asks with no room at all."""
    size = len(value)
    if size > XATTR_BYTES_MAX:
        return error_reply(unique, errno.E2BIG)
    if not room:
        return XATTR_SIZE_REPLY.pack(XATTR_SIZE_REPLY.size, 0, unique, size, 0)
    if size > room:
        return error_reply(unique, errno.ERANGE)
    return _with_data(unique, value)


def _refuse(number: int) -> _Handler:
    """Return a handler that always answers the same errno, or "done" for 0."""

    def handler(nodeid: int, unique: int, request: bytes) -> Reply:  # noqa: ARG001
        return error_reply(unique, number)

    return handler


def _ignore(nodeid: int, unique: int, request: bytes) -> Reply:  # noqa: ARG001
    return None
