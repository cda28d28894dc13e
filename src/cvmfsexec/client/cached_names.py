"""What the objects in a cache are called, told by the catalogs in the same cache.

Nothing is asked of a server. Of the revision that was verified last, all catalogs that
are cached are read; an object of an older revision, or below a catalog that is not
there, has no name.
"""

import os
import stat
from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple

from cvmfsexec import log
from cvmfsexec.cache.breadcrumb import read_breadcrumb
from cvmfsexec.cache.verification import OPEN_FLAGS, is_confirmed
from cvmfsexec.client.named_entries import matching, outermost
from cvmfsexec.errors import CacheError, CvmfsError
from cvmfsexec.fetch import ObjectRequest
from cvmfsexec.format.digest import ContentHash
from cvmfsexec.repository.catalog_tree import CatalogTree
from cvmfsexec.repository.lookup import Location, PathLookup
from cvmfsexec.repository.slot import Slot
from cvmfsexec.vfs.presentation import Presentation


class Kind(Enum):
    """What an object is."""

    CATALOG = "catalog"
    FILE = "file"
    CHUNK = "chunk"


class CachedName(NamedTuple):
    """A name of an object, which may have several, and need not be there.

    Attributes:
        content_hash: The object.
        kind: What it is.
        path: The file; of a catalog, its top directory.
    """

    content_hash: ContentHash
    kind: Kind
    path: bytes


class CachedRepository:
    """One repository, as far as it is cached.

    Args:
        directory: Descriptor of the cache directory, which stays the caller's.
        workspace: Where the breadcrumb is.
        fqrn: The repository.
        is_trusted: Whether nobody else can write to the directory.

    Attributes:
        fqrn: See above.
        lookup: Finds entries.
        presentation: Tells where links lead; those with variables, where they do if
            no variable is set.

    Raises:
        CacheError: Nothing of it is known, or its root catalog is not there.
    """

    def __init__(
        self, directory: int, workspace: str, fqrn: str, *, is_trusted: bool
    ) -> None:
        breadcrumb = read_breadcrumb(workspace, fqrn)
        if breadcrumb is None:
            raise CacheError(f"nothing of {fqrn} was ever cached in {workspace}")
        opener = _CacheOnly(directory, is_trusted=is_trusted)
        self._tree = CatalogTree(opener, breadcrumb.root_catalog)
        self.fqrn = fqrn
        self.lookup = PathLookup(self._tree)
        self.presentation = Presentation(
            variables={}, shown_uid=_as_published, shown_gid=_as_published
        )
        try:
            self._tree.catalog(self._tree.root)
        except CvmfsError as error:
            self._tree.close()
            raise CacheError(
                f"nothing that is cached of {fqrn} has a name: {error}",
                hint="the next session, or cvmfs prefetch, fetches the catalog again",
            ) from error

    def close(self) -> None:
        """Let go of the catalogs."""
        self._tree.close()

    def names(self) -> Iterator[CachedName]:
        """Yield the names of everything that the cached catalogs tell of."""
        yield _catalog_name(self._tree.root)
        yield from self.names_below(self.lookup.root())

    def names_below(self, top: Location) -> Iterator[CachedName]:
        """Yield the names of an entry, and of everything below it."""
        pending = [top]
        while pending:
            location = pending.pop()
            try:
                if location.entry.is_regular:
                    yield from self._file_names(location)
                elif location.entry.is_directory:
                    slot = self.lookup.contents_slot(location)
                    if slot is not location.slot:
                        yield _catalog_name(slot)
                    pending.extend(self.lookup.list_(location))
            except CvmfsError as error:
                log.debug("%r: %s", location.path, error)

    def names_at(self, path: bytes) -> list[CachedName] | None:
        """Return the names of what a normalized path or a pattern means, and below.

        Returns:
            ``None`` if there is nothing.

        Raises:
            CacheError: A catalog on the way is not there.
        """
        found = outermost(matching(self, path))
        if not found:
            return None
        return [name for top in found for name in self.names_below(top)]

    def _file_names(self, file: Location) -> Iterator[CachedName]:
        requests = self.lookup.content_requests(file)
        kind = Kind.CHUNK if file.entry.is_chunked else Kind.FILE
        for request in requests:
            yield CachedName(request.content_hash, kind, file.path)


class _CacheOnly:
    """Opens what is in a cache directory; an ``ObjectOpener``."""

    def __init__(self, directory: int, *, is_trusted: bool) -> None:
        self._directory = directory
        self._is_trusted = is_trusted

    def open(self, request: ObjectRequest) -> int:
        path = request.content_hash.cache_path()
        try:
            descriptor = os.open(path, OPEN_FLAGS, dir_fd=self._directory)
        except OSError as error:
            raise CacheError(f"{path} is not in the cache") from error
        is_believed = False
        try:
            is_believed = self._is_believed(descriptor, request.content_hash)
        except OSError as error:
            raise CacheError(f"{path} cannot be read: {error.strerror}") from error
        finally:
            if not is_believed:
                os.close(descriptor)
        if not is_believed:
            raise CacheError(f"{path} is not what its name says")
        return descriptor

    def _is_believed(self, descriptor: int, content_hash: ContentHash) -> bool:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return False
        return self._is_trusted or is_confirmed(descriptor, content_hash)

    def discard(self, content_hash: ContentHash, damaged: int | None = None) -> None:
        """See ``ObjectOpener``; who only looks removes nothing."""

    def pin(self, content_hash: ContentHash) -> None:
        """See ``ObjectOpener``."""


def _as_published(number: int) -> int:
    return number


def _catalog_name(slot: Slot) -> CachedName:
    return CachedName(slot.content_hash, Kind.CATALOG, slot.mountpoint)
