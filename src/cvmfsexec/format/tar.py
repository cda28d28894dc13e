"""tar archives, as far as packages use them: ustar with the extensions of GNU and pax.

Why not ``tarfile``: it reads files, and takes more kinds of entries than are wanted
here.

Source: tar(5) of libarchive.
"""

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

_BLOCK = 512
_NUL_BLOCK = bytes(_BLOCK)
_CHECKSUM = slice(148, 156)
_LONG_BYTES_MAX = 1 << 16  # of names and attributes that have entries of their own
_EXECUTABLE = 0o100
_FILE_TYPES = (b"0", b"\0", b"7")


class _Header(NamedTuple):
    """One header block."""

    name: bytes
    mode: int
    size_bytes: int
    type: bytes
    target: bytes


class _Given(NamedTuple):
    """What earlier entries say about the next one; None: its own header counts."""

    name: bytes | None = None
    target: bytes | None = None
    size_bytes: int | None = None


def parse_tar(data: bytes) -> tuple[ArchiveEntry, ...]:
    """Return the entries.

    Raises:
        FormatError: It is malformed or cut short, holds something that is neither
            file nor directory nor link, or breaks a rule of ``archive``.
    """
    entries: dict[int, ArchiveEntry] = {}
    contents: dict[bytes, bytes] = {}
    given = _Given()
    offset = count = 0
    while True:
        block = data[offset : offset + _BLOCK]
        if block == _NUL_BLOCK:
            break
        header = _parse_header(block)
        offset += _BLOCK
        size = header.size_bytes if given.size_bytes is None else given.size_bytes
        content = data[offset : offset + size]
        if len(content) < size:
            raise FormatError("a tar archive is cut short")
        offset += size + -size % _BLOCK
        count += 1
        if count > ENTRY_COUNT_MAX:
            raise FormatError(f"an archive has more than {ENTRY_COUNT_MAX} entries")
        if header.type in b"LKxg":
            given = _take_up(header.type, content, given)
            continue
        entry = _entry(header, content, given, contents)
        given = _Given()
        entries[count] = entry
        if entry.kind is EntryKind.FILE:
            contents[entry.path] = entry.content
    check_entries(entries.values())
    return tuple(entries.values())


def _parse_header(block: bytes) -> _Header:
    if len(block) < _BLOCK:
        raise FormatError("a tar archive is cut short")
    plain = block[:148] + b" " * 8 + block[156:]
    if _parse_number(block[_CHECKSUM]) != sum(plain):
        raise FormatError("a tar archive has a damaged header")
    name = _text(block[:100])
    if block[257:263] == b"ustar\0" and (prefix := _text(block[345:500])):
        name = prefix + b"/" + name
    return _Header(
        name,
        _parse_number(block[100:108]),
        _parse_number(block[124:136]),
        block[156:157],
        _text(block[157:257]),
    )


def _parse_number(field: bytes) -> int:
    """Read octal digits, or a binary number if the first bit is set."""
    if field[0] & 0x80:
        number = int.from_bytes(field, "big") & ~(0x80 << 8 * (len(field) - 1))
        if number >> 48:
            raise FormatError("a tar archive has an unreasonable number")
        return number
    digits = field.strip(b" \0")
    if not digits:
        return 0
    if digits.strip(b"01234567"):
        raise FormatError("a tar archive has a malformed number")
    return int(digits, 8)


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _take_up(kind: bytes, content: bytes, given: _Given) -> _Given:
    if len(content) > _LONG_BYTES_MAX:
        raise FormatError("a tar archive has an unreasonable name")
    if kind == b"L":
        return given._replace(name=_text(content))
    if kind == b"K":
        return given._replace(target=_text(content))
    if kind == b"g":
        return given  # of the archive as a whole: comments
    for key, value in _parse_attributes(content).items():
        if key == b"path":
            given = given._replace(name=value)
        elif key == b"linkpath":
            given = given._replace(target=value)
        elif key == b"size":
            given = given._replace(size_bytes=_parse_size(value))
        elif key.startswith(b"GNU.sparse"):
            raise FormatError("a tar archive holds a sparse file")
    return given


def _parse_attributes(text: bytes) -> dict[bytes, bytes]:
    """Read records of LENGTH, KEY=VALUE and a newline; the length counts itself."""
    attributes = {}
    while text:
        digits = text[:8].partition(b" ")[0]
        length = _parse_size(digits)
        record = text[:length]
        key, equals, value = record[len(digits) + 1 :].partition(b"=")
        if not record.endswith(b"\n") or len(record) != length or not equals:
            raise FormatError("a tar archive has malformed attributes")
        attributes[key] = value[:-1]
        text = text[length:]
    return attributes


def _parse_size(digits: bytes) -> int:
    if not digits.isdigit() or len(digits) > 15:
        raise FormatError("a tar archive has a malformed size")
    return int(digits)


def _entry(
    header: _Header, content: bytes, given: _Given, contents: dict[bytes, bytes]
) -> ArchiveEntry:
    path = entry_path(header.name if given.name is None else given.name)
    target = header.target if given.target is None else given.target
    if header.type == b"5":
        return ArchiveEntry(path, EntryKind.DIRECTORY)
    if not path:
        raise FormatError("an archive gives its top another kind than directory")
    is_executable = bool(header.mode & _EXECUTABLE)
    if header.type == b"2":
        if len(target) > PATH_BYTES_MAX:
            raise FormatError("a tar archive has an unreasonable link")
        return ArchiveEntry(path, EntryKind.LINK, target=target)
    if header.type == b"1":
        earlier = entry_path(target)
        if earlier not in contents:
            raise FormatError(f"an archive links {path[:80]!r} to what is not in it")
        return ArchiveEntry(
            path, EntryKind.FILE, contents[earlier], is_executable=is_executable
        )
    if header.type in _FILE_TYPES:
        return ArchiveEntry(path, EntryKind.FILE, content, is_executable=is_executable)
    raise FormatError(f"an archive holds {path[:80]!r}, a device or the like")
