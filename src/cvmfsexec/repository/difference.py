"""What changed from one revision to another, entry by entry.

Two trees are walked side by side. A nested catalog that is the same object in both is
the same in all that lies below, and is neither fetched nor opened: the price of a
comparison is that of what was published in between.

Source: docs/reference/cvmfs.md. The aspects are those that ``cvmfs_server diff``
tells, and owners.
"""

from collections.abc import Callable, Iterator
from enum import Enum
from typing import NamedTuple

from cvmfsexec.catalog.reader import Catalog
from cvmfsexec.errors import FormatError
from cvmfsexec.format.chunk import Chunk
from cvmfsexec.format.dirent import DirectoryEntry, Flag
from cvmfsexec.format.names import ROOT
from cvmfsexec.repository.catalog_tree import CatalogTree
from cvmfsexec.repository.lookup import Location, PathLookup

RESERVED = b"/.cvmfs"
"""Publishers keep tags there; it changes with each, and is nobody's content."""


class ChangeKind(Enum):
    """What happened to a name."""

    ADDED = "add"
    REMOVED = "remove"
    MODIFIED = "modify"


class Aspect(Enum):
    """In what respect an entry differs."""

    LINK_COUNT = "link-count"
    SIZE = "size"
    MODE = "mode"
    TIMESTAMP = "timestamp"
    SYMLINK_TARGET = "symlink-target"
    CONTENT = "content"
    HARDLINK_GROUP = "hardlink-group"
    NESTED_CATALOG = "nested-catalog"
    CHUNKED_FILE = "chunked-file"
    XATTRS = "xattrs"
    EXTERNAL_FILE = "external-file"
    BIND_MOUNTPOINT = "bind-mountpoint"
    HIDDEN = "hidden"
    DIRECT_IO = "direct-io"
    OWNER = "owner"


class Change(NamedTuple):
    """One name that is not as it was.

    Attributes:
        path: In the repository.
        kind: What happened.
        old: The entry before; ``None`` if there was none.
        new: The entry now; ``None`` if there is none.
        aspects: In what a modified entry differs.
    """

    path: bytes
    kind: ChangeKind
    old: DirectoryEntry | None
    new: DirectoryEntry | None
    aspects: tuple[Aspect, ...] = ()


class _Pair(NamedTuple):
    """The two states of one name; at least one is there."""

    path: bytes
    old: Location | None
    new: Location | None


def differences(old: CatalogTree, new: CatalogTree) -> Iterator[Change]:
    """Yield what changed, a directory before what is in it, by name.

    What lies in a directory that was added or removed is told name by name.

    Raises:
        CvmfsError: A catalog cannot be fetched, or is damaged.
    """
    sides = (_Side(old), _Side(new))
    pending = [_Pair(ROOT, sides[0].root(), sides[1].root())]
    while pending:
        pair = pending.pop()
        change = _change_of(pair, *sides)
        if change is not None:
            yield change
        pending += sorted(_inside(pair, *sides), reverse=True, key=lambda one: one.path)


class _Side:
    """One of the two trees."""

    def __init__(self, tree: CatalogTree) -> None:
        self._tree = tree
        self._lookup = PathLookup(tree)

    def root(self) -> Location:
        return self._lookup.root()

    def entries(self, directory: Location | None) -> dict[bytes, Location]:
        """Return what is in a directory, the hidden included; nothing if it is none."""
        if directory is None or not directory.entry.is_directory:
            return {}
        if directory.entry.is_bind_mountpoint:
            return {}  # another revision, and not a part of this one
        slot = self._lookup.contents_slot(directory)
        found = {}
        for entry in self._tree.catalog(slot).list_(slot.hash_of(directory.path)):
            path = directory.path + b"/" + entry.name
            if entry.path_hash != slot.hash_of(path):
                raise FormatError(f"{path!r} is stored as another path")
            if path != RESERVED:
                found[entry.name] = Location(path, slot, entry)
        return found

    def catalog(self, location: Location) -> Catalog:
        return self._tree.catalog(location.slot)

    def chunks(self, location: Location) -> tuple[Chunk, ...]:
        """Return the pieces of a file; nothing if it is stored whole."""
        entry = location.entry
        return self.catalog(location).chunks(entry) if entry.is_chunked else ()


def _inside(pair: _Pair, old: _Side, new: _Side) -> list[_Pair]:
    """Return the names in a directory that may differ, or hold what does."""
    if _is_same_catalog(pair, old, new):
        return []
    before, now = old.entries(pair.old), new.entries(pair.new)
    return [
        _Pair(pair.path + b"/" + name, before.get(name), now.get(name))
        for name in before.keys() | now.keys()
    ]


def _is_same_catalog(pair: _Pair, old: _Side, new: _Side) -> bool:
    """Whether the same catalog begins here in both trees."""
    if pair.old is None or pair.new is None:
        return False
    if not (
        pair.old.entry.is_nested_mountpoint and pair.new.entry.is_nested_mountpoint
    ):
        return False
    before = old.catalog(pair.old).find_nested(pair.path)
    now = new.catalog(pair.new).find_nested(pair.path)
    return (
        before is not None
        and now is not None
        and before.content_hash == now.content_hash
    )


def _change_of(pair: _Pair, old: _Side, new: _Side) -> Change | None:
    if pair.new is None:
        before = pair.old.entry if pair.old is not None else None
        return Change(pair.path, ChangeKind.REMOVED, before, None)
    if pair.old is None:
        return Change(pair.path, ChangeKind.ADDED, None, pair.new.entry)
    aspects = [
        aspect
        for aspect, value in _VALUES.items()
        if value(pair.old.entry) != value(pair.new.entry)
    ]
    if Aspect.CONTENT not in aspects and old.chunks(pair.old) != new.chunks(pair.new):
        aspects.append(Aspect.CONTENT)
    if not aspects:
        return None
    change = Change(pair.path, ChangeKind.MODIFIED, pair.old.entry, pair.new.entry)
    return change._replace(aspects=tuple(aspects))


def _flag(flag: int) -> Callable[[DirectoryEntry], object]:
    return lambda entry: entry.flags & flag != 0


_VALUES: dict[Aspect, Callable[[DirectoryEntry], object]] = {
    Aspect.LINK_COUNT: lambda entry: entry.linkcount,
    # That of a directory says how many bytes its own file had on the publisher's disk.
    Aspect.SIZE: lambda entry: 0 if entry.is_directory else entry.size,
    Aspect.MODE: lambda entry: entry.mode,
    Aspect.TIMESTAMP: lambda entry: (entry.mtime_s, entry.mtime_ns),
    Aspect.SYMLINK_TARGET: lambda entry: entry.symlink,
    Aspect.CONTENT: lambda entry: entry.content_hash,
    # Its number is the catalog's own affair.
    Aspect.HARDLINK_GROUP: lambda entry: entry.hardlink_group != 0,
    Aspect.NESTED_CATALOG: _flag(Flag.NESTED_MOUNTPOINT),
    Aspect.CHUNKED_FILE: _flag(Flag.CHUNKED),
    Aspect.XATTRS: lambda entry: entry.xattr or None,
    Aspect.EXTERNAL_FILE: _flag(Flag.EXTERNAL),
    Aspect.BIND_MOUNTPOINT: _flag(Flag.BIND_MOUNTPOINT),
    Aspect.HIDDEN: _flag(Flag.HIDDEN),
    Aspect.DIRECT_IO: _flag(Flag.DIRECT_IO),
    Aspect.OWNER: lambda entry: (entry.uid, entry.gid),
}
"""What is compared. Where files are in chunks, these are compared as well."""
