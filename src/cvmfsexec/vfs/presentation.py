"""How catalog entries look as files: owner, mode, size, link target.

What the publisher stored and what a user should see differ: the owner may be claimed
by the user or mapped, modes may be opened up, and link targets hold variables.

Source: docs/reference/client-behaviour.md, "File system semantics"; repository-format
"Symlinks, devices, ownership, times".
"""

from collections.abc import Mapping
from typing import NamedTuple

from cvmfsexec.format.dirent import DirectoryEntry, Flag
from cvmfsexec.format.variant_symlink import expand
from cvmfsexec.vfs.attributes import Attributes

_DIRECTORY_READABLE = 0o555
_FILE_READABLE = 0o444
_LINK = Flag.SYMLINK
_SPECIAL = Flag.SPECIAL
_NOT_PLAIN = Flag.SYMLINK | Flag.SPECIAL


class IdMap(NamedTuple):
    """What becomes of published owner numbers.

    Attributes:
        table: Published number to shown number.
        default: Shown for all others; ``None`` leaves them as they are.
    """

    table: Mapping[int, int]
    default: int | None = None

    def shown(self, published: int) -> int:
        """Return the number to show."""
        mapped = self.table.get(published, self.default)
        return published if mapped is None else mapped


class Presentation:
    """Turns entries into attributes under one set of rules. Immutable."""

    def __init__(
        self,
        *,
        variables: Mapping[str, str],
        uid_map: IdMap,
        gid_map: IdMap,
        is_world_readable: bool = False,
    ) -> None:
        """Fix the rules.

        Args:
            variables: Values for ``$(NAME)`` in link targets.
            uid_map: Shown owners; claiming ownership is an empty table with a default.
            gid_map: Shown groups.
            is_world_readable: Whether everything may be read by everybody.
        """
        self._variables = variables
        self._uid_map = uid_map
        self._gid_map = gid_map
        self._is_world_readable = is_world_readable

    def attributes(self, entry: DirectoryEntry, inode: int) -> Attributes:
        """Return what ``stat`` shows for an entry. Hot: runs once per listed name."""
        flags = entry.flags
        mode = entry.mode
        size = entry.size
        rdev = 0
        if flags & _NOT_PLAIN:
            if flags & _LINK:
                size = len(self.link_target(entry))
            else:
                size, rdev = 0, size
        if self._is_world_readable:
            mode |= _DIRECTORY_READABLE if flags & 1 else _FILE_READABLE
        return Attributes(
            inode,
            size,
            1 + size // 512,
            entry.mtime_s,
            entry.mtime_ns,
            mode,
            entry.hardlinks & 0xFFFFFFFF or 1,
            self._uid_map.shown(entry.uid),
            self._gid_map.shown(entry.gid),
            rdev,
        )

    def link_target(self, entry: DirectoryEntry) -> bytes:
        """Return where a link points, with its variables replaced."""
        target = entry.symlink
        return expand(target, self._variables) if b"$(" in target else target
