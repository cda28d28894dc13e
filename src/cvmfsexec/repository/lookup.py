"""Questions about a repository by path: what is there, what is in a directory.

The answers come from verified catalogs only. ``None`` therefore means "there is no
such entry"; every failure to find out is an exception.
"""

from collections.abc import Iterator
from typing import NamedTuple

from cvmfsexec.catalog.reader import Catalog
from cvmfsexec.errors import FormatError
from cvmfsexec.fetch import ObjectRequest
from cvmfsexec.format.dirent import DirectoryEntry
from cvmfsexec.format.names import ROOT
from cvmfsexec.repository.catalog_tree import CatalogTree
from cvmfsexec.repository.objects import chunk_request, file_request
from cvmfsexec.repository.slot import Slot


class Location(NamedTuple):
    """An entry and where it was found.

    Attributes:
        path: Its path in the repository.
        slot: The catalog that describes it; for a transition point the outer one.
        entry: Its row.
    """

    path: bytes
    slot: Slot
    entry: DirectoryEntry


class PathLookup:
    """Entries of one catalog tree by path. Safe to call from any thread."""

    def __init__(self, tree: CatalogTree) -> None:
        """Look things up in ``tree``."""
        self._tree = tree

    def root(self, root: Slot | None = None) -> Location:
        """Return the repository's root directory.

        Args:
            root: Slot of the root catalog; of the revision shown if ``None``.

        Raises:
            FormatError: The root catalog has no entry for it.
        """
        slot = root or self._tree.root
        entry = self._tree.catalog(slot).find(slot.hash_of(ROOT))
        if entry is None or not entry.is_directory:
            raise FormatError(f"catalog {slot.content_hash} has no root directory")
        return Location(ROOT, slot, entry)

    def find(self, path: bytes, root: Slot | None = None) -> Location | None:
        """Return the entry at a normalized path.

        Args:
            path: In the repository.
            root: Slot of the root catalog; of the revision shown if ``None``.
        """
        slot = root or self._tree.root
        while (deeper := self._transition_above(slot, path)) is not None:
            slot = self._tree.child(slot, deeper)
        return self.find_in(slot, path)

    def find_in(self, slot: Slot, path: bytes) -> Location | None:
        """Return the entry at a path that this catalog is responsible for."""
        entry = self._tree.catalog(slot).find(slot.hash_of(path))
        return None if entry is None else Location(path, slot, entry)

    def contents_slot(self, directory: Location) -> Slot:
        """Return the catalog in which a directory's entries are."""
        entry = directory.entry
        if entry.is_nested_mountpoint or entry.is_bind_mountpoint:
            return self._tree.child(directory.slot, directory.path)
        return directory.slot

    def list_(self, directory: Location) -> Iterator[Location]:
        """Yield what a directory shows; hidden entries are left out.

        Raises:
            FormatError: An entry is stored under the hash of another path. A walk
                could then go round in circles for ever.
        """
        slot = self.contents_slot(directory)
        parent = slot.hash_of(directory.path)
        for entry in self._tree.listed(slot).list_(parent):
            path = directory.path + b"/" + entry.name
            if entry.path_hash != slot.hash_of(path):
                raise FormatError(f"{path!r} is stored as another path")
            if not entry.is_hidden:
                yield Location(path, slot, entry)

    def content_requests(self, file: Location) -> list[ObjectRequest]:
        """Return what to fetch, in file order, to have a regular file's content.

        Raises:
            FormatError: The file has neither a hash nor a valid list of chunks.
        """
        return content_requests(self._tree.catalog(file.slot), file.entry, file.path)

    def _transition_above(self, slot: Slot, path: bytes) -> bytes | None:
        """Return the transition point of this catalog that ``path`` lies below."""
        # A catalog may have thousands of nested ones; a path has a few components.
        catalog = self._tree.catalog(slot)
        inside = slot.catalog_path(path)
        end = inside.find(b"/", len(slot.prefix) + 1)
        while end > 0:
            if catalog.find_nested(inside[:end]) is not None:
                return slot.repository_path(inside[:end])
            end = inside.find(b"/", end + 1)
        return None


def content_requests(
    catalog: Catalog, entry: DirectoryEntry, path: bytes
) -> list[ObjectRequest]:
    """Return what to fetch, in file order, to have a regular file's content."""
    if entry.is_chunked:
        return [chunk_request(entry, chunk, path) for chunk in catalog.chunks(entry)]
    content_hash = entry.content_hash
    if content_hash is None:
        raise FormatError(f"{path!r} has no content hash")
    return [file_request(entry, content_hash, path)]
