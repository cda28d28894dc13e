"""The catalogs of a revision: from the scanned tree to objects, bottom-up.

A nested catalog that says the same as its earlier version keeps that version's
object: clients then keep what they have cached of it, down to the kernel. The root
catalog is always new, because it carries the revision.

Source: docs/reference/publisher-format.md, "Catalogs".
"""

import itertools
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from cvmfsexec import log
from cvmfsexec.catalog.counters import Counters, count
from cvmfsexec.catalog.reader import Catalog, NestedCatalogRef
from cvmfsexec.catalog.writer import CatalogContent, CatalogVersion, write_catalog
from cvmfsexec.errors import CvmfsError
from cvmfsexec.format.chunk import Chunk
from cvmfsexec.format.digest import ContentHash, ObjectKind
from cvmfsexec.format.names import ROOT, PathHash, parent_path, path_hash
from cvmfsexec.publish.contents import Content
from cvmfsexec.publish.entries import EntryMaker
from cvmfsexec.publish.layout import RepositoryDirectory
from cvmfsexec.publish.objects import ObjectPool, read_object
from cvmfsexec.publish.scan import Advance, SourceDirectory, SourceTree

_FIRST_REVISION = 1
_ENTRIES_WARNED_OF = (200_000, 500_000)  # root, nested: as the original's


class StoredCatalog(NamedTuple):
    """A catalog that is in the repository.

    Attributes:
        content_hash: Its object.
        size: Uncompressed bytes.
        counters: All 24.
        is_new: Whether this publication made it.
    """

    content_hash: ContentHash
    size: int
    counters: Counters
    is_new: bool


class PlannedCatalog(NamedTuple):
    """A catalog that is to be made.

    Attributes:
        directories: Whose entries it holds; its own top directory is the first.
        nested: Where the catalogs directly below begin.
    """

    directories: list[SourceDirectory]
    nested: list[bytes]


def plan_catalogs(
    tree: SourceTree, transition_points: frozenset[bytes]
) -> dict[bytes, PlannedCatalog]:
    """Distribute the directories over catalogs; each comes after the one above it."""
    plan: dict[bytes, PlannedCatalog] = {}
    catalog_of: dict[bytes, bytes] = {}
    for path, directory in tree.directories.items():
        above = catalog_of.get(parent_path(path), ROOT)
        if path == ROOT or path in transition_points:
            if path != ROOT:
                plan[above].nested.append(path)
            above = path
            plan[path] = PlannedCatalog([], [])
        catalog_of[path] = above
        plan[above].directories.append(directory)
    return plan


class CatalogBuilder:
    """Makes the catalogs of one revision.

    Args:
        directory: Of the repository.
        pool: Where catalogs go, and where their earlier versions are.
        entries: Makes the rows.
        contents: Of each regular file, by path.
    """

    def __init__(
        self,
        directory: RepositoryDirectory,
        pool: ObjectPool,
        entries: EntryMaker,
        contents: Mapping[bytes, Content],
    ) -> None:
        self._directory = directory
        self._pool = pool
        self._entries = entries
        self._contents = contents

    def build(
        self,
        plan: Mapping[bytes, PlannedCatalog],
        version: CatalogVersion,
        advance: Advance,
    ) -> dict[bytes, StoredCatalog]:
        """Store all catalogs that are new; returns all, by where they begin.

        Args:
            plan: From :func:`plan_catalogs`.
            version: Of the root catalog; ``previous`` leads to the earlier versions
                of the others.
            advance: Is told of each catalog that is done.

        Raises:
            PublishError: A catalog could not be written.
        """
        earlier = self._find_earlier(plan, version.previous)
        stored: dict[bytes, StoredCatalog] = {}
        for mountpoint, planned in reversed(list(plan.items())):
            content = self._content(mountpoint, planned, stored)
            before = earlier.get(mountpoint)
            if mountpoint == ROOT:
                stored[ROOT] = self._store(content, version)
            elif before is not None and self._is_same(before, content):
                stored[mountpoint] = StoredCatalog(
                    before.content_hash, before.size, content.counters, is_new=False
                )
            else:
                own = self._next_version(mountpoint, before, version.last_modified_s)
                stored[mountpoint] = self._store(content, own)
            advance(1)
        return stored

    def _find_earlier(
        self, plan: Mapping[bytes, PlannedCatalog], root: ContentHash | None
    ) -> dict[bytes, NestedCatalogRef]:
        """Return the earlier version of each planned catalog that has one."""
        earlier: dict[bytes, NestedCatalogRef] = {}
        if root is not None:
            earlier[ROOT] = NestedCatalogRef(ROOT, root, 0, is_bind=False)
        for mountpoint, planned in plan.items():
            if mountpoint in earlier and planned.nested:
                with self._opened(earlier[mountpoint]) as catalog:
                    refs = catalog.nested() if catalog else ()
                    found = {ref.mountpoint: ref for ref in refs if not ref.is_bind}
                for nested in planned.nested:
                    if nested in found:
                        earlier[nested] = found[nested]
        return earlier

    def _content(
        self,
        mountpoint: bytes,
        planned: PlannedCatalog,
        stored: Mapping[bytes, StoredCatalog],
    ) -> CatalogContent:
        groups = itertools.count(1)
        rows = [self._entries.top_entry(mountpoint)]
        for directory in planned.directories:
            rows.extend(self._entries.listing(directory, groups))
        _warn_if_huge(mountpoint, len(rows))
        chunks = self._chunks(planned)
        counters = count(
            rows,
            chunk_count=sum(map(len, chunks.values())),
            nested=[stored[path].counters for path in planned.nested],
        )
        nested = tuple(
            NestedCatalogRef(
                path, stored[path].content_hash, stored[path].size, is_bind=False
            )
            for path in planned.nested
        )
        return CatalogContent(rows, chunks, nested, counters)

    def _chunks(self, planned: PlannedCatalog) -> dict[PathHash, tuple[Chunk, ...]]:
        return {
            path_hash(entry.path): self._contents[entry.path].chunks
            for directory in planned.directories
            for entry in directory.entries
            if entry.is_regular and self._contents[entry.path].chunks
        }

    def _is_same(self, before: NestedCatalogRef, content: CatalogContent) -> bool:
        """Whether an earlier catalog says the same, whatever its revision."""
        with self._opened(before) as catalog:
            if catalog is None or set(catalog.nested()) != set(content.nested):
                return False
            rows = list(catalog.walk())
            return {row[1:] for row in rows} == {
                row[1:] for row in content.entries
            } and all(
                catalog.chunks(row) == content.chunks[row.path_hash]
                for row in rows
                if row.is_chunked
            )

    def _next_version(
        self, mountpoint: bytes, before: NestedCatalogRef | None, now_s: int
    ) -> CatalogVersion:
        if before is None:
            return CatalogVersion(mountpoint, _FIRST_REVISION, now_s)
        with self._opened(before) as catalog:
            revision = catalog.revision + 1 if catalog else _FIRST_REVISION
        return CatalogVersion(mountpoint, revision, now_s, before.content_hash)

    def _store(self, content: CatalogContent, version: CatalogVersion) -> StoredCatalog:
        path = self._directory.scratch_path()
        write_catalog(path, content, version)
        data = self._directory.take_scratch(path)
        content_hash = self._pool.put(data, ObjectKind.CATALOG)
        return StoredCatalog(content_hash, len(data), content.counters, is_new=True)

    @contextmanager
    def _opened(self, ref: NestedCatalogRef) -> Iterator[Catalog | None]:
        """Open an earlier catalog; None, after a warning, if that is impossible.

        Without it nothing is wrong with the new revision, it only shares less with
        the earlier one.
        """
        catalog = None
        try:
            data = read_object(self._directory, ref.content_hash, ObjectKind.CATALOG)
            path = self._directory.write_scratch(data)
            catalog = Catalog.open(path)
            os.unlink(path)
        except CvmfsError as error:
            where = os.fsdecode(ref.mountpoint or b"/")
            log.warning("the earlier catalog of %r is not used: %s", where, error)
        try:
            yield catalog
        finally:
            if catalog is not None:
                catalog.close()


def _warn_if_huge(mountpoint: bytes, entry_count: int) -> None:
    if entry_count > _ENTRIES_WARNED_OF[mountpoint != ROOT]:
        log.warning(
            "the catalog of %r has %d entries, which makes clients slow: divide it by "
            "'.cvmfscatalog' files or '/.cvmfsdirtab'",
            os.fsdecode(mountpoint or b"/"),
            entry_count,
        )
