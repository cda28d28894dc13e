"""A repository as a read-only tree of inodes: what ``fuse`` shows to the kernel.

An inode is ``slot << 32 | row``: the catalog's slot and the row in it; hardlinks share
the smallest row of their group. The root is 1, as FUSE wants it. For a directory one
also needs its path, because a catalog finds entries by the hash of their path: paths
are remembered when a directory is met, and rebuilt from the parents' rows when one was
forgotten.

Another revision may take the place of the one shown. An inode goes on meaning what it
meant (:mod:`.inode_numbers`): a file the same content; a directory the one at its path,
or what it last was. What is no longer there can be read as long as somebody holds it.

Answers of ``None`` mean "no such entry" and come from verified catalogs only. Every
failure to find out is a ``CvmfsError``.

Threads: all methods may be called from any thread at once. The memories are plain
dictionaries of immutable values, replaced key by key; losing an update in a race
costs a query, never an answer. All that belongs to a revision is one object, ``_View``.
An answer that the kernel keeps is found out in one of them from beginning to end: who
notices at the end that another one is shown begins again.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import NamedTuple, TypeVar

from cvmfsexec.errors import CvmfsError, FormatError, StaleInodeError
from cvmfsexec.fetch import ObjectRequest
from cvmfsexec.format.chunk import Chunk, covering
from cvmfsexec.format.digest import ContentHash
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
    Changes,
    FilesystemStatistics,
)
from cvmfsexec.vfs.descriptors import DescriptorCache
from cvmfsexec.vfs.extended_attributes import ExtendedAttributes
from cvmfsexec.vfs.inode_numbers import ROW_BITS, InodeNumbers
from cvmfsexec.vfs.lookahead import LookAhead
from cvmfsexec.vfs.presentation import Presentation

_COOKIE_OFFSET = FIRST_COOKIE - 1  # rows begin at 1
_LIST_BATCH = 1024  # entries; a listing of a million names is never in memory
_ATTEMPTS = 3  # to change the revision while catalogs are entered
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

    slot: Slot
    entry: DirectoryEntry
    path: bytes
    whole: ObjectRequest | None
    chunks: tuple[Chunk, ...]


class _View:
    """What belongs to one revision.

    Attributes:
        numbers: Of its inodes.
        directories: Those that were met, by inode.
    """

    __slots__ = ("directories", "numbers")

    def __init__(self, numbers: InodeNumbers) -> None:
        self.numbers = numbers
        self.directories: dict[int, _Directory] = {}


class RepositoryFileSystem:
    """A repository by inode: one revision at a time."""

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
        self._view = _View(InodeNumbers(tree.root))
        self._layouts: dict[int, _Layout] = {}
        self._layout_chunks = 0

    def lookup(self, parent: int, name: bytes) -> Attributes | None:
        """Return the attributes of a name in a directory."""
        return self._settled(lambda view: self._lookup_in(view, parent, name))

    def _lookup_in(self, view: _View, parent: int, name: bytes) -> Attributes | None:
        above, slot = self._contents(view, parent)
        path = above + b"/" + name
        catalog = self._tree.catalog(slot)
        entry = catalog.find(slot.hash_of(path))
        if entry is None:
            return None
        if entry.name != name:
            raise FormatError(f"{path!r} is stored under the name {entry.name!r}")
        row = catalog.hardlink_row(entry) if entry.hardlinks >> 32 else entry.row
        inode = view.numbers.of(slot.number, row)
        if entry.flags & Flag.DIRECTORY:
            inside = _slot_inside(slot, entry.flags)
            _meet(view, inode, _Directory(path, inside, parent))
        return self._presentation.attributes(entry, inode)

    def attributes(self, inode: int) -> Attributes | None:
        """Return the attributes of an inode."""
        return self._settled(lambda view: self._attributes_in(view, inode))

    def _attributes_in(self, view: _View, inode: int) -> Attributes | None:
        found = self._find(view, inode)
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
        return chain.from_iterable(self._parts(self._view, inode, after))

    def is_listed_now(self, inode: int, cookie: int) -> bool:
        """Whether a directory is still as it is listed by the one with this cookie."""
        if cookie < FIRST_COOKIE:
            return True
        slot = self._contents(self._view, inode)[1]
        return slot.number == cookie - _COOKIE_OFFSET >> ROW_BITS

    def _parts(
        self, view: _View, inode: int, after: int
    ) -> Iterator[Iterable[_Listed]]:
        path, slot = self._contents(view, inode)
        row = 0
        if after >= FIRST_COOKIE:
            number, row = divmod(after - _COOKIE_OFFSET, 1 << ROW_BITS)
            if number != slot.number:  # it began in an earlier revision, and ends there
                slot = self._slot(number)
        catalog = self._tree.listed(slot)
        parent = slot.hash_of(path)
        while True:
            entries = catalog.listing(parent, after_row=row, limit=_LIST_BATCH)
            count = len(entries.row)
            if count:
                row = entries.row[-1]
                yield self._shown(view, inode, path, slot, entries)
            if count < _LIST_BATCH:
                return

    def _shown(
        self, view: _View, inode: int, path: bytes, slot: Slot, entries: Listing
    ) -> Iterable[_Listed]:
        """Return what a part of a listing shows. Hot: most of it runs in C."""
        kinds = set(entries.flags)
        if any(flags & Flag.HIDDEN for flags in kinds):
            entries = entries.where(not flags & Flag.HIDDEN for flags in entries.flags)
        rows: Sequence[int] = entries.row
        if any(links >> 32 for links in set(entries.hardlinks)):
            catalog = self._tree.catalog(slot)
            first_rows = catalog.hardlink_rows(slot.hash_of(path))
            rows = [
                first_rows.get(links, row) if links >> 32 else row
                for links, row in zip(entries.hardlinks, entries.row, strict=True)
            ]
        inodes = view.numbers.of_all(slot.number, rows)
        if any(flags & Flag.DIRECTORY for flags in kinds):
            for child, name, flags in zip(
                inodes, entries.name, entries.flags, strict=True
            ):
                if flags & Flag.DIRECTORY:
                    inside = _slot_inside(slot, flags)
                    _meet(view, child, _Directory(path + b"/" + name, inside, inode))
        offset = (slot.number << ROW_BITS) + _COOKIE_OFFSET
        return zip(
            [row + offset for row in entries.row],
            entries.name,
            self._presentation.listed(entries, inodes),
            strict=True,
        )

    def parent(self, inode: int) -> int:
        """Return the inode of the directory that a directory lies in."""
        return self._settled(lambda view: self._parent_in(view, inode))

    def _parent_in(self, view: _View, inode: int) -> int:
        path, slot, met_in = self._directory(view, inode)
        if met_in:
            return met_in
        above = parent_path(path)
        if not above:
            return ROOT_INODE
        # Not by way of the root if possible.
        if len(above) > len(slot.mountpoint):
            found = self._lookup.find_in(slot, above)
        else:
            found = self._lookup.find(above, view.numbers.root)
        if found is None:
            raise FormatError(f"{path!r} lies in a directory that is not there")
        return view.numbers.of(found.slot.number, found.entry.row)

    def readlink(self, inode: int) -> bytes | None:
        """Return where a symbolic link points; ``None`` if it is none."""
        entry = self._get(self._view, inode)[1]
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
            missed = self._foresee_file(layout) if is_first else None
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

    def _foresee_file(self, layout: _Layout) -> _Missed | None:
        """Tell what is read; return how to tell that it is missing, if that matters."""
        ahead = self._look_ahead
        slot_number, entry = layout.slot.number, layout.entry
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

    def getxattr(self, inode: int, name: bytes, gid: int = 0) -> bytes | None:
        """Return the value of an extended attribute; ``None`` if there is none."""
        return self._extended_attributes.find(
            self._location(self._view, inode), name, gid
        )

    def listxattr(self, inode: int) -> list[bytes]:
        """Return the names of the extended attributes that are to be seen."""
        return self._extended_attributes.names(self._location(self._view, inode))

    def path_of(self, inode: int) -> bytes:
        """Return where an inode is in the repository."""
        return self._location(self._view, inode).path

    def describe(self, inode: int) -> str:
        """Return what messages call an inode: its path, or its number failing that."""
        try:
            path = self.path_of(inode)
        except CvmfsError:
            return f"inode {inode:#x}"
        return repr(path.decode("utf-8", "surrogateescape") or "/")

    def show(self, root_catalog: ContentHash, size_bytes: int = 0) -> Changes:
        """Show another revision from now on.

        Everything that this takes is fetched before. Called by one thread at a time.

        Args:
            root_catalog: The revision's.
            size_bytes: Its announced size; 0 for unknown.

        Returns:
            What the kernel has to be told, or it would not know.

        Raises:
            CvmfsError: A catalog that somebody uses cannot be had, or is damaged; the
                revision before is still shown.
        """
        for _ in range(_ATTEMPTS):
            changes = self._try_to_show(root_catalog, size_bytes)
            if changes is not None:
                return changes
        with self._tree.closed():  # too busy a tree
            changes = self._try_to_show(root_catalog, size_bytes)
        if changes is None:
            raise FormatError("a closed tree was entered")
        return changes

    def _try_to_show(
        self, root_catalog: ContentHash, size_bytes: int
    ) -> Changes | None:
        """Show another revision, unless a catalog is entered meanwhile."""
        from cvmfsexec.repository.advance import plan_advance
        from cvmfsexec.vfs.renewal import renew

        advance = plan_advance(self._tree, root_catalog, size_bytes)
        self._lookup.root(advance.root)
        numbers, changes = renew(self._tree, self._view.numbers, advance)

        def change_view() -> None:
            self._view = _View(numbers)

        is_shown = self._tree.switch(advance.shown, advance.slot_count, change_view)
        return changes if is_shown else None

    def _settled(self, ask: Callable[[_View], _Value]) -> _Value:
        """Return an answer that was found out while one revision was shown."""
        while True:
            view = self._view
            try:
                answer = ask(view)
            except CvmfsError:
                if view is self._view:
                    raise
            else:
                if view is self._view:
                    return answer

    def _find(self, view: _View, inode: int) -> tuple[Slot, DirectoryEntry] | None:
        if inode == ROOT_INODE:
            root = self._lookup.root(view.numbers.root)
            return root.slot, root.entry
        number, row = view.numbers.place(inode)
        slot = self._tree.slot(number)
        if slot is None:
            return None
        entry = self._tree.catalog(slot).find_row(row)
        return None if entry is None else (slot, entry)

    def _get(self, view: _View, inode: int) -> tuple[Slot, DirectoryEntry]:
        found = self._find(view, inode)
        if found is None:
            raise StaleInodeError(f"there is no inode {inode:#x}")
        return found

    def _slot(self, number: int) -> Slot:
        slot = self._tree.slot(number)
        if slot is None:
            raise StaleInodeError(f"there is no catalog {number}")
        return slot

    def _location(self, view: _View, inode: int) -> Location:
        slot, entry = self._get(view, inode)
        return Location(self._path(view, inode, slot, entry), slot, entry)

    def _directory(self, view: _View, inode: int) -> tuple[bytes, Slot, int]:
        """Return a directory's path, its entries' catalog, and its parent or 0."""
        known = view.directories.get(inode)
        if known is not None and known.slot is not None:
            return known.path, known.slot, known.parent
        location = self._location(view, inode)
        if not location.entry.is_directory:
            raise FormatError(f"inode {inode} is not a directory")
        slot = self._lookup.contents_slot(location)
        parent = 0 if known is None else known.parent
        _meet(view, inode, _Directory(location.path, slot, parent))
        return location.path, slot, parent

    def _contents(self, view: _View, inode: int) -> tuple[bytes, Slot]:
        return self._directory(view, inode)[:2]

    def _layout(self, inode: int) -> _Layout:
        view = self._view
        slot, entry = self._get(view, inode)
        if not entry.is_regular:
            raise FormatError(f"inode {inode} is not a regular file")
        path = self._path(view, inode, slot, entry) if entry.is_external else b""
        if entry.is_chunked:
            chunks = self._tree.catalog(slot).chunks(entry)
            return _Layout(slot, entry, path, None, chunks)
        content_hash = entry.content_hash
        if content_hash is None:
            raise FormatError(f"file {entry.name!r} has no content hash")
        return _Layout(slot, entry, path, file_request(entry, content_hash, path), ())

    def _remember_layout(self, inode: int, layout: _Layout) -> None:
        self._layout_chunks += len(layout.chunks)
        if self._layout_chunks > _LAYOUT_CHUNKS_MAX:
            self._layouts.clear()
        _keep(self._layouts, inode, layout, _LAYOUTS_MAX)
        if len(self._layouts) == 1:
            self._layout_chunks = len(layout.chunks)

    def _path(
        self, view: _View, inode: int, slot: Slot, entry: DirectoryEntry
    ) -> bytes:
        known = view.directories.get(inode)
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


def _meet(view: _View, inode: int, directory: _Directory) -> None:
    _keep(view.directories, inode, directory, _DIRECTORIES_MAX)


def _keep(memory: dict[int, _Value], inode: int, value: _Value, limit: int) -> None:
    """Remember a value; a full memory is emptied, since all of it can be rebuilt."""
    if len(memory) >= limit:
        memory.clear()
    memory[inode] = value
