"""What the archives inside of packages hold, and the rules for all of them.

An archive is somebody else's list of names that are to become files here. So a name
leads downwards, stands for one thing only, and nothing lies below what is no directory:
whoever writes the entries to an empty directory writes nowhere else.
"""

from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from cvmfsexec.errors import FormatError
from cvmfsexec.format.names import NAME_BYTES_MAX, parent_path

if TYPE_CHECKING:
    from collections.abc import Iterable

ENTRY_COUNT_MAX = 20_000
UNPACKED_BYTES_MAX = 256 << 20
"""Ten thousand times what a configuration package holds; a client has 60 MiB."""

PATH_BYTES_MAX = 4096
_DEPTH_MAX = 64


class EntryKind(Enum):
    """What a name stands for."""

    FILE = "file"
    DIRECTORY = "directory"
    LINK = "symbolic link"


class ArchiveEntry(NamedTuple):
    """One name in an archive.

    Attributes:
        path: Relative, without ``.`` and ``..``; empty for the top directory.
        kind: What it is.
        content: Of a file.
        target: Of a symbolic link, as it was written.
        is_executable: Whether it is a program.
    """

    path: bytes
    kind: EntryKind
    content: bytes = b""
    target: bytes = b""
    is_executable: bool = False


def entry_path(name: bytes) -> bytes:
    """Return the path for a name as archives write it, such as ``./etc/passwd``.

    Raises:
        FormatError: It is absolute, leads upwards, or cannot be a path.
    """
    plain = name.removeprefix(b"./").rstrip(b"/")
    if plain in {b"", b"."} and not name.startswith(b"/"):
        return b""
    parts = plain.split(b"/")
    is_odd = any(
        part in {b"", b".", b".."} or len(part) > NAME_BYTES_MAX for part in parts
    )
    is_long = len(plain) > PATH_BYTES_MAX or len(parts) > _DEPTH_MAX
    if is_odd or is_long or b"\0" in plain:
        raise FormatError(f"an archive holds the forbidden path {name[:80]!r}")
    return plain


def check_entries(entries: "Iterable[ArchiveEntry]") -> None:
    """Refuse a list of entries that cannot be written one after the other.

    Raises:
        FormatError: A name comes twice, or lies below a file or a link.
    """
    kinds: dict[bytes, EntryKind] = {}
    for entry in entries:
        earlier = kinds.get(entry.path)
        is_again = earlier is entry.kind is EntryKind.DIRECTORY
        if earlier is not None and not is_again:
            raise FormatError(f"an archive holds {entry.path[:80]!r} twice")
        kinds[entry.path] = entry.kind
    _check_parents(kinds)


def _check_parents(kinds: dict[bytes, EntryKind]) -> None:
    for path in kinds:
        parent = parent_path(path)
        while parent:
            kind = kinds.get(parent, EntryKind.DIRECTORY)
            if kind is not EntryKind.DIRECTORY:
                raise FormatError(
                    f"an archive holds {path[:80]!r} below a {kind.value}"
                )
            parent = parent_path(parent)
