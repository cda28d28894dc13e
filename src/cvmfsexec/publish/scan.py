"""The source tree as it is before publication, read into memory.

Everything that a catalog says of an entry is gathered here, and everything that
cannot be published is refused here, before the first byte is stored: unreadable
directories, entries that vanish, reserved names.

Source paths are ``bytes``: names need not be UTF-8. Entries of a directory are sorted
by name, so that two scans of one tree are equal.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from typing import NamedTuple

from cvmfsexec import log
from cvmfsexec.errors import FormatError, PublishError
from cvmfsexec.format.names import ROOT
from cvmfsexec.format.xattr import LENGTH_MAX, serialize_xattrs

Advance = Callable[[int], object]
"""Is told of progress: the amount done since it was last called."""

MARKER = b".cvmfscatalog"
"""Name of the file that asks for a catalog of its own for its directory."""

DIRTAB = b".cvmfsdirtab"
"""Name of the file in the root directory that asks for catalogs by pattern."""

RESERVED = b".cvmfs"
"""Name in the root directory that clients and servers keep for themselves."""

NO_INODE = 0
"""Inode of an entry that only the repository has."""

_GRAFT_PREFIX = b".cvmfsgraft-"  # instructions for the original's server, not content
_CARRIED_XATTRS = frozenset(
    [b"security.capability", b"system.posix_acl_access", b"system.posix_acl_default"]
)


class SourceEntry(NamedTuple):
    """One name in a source directory.

    Attributes:
        path: In the repository; ``b""`` for the root.
        size: Bytes as the file system says; of links, the length of the target.
        device, inode: Identity of the file, to recognise hard links and changes.
        symlink: Target; empty unless a symbolic link.
        xattr: Extended attributes as a catalog stores them, or None.
    """

    path: bytes
    name: bytes
    mode: int
    size: int
    mtime_ns: int
    uid: int
    gid: int
    device: int
    inode: int
    link_count: int
    rdev: int
    symlink: bytes
    xattr: bytes | None

    @property
    def is_directory(self) -> bool:
        """Whether this is a directory."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_regular(self) -> bool:
        """Whether this is a regular file."""
        return stat.S_ISREG(self.mode)

    @property
    def is_made_here(self) -> bool:
        """Whether the source has no such file; then it is empty."""
        return self.inode == NO_INODE


class SourceDirectory(NamedTuple):
    """One directory and the names in it, sorted by name."""

    entry: SourceEntry
    entries: tuple[SourceEntry, ...]

    @property
    def has_marker(self) -> bool:
        """Whether the directory asks for a catalog of its own."""
        return any(entry.name == MARKER for entry in self.entries)

    @property
    def subdirectory_count(self) -> int:
        """How many of the names are directories."""
        return sum(entry.is_directory for entry in self.entries)


class SourceTree(NamedTuple):
    """All directories of a source tree by path; each after the one it lies in."""

    source: bytes
    directories: dict[bytes, SourceDirectory]

    def local_path(self, entry: SourceEntry) -> bytes:
        """Return where an entry is on the local disk."""
        return self.source + entry.path

    def regular_files(self) -> Iterator[SourceEntry]:
        """Yield the files to be read, directory by directory."""
        for directory in self.directories.values():
            for entry in directory.entries:
                if entry.is_regular and not entry.is_made_here:
                    yield entry

    def read_dirtab(self) -> bytes:
        """Return the text of ``/.cvmfsdirtab``; empty without one."""
        for entry in self.directories[ROOT].entries:
            if entry.name == DIRTAB and entry.is_regular:
                path = self.local_path(entry)
                try:
                    with open(path, "rb") as stream:
                        return stream.read()
                except OSError as error:
                    raise unreadable(path, error) from error
        return b""


def scan(source: bytes, advance: Advance | None = None) -> SourceTree:
    """Read a tree, following no symbolic link below its root.

    Args:
        source: Directory on the local disk that becomes the repository's root.
        advance: Is told of the entries read.

    Raises:
        PublishError: Something cannot be read, vanished meanwhile, or must not be
            published.
    """
    source = source.rstrip(b"/") or b"/"
    directories: dict[bytes, SourceDirectory] = {}
    pending = [_root_entry(source)]
    while pending:
        entry = pending.pop()
        directory = SourceDirectory(entry, _read_directory(source, entry.path))
        directories[entry.path] = directory
        pending.extend(e for e in reversed(directory.entries) if e.is_directory)
        if advance is not None:
            advance(len(directory.entries))
    return SourceTree(source, directories)


def unreadable(path: bytes, error: OSError) -> PublishError:
    """Return the error for something in the source that could not be read."""
    shown = os.fsdecode(path)
    if error.errno == errno.ENOENT:
        return PublishError(
            f"{shown!r} vanished while it was being published",
            hint="publish again when nothing changes the source directory",
        )
    return PublishError(
        f"cannot read {shown!r}: {error.strerror}",
        hint="make everything in the source directory readable, or take it out",
    )


def _root_entry(source: bytes) -> SourceEntry:
    try:
        status = os.stat(source)
        if stat.S_ISDIR(status.st_mode):
            return _entry(source, ROOT, b"", status)
    except FileNotFoundError as error:
        raise PublishError(f"there is no {os.fsdecode(source)!r}") from error
    except OSError as error:
        raise unreadable(source, error) from error
    raise PublishError(f"{os.fsdecode(source)!r} is not a directory")


def _read_directory(source: bytes, path: bytes) -> tuple[SourceEntry, ...]:
    local = source + path
    try:
        with os.scandir(local) as listing:
            names = sorted(listing, key=lambda found: found.name)
    except OSError as error:
        raise unreadable(local, error) from error
    return tuple(
        _read_entry(source, path, found)
        for found in names
        if _is_published(path, found)
    )


def _is_published(directory: bytes, found: os.DirEntry[bytes]) -> bool:
    """Whether a name belongs into the repository; refuses what must not be there."""
    name = found.name
    if name.startswith(_GRAFT_PREFIX):
        log.warning("left out: %r (grafting is not supported)", os.fsdecode(found.path))
        return False
    if name == MARKER:
        if directory == ROOT:
            raise PublishError(
                "the root directory must not hold '.cvmfscatalog'",
                hint="remove it: the root always has a catalog",
            )
        if not found.is_file(follow_symlinks=False):
            raise PublishError(f"{os.fsdecode(found.path)!r} is not a regular file")
    if name == RESERVED and directory == ROOT:
        raise PublishError("'/.cvmfs' is reserved and cannot be published")
    return True


def _read_entry(
    source: bytes, directory: bytes, found: os.DirEntry[bytes]
) -> SourceEntry:
    path = directory + b"/" + found.name
    try:
        return _entry(
            source + path, path, found.name, found.stat(follow_symlinks=False)
        )
    except OSError as error:
        raise unreadable(found.path, error) from error


def _entry(
    local: bytes, path: bytes, name: bytes, status: os.stat_result
) -> SourceEntry:
    is_link = stat.S_ISLNK(status.st_mode)
    return SourceEntry(
        path=path,
        name=name,
        mode=status.st_mode,
        size=status.st_size,
        mtime_ns=status.st_mtime_ns,
        uid=status.st_uid,
        gid=status.st_gid,
        device=status.st_dev,
        inode=status.st_ino,
        link_count=status.st_nlink,
        rdev=status.st_rdev,
        symlink=os.readlink(local) if is_link else b"",
        xattr=_read_xattrs(local, follow_symlinks=path == ROOT),
    )


def _read_xattrs(local: bytes, *, follow_symlinks: bool) -> bytes | None:
    try:
        names = os.listxattr(local, follow_symlinks=follow_symlinks)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return None
        raise
    attributes = {}
    for name in map(os.fsencode, names):
        if name.startswith(b"user.") or name in _CARRIED_XATTRS:
            value = os.getxattr(local, name, follow_symlinks=follow_symlinks)
            if len(name) > LENGTH_MAX or len(value) > LENGTH_MAX:
                where = os.fsdecode(local)
                log.warning("left out: attribute %r of %r (too long)", name, where)
            else:
                attributes[name] = value
    try:
        return serialize_xattrs(attributes)
    except FormatError as error:
        raise PublishError(f"{os.fsdecode(local)!r}: {error}") from error
