"""How catalog entries look as files: owner, mode, size, link target.

What the publisher stored and what a user should see differ: the owner may be claimed
by the user or mapped, modes may be opened up, and link targets hold variables.

Source: docs/reference/client-behaviour.md, "File system semantics"; repository-format
"Symlinks, devices, ownership, times".
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import repeat

from cvmfsexec.format.dirent import DirectoryEntry, Flag, Listing
from cvmfsexec.format.variant_symlink import expand
from cvmfsexec.vfs.attributes import Attributes

_DIRECTORY_READABLE = 0o555
_FILE_READABLE = 0o444
_LINK = Flag.SYMLINK
_OWNERS_MAX = 4096
_new_tuple = tuple.__new__  # what Attributes(...) does, without the call around it
_NOT_PLAIN = Flag.SYMLINK | Flag.SPECIAL


class _Memory(dict[int, int]):
    """Answers of a function, remembered: owners are few, and asked for all the time."""

    def __init__(self, function: Callable[[int], int]) -> None:
        super().__init__()
        self._function = function

    def __missing__(self, number: int) -> int:
        if len(self) >= _OWNERS_MAX:
            self.clear()
        shown = self[number] = self._function(number)
        return shown


class Presentation:
    """Turns entries into attributes under one set of rules. Immutable."""

    def __init__(
        self,
        *,
        variables: Mapping[str, str],
        shown_uid: Callable[[int], int],
        shown_gid: Callable[[int], int],
        is_world_readable: bool = False,
    ) -> None:
        """Fix the rules.

        Args:
            variables: Values for ``$(NAME)`` in link targets.
            shown_uid: Owner to show for the one that was published.
            shown_gid: Group likewise.
            is_world_readable: Whether everything may be read by everybody.
        """
        self._variables = variables
        self._shown_uid = _Memory(shown_uid)
        self._shown_gid = _Memory(shown_gid)
        self._is_world_readable = is_world_readable

    def attributes(self, entry: DirectoryEntry, inode: int) -> Attributes:
        """Return what ``stat`` shows for an entry."""
        flags = entry.flags
        mode = entry.mode
        size = entry.size
        rdev = 0
        if flags & _NOT_PLAIN:
            if flags & _LINK:
                size = len(self.link_target(entry))
            else:
                size, rdev = 0, _kernel_device(size)
        if self._is_world_readable:
            mode = _opened_mode(mode, flags)
        return _new_tuple(
            Attributes,
            (
                inode,
                size,
                1 + size // 512,
                entry.mtime_s,
                entry.mtime_ns,
                mode,
                entry.hardlinks & 0xFFFFFFFF or 1,
                self._shown_uid[entry.uid],
                self._shown_gid[entry.gid],
                rdev,
            ),
        )

    def listed(self, entries: Listing, inodes: Iterable[int]) -> Iterator[Attributes]:
        """Yield what ``stat`` shows for each entry of a listing; the same, but faster.

        Python's loops cost more than what they do here, so there is one for a column
        only where that column needs it.
        """
        sizes: Sequence[int] = entries.size
        modes: Sequence[int] = entries.mode
        devices: Iterable[int] = repeat(0)
        kinds = set(entries.flags)
        if any(flags & _NOT_PLAIN for flags in kinds):
            devices = [
                _kernel_device(size) if flags & _NOT_PLAIN == Flag.SPECIAL else 0
                for flags, size in zip(entries.flags, sizes, strict=True)
            ]
            sizes = list(map(self._shown_size, entries.flags, sizes, entries.symlink))
        if self._is_world_readable:
            modes = list(map(_opened_mode, modes, entries.flags))
        links: Iterable[int] = repeat(1)
        if any(number != 1 for number in set(entries.hardlinks)):
            links = [number & 0xFFFFFFFF or 1 for number in entries.hardlinks]
        columns = zip(
            inodes,
            sizes,
            [1 + size // 512 for size in sizes],
            entries.mtime_s,
            entries.mtime_ns,
            modes,
            links,
            map(self._shown_uid.__getitem__, entries.uid),
            map(self._shown_gid.__getitem__, entries.gid),
            devices,
            strict=False,  # repeat() does not end
        )
        return map(_new_tuple, repeat(Attributes), columns)

    def _shown_size(self, flags: int, size: int, target: bytes) -> int:
        if flags & _LINK:
            return len(self._expanded(target))
        return 0 if flags & _NOT_PLAIN else size

    def link_target(self, entry: DirectoryEntry) -> bytes:
        """Return where a link points, with its variables replaced."""
        return self._expanded(entry.symlink)

    def _expanded(self, target: bytes) -> bytes:
        return expand(target, self._variables) if b"$(" in target else target


def _opened_mode(mode: int, flags: int) -> int:
    """Return the mode of what may be read by everybody."""
    return mode | (_DIRECTORY_READABLE if flags & 1 else _FILE_READABLE)


def _kernel_device(stored: int) -> int:
    """Re-encode a device number: catalogs hold glibc's 64 bits, FUSE takes 32."""
    major, minor = os.major(stored), os.minor(stored)
    return (minor & 0xFF) | (major & 0xFFF) << 8 | (minor & 0xFFF00) << 12
