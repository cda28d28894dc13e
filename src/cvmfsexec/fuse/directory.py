"""Listings: replies to READDIR and READDIRPLUS, packed as long as they fit.

The kernel reads a directory in pieces, each time telling the cookie of the last entry
it has, and a last time to hear that there is no more. The listing that a piece was cut
from is kept under (inode, cookie), so that the next piece goes on where it ended
instead of querying the catalog again. What is kept is a short cut only: if it was
dropped, the file system is asked for a listing after the cookie.

Facts about READDIRPLUS: each entry carries a whole LOOKUP reply, which the kernel
enters into its caches; with a nodeid of 0 it does not ("." and ".." must not be).
Records are padded to 8 bytes. A record that does not fit has to wait for the next
request, and an empty reply ends the directory.

A listing ends in the revision in which it began, and so may outlive it. What is told of
an entry then is its name only, with a nodeid of 0: the kernel would keep the rest.

Threads: any may call. A kept listing is taken out by the thread that goes on with it,
so that it is never advanced by two at once; a lock guards the table.
"""

import errno
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import NamedTuple

from cvmfsexec.errors import CvmfsError
from cvmfsexec.format.names import NAME_BYTES_MAX
from cvmfsexec.fuse.protocol import (
    BLOCK_SIZE,
    DIRENT_ALIGNMENT,
    DIRENT_FORMAT,
    DIRENTPLUS_FORMAT,
    FOREVER_S,
    HEADER_BYTES,
    REPLY_HEADER,
    entry_validity,
    error_reply,
)
from cvmfsexec.vfs.attributes import FIRST_COOKIE, Attributes, FileSystem

_Entry = tuple[int, bytes, Attributes]

_REPLY_BYTES_MAX = 1 << 20  # the kernel's own limit

# Directories being read at one moment by all jobs of a node. A listing that nobody
# goes on with stays until as many others were cut; it may hold a block of entries.
_KEPT_LISTINGS_MAX = 16

_DOTS = ((1, b"."), (2, b".."))
_DIRECTORY_MODE = 0o040000
_NO_COOKIE = 1 << 64  # above all
_TYPE_SHIFT = 12  # S_IFMT of a mode to DT_* of a directory entry


class _Cut(NamedTuple):
    """What is left of a listing: the entry that did not fit, and the rest."""

    leftover: tuple[_Entry, ...]
    rest: Iterator[_Entry]


_FINISHED = _Cut((), iter(()))


class DirectoryReader:
    """Answers requests for pieces of directories."""

    def __init__(
        self,
        file_system: FileSystem,
        *,
        with_attributes: bool,
        validity_s: int = FOREVER_S,
    ) -> None:
        """Prepare.

        Args:
            file_system: Lists.
            with_attributes: Whether READDIRPLUS is answered, or READDIR.
            validity_s: How long the kernel may keep what it is told.
        """
        self._file_system = file_system
        self._is_listed_now = file_system.is_listed_now
        self._fill = _plus_filler(validity_s) if with_attributes else _plain_filler()
        self._kept: dict[tuple[int, int], _Cut] = {}
        self._lock = threading.Lock()

    def read(
        self, unique: int, inode: int, cookie: int, size: int
    ) -> bytes | memoryview:
        """Return the reply with the entries that follow a cookie.

        Args:
            unique: Number of the request.
            inode: The directory.
            cookie: 0 for the start.
            size: Bytes of entries that the kernel has room for.

        Raises:
            CvmfsError: The directory cannot be listed, and no entry came before.
        """
        buffer = bytearray(HEADER_BYTES + min(size, _REPLY_BYTES_MAX))
        cut = self._take(inode, cookie)
        is_now = self._is_listed_now(inode, cookie)
        filled = self._fill(buffer, cookie, chain(cut.leftover, cut.rest), is_now)
        while is_now and not self._is_listed_now(inode, filled.cookie):
            # Another revision is shown since, of which the kernel was told.
            cut = self._from(inode, cookie)
            is_now = self._is_listed_now(inode, cookie)
            filled = self._fill(buffer, cookie, chain(cut.leftover, cut.rest), is_now)
        is_empty = filled.end == HEADER_BYTES
        if filled.error is not None:
            # What came before the error is told; the next request meets it again.
            if is_empty:
                raise filled.error
        else:
            if is_empty and filled.leftover:
                return error_reply(unique, errno.EINVAL)  # empty would mean the end
            rest = _Cut(filled.leftover, cut.rest) if filled.leftover else _FINISHED
            self._keep(inode, filled.cookie, rest)
        REPLY_HEADER.pack_into(buffer, 0, filled.end, 0, unique)
        return memoryview(buffer)[: filled.end]

    def _take(self, inode: int, cookie: int) -> _Cut:
        """Return what follows a cookie."""
        with self._lock:
            kept = self._kept.pop((inode, cookie), None)
        return self._from(inode, cookie) if kept is None else kept

    def _from(self, inode: int, cookie: int) -> _Cut:
        """Begin to list after a cookie."""
        listing = iter(self._file_system.list_(inode, max(cookie, FIRST_COOKIE - 1)))
        if cookie >= FIRST_COOKIE - 1:
            return _Cut((), listing)
        return _Cut(self._dots(inode)[cookie:], listing)

    def _keep(self, inode: int, cookie: int, cut: _Cut) -> None:
        with self._lock:
            self._kept[inode, cookie] = cut
            if len(self._kept) > _KEPT_LISTINGS_MAX:
                del self._kept[next(iter(self._kept))]

    def _dots(self, inode: int) -> tuple[_Entry, ...]:
        """Return the entries "." and ".."; only their inodes and types are used."""
        inodes = (inode, self._file_system.parent(inode))
        return tuple(
            (cookie, name, Attributes(number, 0, 0, 0, 0, _DIRECTORY_MODE, 2, 0, 0, 0))
            for (cookie, name), number in zip(_DOTS, inodes, strict=True)
        )


class _Filled(NamedTuple):
    """What became of a reply.

    Attributes:
        end: Where its last entry ends.
        cookie: Of that entry.
        leftover: The entry that did not fit, if one did not.
        error: What ended the listing before its end.
    """

    end: int
    cookie: int
    leftover: tuple[_Entry, ...]
    error: CvmfsError | None


_Filler = Callable[[bytearray, int, Iterable[_Entry], bool], _Filled]
"""Writes entries behind the header of a reply, as long as they fit; takes the cookie of
the entry before, too, and whether the kernel may keep what it is told."""


def _plus_filler(validity_s: int) -> _Filler:
    """Return what fills a reply to READDIRPLUS. Hot: 1 us per listed entry."""
    validity = entry_validity(validity_s)
    sizes, packers = _layouts(DIRENTPLUS_FORMAT)

    def fill(
        buffer: bytearray,
        before: int,
        entries: Iterable[_Entry],
        may_keep: bool,  # noqa: FBT001
    ) -> _Filled:
        position, room = HEADER_BYTES, len(buffer)
        first_kept = FIRST_COOKIE if may_keep else _NO_COOKIE
        try:
            for entry in entries:
                cookie, name, attributes = entry
                inode, size, blocks, mtime, nanos, mode, nlink, uid, gid, rdev = (
                    attributes
                )
                length = len(name)
                end = position + sizes[length]
                if end > room:
                    return _Filled(position, before, (entry,), None)
                packers[length](
                    buffer,
                    position,
                    inode if cookie >= first_kept else 0,
                    validity,
                    inode,
                    size,
                    blocks,
                    mtime,
                    mtime,
                    mtime,
                    nanos,
                    nanos,
                    nanos,
                    mode,
                    nlink,
                    uid,
                    gid,
                    rdev,
                    BLOCK_SIZE,
                    inode,
                    cookie,
                    length,
                    mode >> _TYPE_SHIFT,
                    name,
                )
                position, before = end, cookie
        except CvmfsError as error:
            return _Filled(position, before, (), error)
        return _Filled(position, before, (), None)

    return fill


def _plain_filler() -> _Filler:
    """Return what fills a reply to READDIR."""
    sizes, packers = _layouts(DIRENT_FORMAT)

    def fill(
        buffer: bytearray,
        before: int,
        entries: Iterable[_Entry],
        _may_keep: bool,  # noqa: FBT001
    ) -> _Filled:
        position, room = HEADER_BYTES, len(buffer)
        try:
            for entry in entries:
                cookie, name, attributes = entry
                length = len(name)
                end = position + sizes[length]
                if end > room:
                    return _Filled(position, before, (entry,), None)
                kind = attributes.mode >> _TYPE_SHIFT
                packers[length](
                    buffer, position, attributes.inode, cookie, length, kind, name
                )
                position, before = end, cookie
        except CvmfsError as error:
            return _Filled(position, before, (), error)
        return _Filled(position, before, (), None)

    return fill


def _layouts(fixed: str) -> tuple[list[int], list[Callable[..., None]]]:
    """Compile a record of fixed fields and a padded name, by length of the name.

    Returns:
        Bytes of the record, and ``pack_into`` of its layout; both for 0 to 255.
    """
    sizes: list[int] = []
    packers: list[Callable[..., None]] = []
    for padded in range(0, NAME_BYTES_MAX + DIRENT_ALIGNMENT, DIRENT_ALIGNMENT):
        layout = struct.Struct(f"<{fixed} {padded}s")
        lengths = DIRENT_ALIGNMENT if padded else 1
        sizes += [layout.size] * lengths
        packers += [layout.pack_into] * lengths
    return sizes[: NAME_BYTES_MAX + 1], packers[: NAME_BYTES_MAX + 1]
