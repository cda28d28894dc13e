"""cpio archives ("new ASCII", with or without checksums): what an RPM package holds.

Each entry has a header of hexadecimal numbers, a name, and its content, the latter two
padded to four bytes. Files of several names have their content with the last of them.

Source: cpio(5) of libarchive, "New ASCII Format".
"""

import binascii
import stat
import struct
from typing import NamedTuple

from cvmfsexec.errors import FormatError
from cvmfsexec.format.archive import (
    ENTRY_COUNT_MAX,
    PATH_BYTES_MAX,
    ArchiveEntry,
    EntryKind,
    check_entries,
    entry_path,
)

_MAGICS = (b"070701", b"070702")
_HEADER_BYTES = 110
_NUMBERS = struct.Struct(">13I")
_END = b"TRAILER!!!"

_Inode = tuple[int, int, int]


class _Header(NamedTuple):
    """The numbers, in the order in which they come."""

    inode: int
    mode: int
    uid: int
    gid: int
    link_count: int
    modified_at_s: int
    size_bytes: int
    device_major: int
    device_minor: int
    special_major: int
    special_minor: int
    name_bytes: int
    checksum: int

    @property
    def identity(self) -> _Inode:
        """Equal for all names of a file."""
        return self.inode, self.device_major, self.device_minor


def parse_cpio(data: bytes) -> tuple[ArchiveEntry, ...]:
    """Return the entries; what follows the end mark does not count.

    Raises:
        FormatError: It is malformed or cut short, holds something that is neither
            file nor directory nor symbolic link, or breaks a rule of ``archive``.
    """
    entries: list[ArchiveEntry] = []
    contents: dict[_Inode, bytes] = {}
    names: dict[int, _Inode] = {}
    offset = 0
    while True:
        header = _parse_header(data, offset)
        name, offset = _parse_name(data, offset + _HEADER_BYTES, header.name_bytes)
        if name == _END:
            break
        if len(entries) >= ENTRY_COUNT_MAX:
            raise FormatError(f"an archive has more than {ENTRY_COUNT_MAX} entries")
        content = data[offset : offset + header.size_bytes]
        if len(content) < header.size_bytes:
            raise FormatError("an archive is cut short")
        offset += header.size_bytes + -header.size_bytes % 4
        if stat.S_ISREG(header.mode) and header.link_count > 1:
            names[len(entries)] = header.identity
            contents[header.identity] = content or contents.get(header.identity, b"")
        entries.append(_entry(name, header.mode, content))
    for index, identity in names.items():
        entries[index] = entries[index]._replace(content=contents[identity])
    check_entries(entries)
    return tuple(entries)


def _parse_header(data: bytes, offset: int) -> _Header:
    if data[offset : offset + 6] not in _MAGICS:
        raise FormatError("an archive is no cpio archive, or is cut short")
    try:
        numbers = binascii.unhexlify(data[offset + 6 : offset + _HEADER_BYTES])
        return _Header(*_NUMBERS.unpack(numbers))
    except (binascii.Error, struct.error) as error:
        raise FormatError("a cpio archive has a malformed header") from error


def _parse_name(data: bytes, offset: int, size: int) -> tuple[bytes, int]:
    """Return the name, and where the content begins."""
    name = data[offset : offset + size]
    if not 1 < size <= PATH_BYTES_MAX or len(name) < size or name[-1:] != b"\0":
        raise FormatError("a cpio archive has a malformed name")
    # Headers begin at multiples of four, too.
    end = offset + size
    return name[:-1], end + -end % 4


def _entry(name: bytes, mode: int, content: bytes) -> ArchiveEntry:
    path = entry_path(name)
    if stat.S_ISDIR(mode):
        return ArchiveEntry(path, EntryKind.DIRECTORY)
    if not path:
        raise FormatError("an archive gives its top another kind than directory")
    if stat.S_ISLNK(mode):
        return ArchiveEntry(path, EntryKind.LINK, target=content)
    if stat.S_ISREG(mode):
        is_executable = bool(mode & stat.S_IXUSR)
        return ArchiveEntry(path, EntryKind.FILE, content, is_executable=is_executable)
    raise FormatError(f"an archive holds {path[:80]!r}, a device or the like")
