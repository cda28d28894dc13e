"""Catalogs as the publisher writes them: one SQLite file each.

The newest schema only, with all tables and all counters, because the original refuses
to open a catalog that lacks one. Names and link targets are ``bytes`` of any encoding
and become TEXT byte by byte.

Source: docs/reference/publisher-format.md, "Catalogs".
"""

from collections.abc import Mapping
from typing import NamedTuple

from cvmfsexec.catalog.counters import Counters
from cvmfsexec.catalog.new_database import (
    LARGE_PAGE_BYTES,
    SMALL_PAGE_BYTES,
    insert_into,
    new_database,
)
from cvmfsexec.catalog.reader import NestedCatalogRef
from cvmfsexec.catalog.schema import (
    CATALOG_COLUMNS,
    CHUNK_COLUMNS,
    CREATE_CATALOG,
    NESTED_COLUMNS,
    PROPERTY_COLUMNS,
    SCHEMA,
    SCHEMA_REVISION,
    STATISTICS_COLUMNS,
    Property,
)
from cvmfsexec.format.chunk import Chunk
from cvmfsexec.format.digest import ContentHash
from cvmfsexec.format.dirent import DirectoryEntry
from cvmfsexec.format.names import PathHash

NO_PREVIOUS_REVISION = "0" * 40
"""What the original writes into a catalog that has no earlier version."""

_FEW_ENTRIES = 500

_INSERT_ENTRY = insert_into("catalog", CATALOG_COLUMNS, texts=("name", "symlink"))
_INSERT_CHUNK = insert_into("chunks", CHUNK_COLUMNS)
_INSERT_NESTED = insert_into("nested_catalogs", NESTED_COLUMNS, texts=("path",))
_INSERT_PROPERTY = insert_into("properties", PROPERTY_COLUMNS, texts=("value",))
_INSERT_COUNTER = insert_into("statistics", STATISTICS_COLUMNS)


class CatalogContent(NamedTuple):
    """What a catalog says about its part of the repository.

    Attributes:
        entries: In the order of the rows; ``row`` of each is not used.
        chunks: Of each chunked file, by the hash of its path.
        nested: Catalogs directly below.
        counters: All 24.
    """

    entries: list[DirectoryEntry]
    chunks: Mapping[PathHash, tuple[Chunk, ...]]
    nested: tuple[NestedCatalogRef, ...]
    counters: Counters


class CatalogVersion(NamedTuple):
    """What a catalog says about itself.

    Attributes:
        root_prefix: Directory where it begins; empty for the root catalog.
        revision: Of the repository for the root catalog, else of this one alone.
        last_modified_s: Unix time.
        previous: The catalog's earlier version, if there is one.
        ttl_s: Root catalog only.
    """

    root_prefix: bytes
    revision: int
    last_modified_s: int
    previous: ContentHash | None = None
    ttl_s: int | None = None


def write_catalog(path: str, content: CatalogContent, version: CatalogVersion) -> None:
    """Write a catalog into a new file.

    Raises:
        PublishError: The file could not be written.
    """
    is_small = len(content.entries) <= _FEW_ENTRIES
    page_bytes = SMALL_PAGE_BYTES if is_small else LARGE_PAGE_BYTES
    with new_database(path, CREATE_CATALOG, page_bytes=page_bytes) as connection:
        connection.executemany(_INSERT_ENTRY, map(_entry_row, content.entries))
        connection.executemany(
            _INSERT_CHUNK,
            (
                (*path_hash, chunk.offset, chunk.size, chunk.content_hash.digest)
                for path_hash, chunks in content.chunks.items()
                for chunk in chunks
            ),
        )
        connection.executemany(
            _INSERT_NESTED,
            (
                (ref.mountpoint, str(ref.content_hash), ref.size)
                for ref in content.nested
            ),
        )
        connection.executemany(_INSERT_PROPERTY, _properties(version).items())
        connection.executemany(_INSERT_COUNTER, content.counters.items())


def _entry_row(entry: DirectoryEntry) -> tuple[object, ...]:
    return (
        entry.md5_1,
        entry.md5_2,
        entry.parent_1,
        entry.parent_2,
        entry.hardlinks,
        entry.digest,
        entry.size,
        entry.mode,
        entry.mtime_s,
        entry.mtime_ns,
        entry.flags,
        entry.name,
        entry.symlink,
        entry.uid,
        entry.gid,
        entry.xattr,
    )


def _properties(version: CatalogVersion) -> dict[str, str | bytes]:
    properties: dict[str, str | bytes] = {
        Property.SCHEMA: SCHEMA,
        Property.SCHEMA_REVISION: SCHEMA_REVISION,
        Property.REVISION: str(version.revision),
        Property.LAST_MODIFIED: str(version.last_modified_s),
        Property.PREVIOUS_REVISION: str(version.previous or NO_PREVIOUS_REVISION),
    }
    if version.root_prefix:
        properties[Property.ROOT_PREFIX] = version.root_prefix
    if version.ttl_s is not None:
        properties[Property.TTL] = str(version.ttl_s)
    return properties
