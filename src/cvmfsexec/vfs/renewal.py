"""What stays and what changes for the kernel when another revision is shown.

What is the same in both revisions keeps its inode: files, links and the like if nothing
at all of them has changed; directories if there is one at the same path. So what has
changed is told by few things: names that lead elsewhere now, and directories whose
attributes are others. Groups of hard links are the exception: they always count as
changed when their catalog is, because their numbers say nothing across catalogs.
"""

from collections.abc import Iterator
from typing import NamedTuple

from cvmfsexec.format.dirent import DirectoryEntry, Flag
from cvmfsexec.format.names import ROOT, PathHash, path_hash
from cvmfsexec.repository.advance import Advance
from cvmfsexec.repository.catalog_tree import CatalogTree
from cvmfsexec.repository.comparison import PlacedEntry, compare
from cvmfsexec.vfs.attributes import ROOT_INODE, Changes
from cvmfsexec.vfs.inode_numbers import Inheritance, InodeNumbers

_ROOT_HASH = path_hash(ROOT)


class Renewal(NamedTuple):
    """The numbers of the next revision, and what the kernel has to be told."""

    numbers: InodeNumbers
    changes: Changes


def renew(tree: CatalogTree, numbers: InodeNumbers, advance: Advance) -> Renewal:
    """Compare what is shown with what is to be.

    Args:
        tree: Still shows the revision before.
        numbers: Of that revision.
        advance: The way to the next one.

    Raises:
        FormatError: A catalog is damaged.
        CvmfsError: A catalog cannot be read.
    """
    comparison = _Comparison(tree, numbers, advance)
    inherited = list(comparison.inherited())
    return Renewal(
        numbers.inherit(advance.root, advance.shown.values(), inherited),
        comparison.changes(),
    )


class _Comparison:
    def __init__(
        self, tree: CatalogTree, numbers: InodeNumbers, advance: Advance
    ) -> None:
        self._tree = tree
        self._numbers = numbers
        self._advance = advance
        self._names: list[tuple[PathHash, bytes]] = []
        self._attributes: list[int] = []
        self._directories: dict[PathHash, int] = {}
        self._bound_otherwise = {
            path_hash(mountpoint)
            for mountpoint, slot in tree.known().by_mountpoint.items()
            if slot.is_bind and advance.shown.get(mountpoint) is not slot
        }

    def inherited(self) -> Iterator[Inheritance]:
        """Yield what keeps its number; remember what has changed."""
        for group in self._advance.groups:
            for before, after in compare(self._tree, group.left, group.entered):
                if before is not None and after is not None:
                    inode = self._compare(before, after)
                    if inode is not None:
                        yield Inheritance(inode, after.slot.number, after.entry.row)
                else:
                    self._change(before or after)

    def changes(self) -> Changes:
        """Return what was remembered; what lies below a changed name goes with that."""
        directories = self._directories
        return Changes(
            [
                (directories[parent], name)
                for parent, name in self._names
                if parent in directories
            ],
            self._attributes,
        )

    def _compare(self, before: PlacedEntry, after: PlacedEntry) -> int | None:
        """Return the inode that an entry keeps; ``None`` if it is another one. Hot."""
        old = before.entry
        if old.is_directory:
            return self._compare_directories(before, after)
        if self._is_same(before, after):
            return self._numbers.of(before.slot.number, old.row)
        self._change(after)
        return None

    def _compare_directories(
        self, before: PlacedEntry, after: PlacedEntry
    ) -> int | None:
        old, new = before.entry, after.entry
        path = old.path_hash
        if path == _ROOT_HASH:
            inode = int(ROOT_INODE)
        elif self._is_same_directory(old, new):
            inode = self._numbers.of(before.slot.number, old.row)
        else:
            self._change(after)
            return None
        self._directories[path] = inode
        if _shown_values(old) != _shown_values(new):
            self._attributes.append(inode)
        return None if path == _ROOT_HASH else inode

    def _is_same_directory(self, old: DirectoryEntry, new: DirectoryEntry) -> bool:
        if not new.is_directory or old.path_hash in self._bound_otherwise:
            return False
        return not (old.flags ^ new.flags) & (Flag.BIND_MOUNTPOINT | Flag.HIDDEN)

    def _is_same(self, before: PlacedEntry, after: PlacedEntry) -> bool:
        old, new = before.entry, after.entry
        if old[1:] != new[1:] or old.hardlinks >> 32:
            return False
        if not old.is_chunked:
            return True
        chunks = self._tree.catalog(before.slot).chunks(old)
        return chunks == self._tree.catalog(after.slot).chunks(new)

    def _change(self, placed: PlacedEntry | None) -> None:
        if placed is not None and placed.entry.name:
            self._names.append((placed.entry.parent_hash, placed.entry.name))


def _shown_values(entry: DirectoryEntry) -> tuple[int, ...]:
    return (
        entry.size,
        entry.mode,
        entry.mtime_s,
        entry.mtime_ns,
        entry.hardlinks,
        entry.uid,
        entry.gid,
    )
