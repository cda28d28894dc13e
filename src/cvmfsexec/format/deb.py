"""Debian packages: an ``ar`` archive of two tar archives.

There is no digest and no signature in it: who has the file has to know its hash.

Source: deb(5), deb-control(5).
"""

from typing import NamedTuple

from cvmfsexec.errors import FormatError
from cvmfsexec.format.archive import UNPACKED_BYTES_MAX, ArchiveEntry, EntryKind
from cvmfsexec.format.compression import decompress
from cvmfsexec.format.tar import parse_tar

MAGIC = b"!<arch>\n"

_HEADER_BYTES = 60
_HEADER_END = b"`\n"
_MEMBER_COUNT_MAX = 16
_CONTROL_BYTES_MAX = 4 << 20
_COMPRESSIONS = (b"", b".gz", b".xz", b".zst", b".bz2", b".lzma")


class Deb(NamedTuple):
    """A package.

    Attributes:
        name: Of the package.
        version: With the Debian revision.
        entries: What it would install.
    """

    name: str
    version: str
    entries: tuple[ArchiveEntry, ...]


def parse_deb(data: bytes) -> Deb:
    """Read a whole package.

    Raises:
        FormatError: It is malformed, damaged, or too much.
        ConfigurationError: A library for its compression is missing.
    """
    members = _parse_members(data)
    if not members.get(b"debian-binary", b"").startswith(b"2."):
        raise FormatError("a Debian package is of another format than 2")
    control = parse_tar(decompress(_one(members, b"control.tar"), _CONTROL_BYTES_MAX))
    fields = _parse_control(control)
    entries = parse_tar(decompress(_one(members, b"data.tar"), UNPACKED_BYTES_MAX))
    return Deb(fields["Package"], fields["Version"], entries)


def _parse_members(data: bytes) -> dict[bytes, bytes]:
    if not data.startswith(MAGIC):
        raise FormatError("this is no Debian package")
    members: dict[bytes, bytes] = {}
    offset = len(MAGIC)
    while offset < len(data):
        header = data[offset : offset + _HEADER_BYTES]
        digits = header[48:58].rstrip(b" ")
        if header[58:] != _HEADER_END or not digits.isdigit():
            raise FormatError("a Debian package has a malformed member")
        name, size = header[:16].rstrip(b" ").removesuffix(b"/"), int(digits)
        offset += _HEADER_BYTES
        content = data[offset : offset + size]
        if len(content) < size:
            raise FormatError("a Debian package is cut short")
        if name in members or len(members) >= _MEMBER_COUNT_MAX:
            raise FormatError("a Debian package has a member twice, or too many")
        members[name] = content
        offset += size + size % 2
    return members


def _one(members: dict[bytes, bytes], name: bytes) -> bytes:
    found = [members[name + end] for end in _COMPRESSIONS if name + end in members]
    if len(found) != 1:
        raise FormatError(f"a Debian package has no {name.decode()}, or several")
    return found[0]


def _parse_control(entries: tuple[ArchiveEntry, ...]) -> dict[str, str]:
    """Return the fields of one line each."""
    text = next(
        (
            entry.content
            for entry in entries
            if entry.path == b"control" and entry.kind is EntryKind.FILE
        ),
        b"",
    )
    fields: dict[str, str] = {}
    for line in text.decode("utf-8", "replace").splitlines():
        key, colon, value = line.partition(":")
        if colon and not key[:1].isspace():
            fields.setdefault(key, value.strip())
    if not fields.get("Package") or not fields.get("Version"):
        raise FormatError("a Debian package does not say its name and version")
    return fields
