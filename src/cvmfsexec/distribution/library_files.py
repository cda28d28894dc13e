"""Shared libraries among the entries of an archive, by name alone.

Packages have them in directories of their own for each architecture, and link one name
to another. Here all of them are on one level, and each name has its content: so nothing
in a strange archive can lead anywhere.
"""

from typing import TYPE_CHECKING

from cvmfsexec.format.archive import ArchiveEntry, EntryKind

if TYPE_CHECKING:
    import re
    from collections.abc import Iterable

_LINK_COUNT_MAX = 8


def libraries_among(
    entries: "Iterable[ArchiveEntry]", pattern: "re.Pattern[bytes]"
) -> dict[str, bytes]:
    """Return contents by name; links to what is not there are left out.

    Args:
        entries: Of an archive.
        pattern: Of the paths that count; its last group is the name.
    """
    found: dict[bytes, ArchiveEntry] = {}
    for entry in entries:
        if entry.kind is not EntryKind.DIRECTORY and (
            match := pattern.fullmatch(entry.path)
        ):
            found.setdefault(match[match.re.groups], entry)
    contents = {}
    for name in found:
        content = _content(name, found)
        if content is not None:
            contents[name.decode("utf-8", "surrogateescape")] = content
    return contents


def _content(name: bytes, found: "dict[bytes, ArchiveEntry]") -> bytes | None:
    for _ in range(_LINK_COUNT_MAX):
        entry = found.get(name)
        if entry is None:
            return None
        if entry.kind is EntryKind.FILE:
            return entry.content
        name = entry.target.rpartition(b"/")[2]
    return None
