"""Modes that count although the mount was not made so.

Who makes a mount says by ``default_permissions`` that the kernel is to check modes.
Apptainer does not. Kernels since 4.9 check all the same if the server knows access
control lists (``negotiation.CHECKING``); for older ones we check here.

The kernel tells who asks: the user, one group, and the process, by which the other
groups can be found as long as it is visible from here. Names in a directory that not
everybody may search are not to be remembered by the kernel: it would show them to
others without asking. All opens are asked here.
"""

import errno
import os
import stat
import struct
from collections.abc import Callable
from contextlib import suppress

from cvmfsexec.fuse.faults import FaultAccount
from cvmfsexec.fuse.negotiation import CHECKING, WANTED, Terms
from cvmfsexec.fuse.operations import Operations
from cvmfsexec.fuse.protocol import (
    ACCESS_REQUEST,
    BODY_OFFSET,
    REQUEST_HEADER,
    Feature,
    Opcode,
    Reply,
    error_reply,
)
from cvmfsexec.fuse.server import FuseServer
from cvmfsexec.vfs.attributes import FileSystem

_Handler = Callable[[int, int, bytes], Reply]

_ROOT = 0
_FOR_ALL_TO_SEARCH = stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH
_ENTRY_VALID_OFFSET = 32  # reply header, nodeid, generation
_NO_TIME = struct.pack("<Q", 0)


class CheckingOperations(Operations):
    """Operations that ask for each access whether the mode allows it."""

    def __init__(
        self, file_system: FileSystem, terms: Terms, faults: FaultAccount
    ) -> None:
        """Answer as the base class, once it is allowed."""
        super().__init__(file_system, terms, faults)
        self._is_open_asked = self._is_opendir_asked = True

    def _table(self) -> list[_Handler]:
        table = super()._table()
        table[Opcode.LOOKUP] = self._search
        table[Opcode.ACCESS] = self._access
        for opcode in (Opcode.OPEN, Opcode.OPENDIR, Opcode.GETXATTR):
            table[opcode] = self._checked(table[opcode])
        return table

    def _checked(self, handler: _Handler) -> _Handler:
        """Return a handler that begins by asking for permission to read."""

        def check(nodeid: int, unique: int, request: bytes) -> Reply:
            if not self._allows(nodeid, request, os.R_OK):
                return error_reply(unique, errno.EACCES)
            return handler(nodeid, unique, request)

        return check

    def _access(self, nodeid: int, unique: int, request: bytes) -> Reply:
        (wanted,) = ACCESS_REQUEST.unpack_from(request, BODY_OFFSET)
        if wanted & os.W_OK:
            return error_reply(unique, errno.EROFS)
        is_allowed = self._allows(nodeid, request, wanted)
        return error_reply(unique, 0 if is_allowed else errno.EACCES)

    def _search(self, nodeid: int, unique: int, request: bytes) -> Reply:
        if not self._allows(nodeid, request, os.X_OK):
            return error_reply(unique, errno.EACCES)
        reply = self._lookup(nodeid, unique, request)
        if self._mode(nodeid) & _FOR_ALL_TO_SEARCH == _FOR_ALL_TO_SEARCH:
            return reply
        return _not_to_be_remembered(reply)

    def _mode(self, nodeid: int) -> int:
        found = self._file_system.attributes(nodeid)
        return found.mode if found else 0

    def _allows(self, nodeid: int, request: bytes, wanted: int) -> bool:
        """Whether the one who makes a request may do all of what is wanted."""
        found = self._file_system.attributes(nodeid)
        if found is None:
            return True  # whatever it is, the answer is that there is no such thing
        *_, uid, gid, pid, _, _ = REQUEST_HEADER.unpack_from(request)
        if uid == _ROOT:
            is_program = not stat.S_ISREG(found.mode) or found.mode & _FOR_ALL_TO_SEARCH
            return bool(is_program) or not wanted & os.X_OK
        if uid == found.uid:
            allowed = found.mode >> 6
        elif gid == found.gid or found.gid in _groups(pid):
            allowed = found.mode >> 3
        else:
            allowed = found.mode
        return not wanted & ~allowed & 0o7


class CheckingServer(FuseServer):
    """Serves a mount on which modes are to be checked."""

    wanted = WANTED | CHECKING

    def operations(self, terms: Terms) -> Operations:
        """Return what answers the requests."""
        if terms.uses(CHECKING):
            return super().operations(terms)
        return CheckingOperations(self.file_system, terms, self.faults)

    def accept(self, terms: Terms) -> Terms:
        """Return what of the terms is to be used."""
        if terms.uses(CHECKING):
            return terms
        # What listings bring with them, the kernel would remember for everybody.
        return terms._replace(features=terms.features & ~Feature.DO_READDIRPLUS)


def _groups(pid: int) -> frozenset[int]:
    """Return the groups of a process, as far as they can be found."""
    with (
        suppress(OSError, ValueError),
        open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as status,
    ):
        for line in status:
            if line.startswith("Groups:"):
                return frozenset(int(word) for word in line.split()[1:])
    return frozenset()


def _not_to_be_remembered(reply: Reply) -> Reply:
    """Return the reply to a LOOKUP, for this one time only."""
    if not isinstance(reply, bytes) or len(reply) < _ENTRY_VALID_OFFSET + len(_NO_TIME):
        return reply
    after = _ENTRY_VALID_OFFSET + len(_NO_TIME)
    return reply[:_ENTRY_VALID_OFFSET] + _NO_TIME + reply[after:]
