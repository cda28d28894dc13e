"""A repository as a read-only tree of inodes: what ``fuse`` shows to the kernel.

An inode is ``slot << 32 | row``: the catalog's slot and the row in it. It needs no
table and means the same for the life of the mount; hardlinks share the smallest row
of their group. The root is 1, as FUSE wants it. For a directory one also needs its
path, because a catalog finds entries by the hash of their path: paths are remembered
when a directory is met, and rebuilt from the parents' rows when one was forgotten.

Answers of ``None`` mean "no such entry" and come from verified catalogs only. Every
failure to find out is a ``CvmfsError``.

Threads: all methods may be called from any thread at once. The memories are plain
dictionaries of immutable values, replaced key by key; losing an update in a race
costs a query, never an answer.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from typing import NamedTuple, TypeVar

from cvmfsexec.catalog.reader import Catalog
from cvmfsexec.errors import CvmfsError, FormatError, StaleInodeError
from cvmfsexec.fetch import ObjectRequest
from cvmfsexec.format.chunk import Chunk, covering
from cvmfsexec.format.dirent import DirectoryEntry, Flag, Listing
from cvmfsexec.format.names import parent_path
from cvmfsexec.repository.catalog_tree import CatalogTree
from cvmfsexec.repository.lookup import Location, PathLookup
from cvmfsexec.repository.objects import chunk_request, file_request
from cvmfsexec.repository.slot import Slot
from cvmfsexec.vfs.attributes import (
    FIRST_COOKIE,
    ROOT_INODE,
    Attributes,
    FilesystemStatistics,
)
from cvmfsexec.vfs.descriptors import DescriptorCache
from cvmfsexec.vfs.extended_attributes import ExtendedAttributes
from cvmfsexec.vfs.lookahead import LookAhead
from cvmfsexec.vfs.presentation import Presentation

_ROW_BITS = 32
_ROW_MASK = (1 << _ROW_BITS) - 1
_COOKIE_OFFSET = FIRST_COOKIE - 1  # rows begin at 1
_LIST_BATCH = 1024  # entries; a listing of a million names is never in memory
_DEPTH_MAX = 2048  # PATH_MAX / 2: no path that Linux can name is deeper
_DIRECTORIES_MAX = 50_000  # at some 220 bytes each
_LAYOUTS_MAX = 1024
_LAYOUT_CHUNKS_MAX = 20_000  # of all layouts, at 300 bytes each; 160 GB of files

_OWN_CONTENTS_MASK = (
    Flag.DIRECTORY
    | Flag.SYMLINK
    | Flag.SPECIAL
    | Flag.NESTED_MOUNTPOINT
    | Flag.BIND_MOUNTPOINT
)

_Listed = tuple[int, bytes, Attributes]
_Missed = Callable[[], object]
_Value = TypeVar("_Value")


class _Directory(NamedTuple):
    """A directory that was met.

    Attributes:
        path: In the repository.
        slot: The catalog in which its entries are; of a transition point ``None``,
            until it is asked for, as it may have to be fetched.
        parent: Inode of the directory in which it was met; 0 for unknown.
    """

    path: bytes
    slot: Slot | None
    parent: int = 0


class _Layout(NamedTuple):
    """How the bytes of a regular file are stored: as one object, or in chunks."""

    entry: DirectoryEntry
    path: bytes
    whole: ObjectRequest | None
    chunks: tuple[Chunk, ...]


class RepositoryFileSystem:
    """One revision of a repository by inode."""

    def __init__(
        self,
        tree: CatalogTree,
        descriptors: DescriptorCache,
        presentation: Presentation,
        extended_attributes: ExtendedAttributes,
        statfs: Callable[[], FilesystemStatistics],
        look_ahead: LookAhead | None = None,
    ) -> None:
        """Put the parts together; nothing is fetched yet."""
        self._look_ahead = look_ahead
        self._tree = tree
        self._lookup = PathLookup(tree)
        self._descriptors = descriptors
        self._presentation = presentation
        self._extended_attributes = extended_attributes
        self.statfs = statfs
        self._directories: dict[int, _Directory] = {}
        self._layouts: dict[int, _Layout] = {}
        self._layout_chunks = 0

    def lookup(self, parent: int, name: bytes) -> Attributes | None:
        """Return the attributes of a name in a directory."""
        above, slot = self._contents(parent)
        path = above + b"/" + name
        catalog = self._tree.catalog(slot)
        entry = catalog.find(slot.hash_of(path))
        if entry is None:
            return None
        if entry.name != name:
            raise FormatError(f"{path!r} is stored under the name {entry.name!r}")
        inode = _inode_of(slot, catalog, entry)
        if entry.flags & Flag.DIRECTORY:
            self._meet(inode, _Directory(path, _slot_inside(slot, entry.flags), parent))
        return self._presentation.attributes(entry, inode)

    def attributes(self, inode: int) -> Attributes | None:
        """Return the attributes of an inode."""
        found = self._find(inode)
        if found is None:
            return None
        return self._presentation.attributes(found[1], inode)

    def list_(self, inode: int, after: int) -> Iterator[tuple[int, bytes, Attributes]]:
        """Yield what a directory shows, without ``.`` and ``..``.

        Args:
            inode: The directory.
            after: Cookie of the last entry that the caller has; less for none.

        Yields:
            A cookie, ascending and valid for the life of the mount; the name; the
            attributes.
        """
        return chain.from_iterable(self._parts(inode, after))

    def _parts(self, inode: int, after: int) -> Iterator[Iterable[_Listed]]:
        path, slot = self._contents(inode)
        catalog = self._tree.listed(slot)
        parent = slot.hash_of(path)
        row = max(after - _COOKIE_OFFSET, 0)
        while True:
            entries = catalog.listing(parent, after_row=row, limit=_LIST_BATCH)
            count = len(entries.row)
            if count:
                row = entries.row[-1]
                yield self._shown(inode, path, slot, entries)
            if count < _LIST_BATCH:
                return

    def _shown(
        self, inode: int, path: bytes, slot: Slot, entries: Listing
    ) -> Iterable[_Listed]:
        """Return what a part of a listing shows. Hot: most of it runs in C."""
        kinds = set(entries.flags)
        if any(flags & Flag.HIDDEN for flags in kinds):
            entries = entries.where(not flags & Flag.HIDDEN for flags in entries.flags)
        base = slot.number << _ROW_BITS
        inodes = [base | row for row in entries.row]
        if any(links >> 32 for links in set(entries.hardlinks)):
            catalog = self._tree.catalog(slot)
            first_rows = catalog.hardlink_rows(slot.hash_of(path))
            inodes = [
                base | (first_rows.get(links, row) if links >> 32 else row)
                for links, row in zip(entries.hardlinks, entries.row, strict=True)
            ]
        if any(flags & Flag.DIRECTORY for flags in kinds):
            for child, name, flags in zip(
                inodes, entries.name, entries.flags, strict=True
            ):
                if flags & Flag.DIRECTORY:
                    inside = _slot_inside(slot, flags)
                    self._meet(child, _Directory(path + b"/" + name, inside, inode))
        return zip(
            [row + _COOKIE_OFFSET for row in entries.row],
            entries.name,
            self._presentation.listed(entries, inodes),
            strict=True,
        )

    def parent(self, inode: int) -> int:
        """Return the inode of the directory that a directory lies in."""
        path, slot, met_in = self._directory(inode)
        if met_in:
            return met_in
        above = parent_path(path)
        if not above:
            return ROOT_INODE
        # Not by way of the root if possible.
        if len(above) > len(slot.mountpoint):
            found = self._lookup.find_in(slot, above)
        else:
            found = self._lookup.find(above)
        if found is None:
            raise FormatError(f"{path!r} lies in a directory that is not there")
        return found.slot.number << _ROW_BITS | found.entry.row

    def readlink(self, inode: int) -> bytes | None:
        """Return where a symbolic link points; ``None`` if it is none."""
        entry = self._get(inode)[1]
        return self._presentation.link_target(entry) if entry.is_symlink else None

    def read(self, inode: int, offset: int, size: int) -> bytes:
        """Return a piece of a regular file; shorter only at its end."""
        layout = self._layouts.get(inode)
        is_first = layout is None
        if layout is None:
            layout = self._layout(inode)
            self._remember_layout(inode, layout)
        length = min(size, layout.entry.size - offset)
        if length <= 0:
            return b""
        if layout.whole is not None:
            missed = self._foresee_file(inode, layout) if is_first else None
            return self._descriptors.read(layout.whole, offset, length, missed)
        pieces = [
            self._descriptors.read(
                chunk_request(layout.entry, piece.chunk, layout.path),
                piece.start,
                piece.length,
                self._foresee_chunk(inode, layout, piece.chunk),
            )
            for piece in covering(layout.chunks, offset, length)
        ]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _foresee_file(self, inode: int, layout: _Layout) -> _Missed | None:
        """Tell what is read; return how to tell that it is missing, if that matters."""
        ahead = self._look_ahead
        slot_number, entry = inode >> _ROW_BITS, layout.entry
        if ahead is None or entry.is_external:
            return None
        if ahead.is_active and ahead.read_file(slot_number, entry):
            return None
        return partial(self._missed_file, slot_number, entry)

    def _missed_file(self, slot_number: int, entry: DirectoryEntry) -> None:
        slot = self._tree.slot(slot_number)
        if self._look_ahead is not None and slot is not None:
            catalog = self._tree.catalog(slot)
            self._look_ahead.missed_file(slot_number, catalog, entry)

    def _foresee_chunk(
        self, inode: int, layout: _Layout, chunk: Chunk
    ) -> _Missed | None:
        ahead = self._look_ahead
        if ahead is None or layout.entry.is_external:
            return None
        if ahead.is_active and ahead.read_chunk(inode, chunk):
            return None
        return partial(ahead.missed_chunk, inode, layout.entry, layout.chunks, chunk)

    def getxattr(self, inode: int, name: bytes) -> bytes | None:
        """Return the value of an extended attribute; ``None`` if there is none."""
        return self._extended_attributes.find(self._location(inode), name)

    def listxattr(self, inode: int) -> list[bytes]:
        """Return the names of the extended attributes that are to be seen."""
        return self._extended_attributes.names(self._location(inode))

    def describe(self, inode: int) -> str:
        """Return what messages call an inode: its path, or its number failing that."""
        try:
            path = self._location(inode).path
        except CvmfsError:
            return f"inode {inode:#x}"
        return repr(path.decode("utf-8", "surrogateescape") or "/")

    def _find(self, inode: int) -> tuple[Slot, DirectoryEntry] | None:
        if inode == ROOT_INODE:
            root = self._lookup.root()
            return root.slot, root.entry
        slot = self._tree.slot(inode >> _ROW_BITS)
        if slot is None:
            return None
        entry = self._tree.catalog(slot).find_row(inode & _ROW_MASK)
        return None if entry is None else (slot, entry)

    def _get(self, inode: int) -> tuple[Slot, DirectoryEntry]:
        found = self._find(inode)
        if found is None:
            raise StaleInodeError(f"there is no inode {inode:#x}")
        return found

    def _location(self, inode: int) -> Location:
        slot, entry = self._get(inode)
        return Location(self._path(inode, slot, entry), slot, entry)

    def _directory(self, inode: int) -> tuple[bytes, Slot, int]:
        """Return a directory's path, its entries' catalog, and its parent or 0."""
        known = self._directories.get(inode)
        if known is not None and known.slot is not None:
            return known.path, known.slot, known.parent
        location = self._location(inode)
        if not location.entry.is_directory:
            raise FormatError(f"inode {inode} is not a directory")
        slot = self._lookup.contents_slot(location)
        parent = 0 if known is None else known.parent
        self._meet(inode, _Directory(location.path, slot, parent))
        return location.path, slot, parent

    def _contents(self, inode: int) -> tuple[bytes, Slot]:
        return self._directory(inode)[:2]

    def _meet(self, inode: int, directory: _Directory) -> None:
        _keep(self._directories, inode, directory, _DIRECTORIES_MAX)

    def _layout(self, inode: int) -> _Layout:
        slot, entry = self._get(inode)
        if not entry.is_regular:
            raise FormatError(f"inode {inode} is not a regular file")
        path = self._path(inode, slot, entry) if entry.is_external else b""
        if entry.is_chunked:
            chunks = self._tree.catalog(slot).chunks(entry)
            return _Layout(entry, path, None, chunks)
        content_hash = entry.content_hash
        if content_hash is None:
            raise FormatError(f"file {entry.name!r} has no content hash")
        return _Layout(entry, path, file_request(entry, content_hash, path), ())

    def _remember_layout(self, inode: int, layout: _Layout) -> None:
        self._layout_chunks += len(layout.chunks)
        if self._layout_chunks > _LAYOUT_CHUNKS_MAX:
            self._layouts.clear()
        _keep(self._layouts, inode, layout, _LAYOUTS_MAX)
        if len(self._layouts) == 1:
            self._layout_chunks = len(layout.chunks)

    def _path(self, inode: int, slot: Slot, entry: DirectoryEntry) -> bytes:
        known = self._directories.get(inode)
        return self._rebuild_path(slot, entry) if known is None else known.path

    def _rebuild_path(self, slot: Slot, entry: DirectoryEntry) -> bytes:
        """Climb from an entry to the root of its catalog, collecting names."""
        catalog = self._tree.catalog(slot)
        top = slot.hash_of(slot.mountpoint)
        names: list[bytes] = []
        while entry.path_hash != top:
            names.append(entry.name)
            above = catalog.find(entry.parent_hash)
            if above is None or len(names) > _DEPTH_MAX:
                raise FormatError(f"{entry.name!r} is not connected to its catalog")
            entry = above
        return slot.mountpoint + b"".join(b"/" + name for name in reversed(names))


def _slot_inside(slot: Slot, flags: int) -> Slot | None:
    """Return the catalog of a directory's entries, if that is its own entry's."""
    return slot if flags & _OWN_CONTENTS_MASK == Flag.DIRECTORY else None


def _inode_of(slot: Slot, catalog: Catalog, entry: DirectoryEntry) -> int:
    row = catalog.hardlink_row(entry) if entry.hardlinks >> 32 else entry.row
    return slot.number << _ROW_BITS | row


def _keep(memory: dict[int, _Value], inode: int, value: _Value, limit: int) -> None:
    """Remember a value; a full memory is emptied, since all of it can be rebuilt."""
    if len(memory) >= limit:
        memory.clear()
    memory[inode] = value
