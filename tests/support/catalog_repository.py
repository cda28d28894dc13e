"""Repositories of hand-made catalogs: what no publisher would write, but a reader gets.

Catalogs and files are served from memory and go through the real fetcher and cache.
"""

import itertools
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

from cvmfsexec.cache.directory import DirectoryStore
from cvmfsexec.cache.pins import Pin
from cvmfsexec.fetch import Fetcher, ObjectRequest
from cvmfsexec.format.digest import ContentHash, ObjectKind
from cvmfsexec.format.dirent import Compression, Flag
from cvmfsexec.format.names import ROOT
from cvmfsexec.repository.catalog_tree import CatalogTree
from tests.support.catalog_files import NEWEST, Cells, directory, write_catalog
from tests.support.memory_source import MemorySource

NESTED_POINT = Flag.DIRECTORY | Flag.NESTED_MOUNTPOINT
BIND_POINT = Flag.DIRECTORY | Flag.BIND_MOUNTPOINT
NESTED_TOP = Flag.DIRECTORY | Flag.NESTED_ROOT


class CatalogRepository:
    """Objects on a server in memory, and the cache of a client.

    Attributes:
        source: The server.
        store: The cache.
        fetcher: Joins them.
        opened: Hashes of all objects that were opened, in order.
        instead: What is delivered in place of another object, as if it were that.
        failure: What is raised instead of anything being opened.
    """

    def __init__(self, directory: Path) -> None:
        self.source = MemorySource()
        self.store = DirectoryStore.open(str(directory / "cache"))
        with self.store.claim(ContentHash.parse("0" * 40), patience_s=0):
            pass  # its file stays open, so that descriptors can be counted now
        self.fetcher = Fetcher(self.source, self.store)
        self.opened: list[ContentHash] = []
        self.instead: dict[ContentHash, ContentHash] = {}
        self.failure: BaseException | None = None
        self._stored: dict[ContentHash, tuple[ObjectKind, bytes]] = {}
        self._directory = directory
        self._numbers = itertools.count()

    def open(
        self, request: ObjectRequest, missed: Callable[[], object] | None = None
    ) -> int:
        """See ``Fetcher``."""
        if self.failure is not None:
            raise self.failure
        self.opened.append(request.content_hash)
        other = self.instead.get(request.content_hash)
        if other is not None:
            request = request._replace(
                content_hash=other, size_bytes=None, size_limit_bytes=2**30
            )
        return self.fetcher.open(request, missed)

    def pin(self, content_hash: ContentHash) -> Pin:
        """See ``Fetcher``."""
        return self.fetcher.pin(content_hash)

    def discard(self, content_hash: ContentHash, damaged: int | None = None) -> None:
        """See ``Fetcher``."""
        self.fetcher.discard(content_hash, damaged)

    def add_catalog(
        self, prefix: bytes = ROOT, *, top: Cells | None = None, **rows: Iterable[Cells]
    ) -> ContentHash:
        """Serve a catalog and return its name.

        Args:
            prefix: Path of its top directory.
            top: Entry of the top directory, if not an ordinary one.
            rows: Of each table, by its name; to ``catalog`` the top's is added.
        """
        path = self._directory / f"catalog{next(self._numbers)}"
        flags = NESTED_TOP if prefix else Flag.DIRECTORY
        own = top or directory(prefix, flags=flags)
        contents = {**rows, "catalog": [own, *rows.get("catalog", ())]}
        properties = {"root_prefix": prefix} if prefix else {}
        write_catalog(path, NEWEST, properties=properties, **contents)
        return self.add_object(path.read_bytes(), ObjectKind.CATALOG)

    def add_object(
        self,
        content: bytes,
        kind: ObjectKind = ObjectKind.FILE,
        compression: Compression = Compression.ZLIB,
    ) -> ContentHash:
        """Serve an object and return its name."""
        stored = zlib.compress(content) if compression is Compression.ZLIB else content
        request = self.source.publish_stored(
            stored, size_bytes=len(content), kind=kind, compression=compression
        )
        self._stored[request.content_hash] = (kind, stored)
        return request.content_hash

    def spoil(
        self, content_hash: ContentHash, change: Callable[[bytes], bytes]
    ) -> None:
        """Serve something else in place of an object's stored bytes."""
        kind, stored = self._stored[content_hash]
        self.source.answer(content_hash.object_path(kind), change(stored))

    def tree(self, root: ContentHash) -> CatalogTree:
        """Return a tree of catalogs."""
        return CatalogTree(self, root)

    def downloads(self) -> int:
        """Return how many requests reached the server."""
        return len(self.source.requests)

    def close(self) -> None:
        """Give the cache back."""
        self.store.close()
