"""Facts about entries that magic attributes need from cache and network."""

import os

from cvmfsexec.cache.store import ObjectStore
from cvmfsexec.client.counters import counter_lines
from cvmfsexec.errors import FormatError
from cvmfsexec.format.digest import new_hasher
from cvmfsexec.network.client import HttpClient
from cvmfsexec.repository.catalog_tree import CatalogTree
from cvmfsexec.repository.lookup import Location, PathLookup
from cvmfsexec.vfs.extended_attributes import Sources

_READ_BYTES = 1 << 20
_ZLIB_LEVEL = 6  # what publishers use; another level gives another hash


def entry_sources(
    tree: CatalogTree,
    lookup: PathLookup,
    store: ObjectStore,
    external: HttpClient | None,
) -> Sources:
    """Return where the facts come from, for one client."""

    def chunk_list(location: Location) -> list[tuple[str, int, int]]:
        entry = location.entry
        if entry.is_chunked:
            chunks = tree.catalog(location.slot).chunks(entry)
            return [(str(c.content_hash), c.offset, c.size) for c in chunks]
        return [(str(entry.content_hash), 0, entry.size)]

    def catalog_counters(location: Location) -> str:
        is_directory = location.entry.is_directory
        slot = lookup.contents_slot(location) if is_directory else location.slot
        return (
            f"catalog_hash: {slot.content_hash}\n"
            f"catalog_mountpoint: {os.fsdecode(slot.mountpoint)}\n"
            + counter_lines(tree.catalog(slot).counters())
        )

    def external_url(location: Location) -> str:
        host = external.routes.active_host if external else ""
        return host + os.fsdecode(location.path)

    return Sources(
        chunk_list=chunk_list,
        cached_hash=lambda location: _cached_hash(store, location),
        catalog_counters=catalog_counters,
        external_url=external_url,
        membership=lambda: tree.catalog(tree.root).authorisation,
    )


def _cached_hash(store: ObjectStore, location: Location) -> str | None:
    """Compress a cached object again and hash the result, as the original does.

    For files stored without compression it therefore never equals the content hash.
    """
    import zlib

    wanted = location.entry.content_hash
    if wanted is None:
        raise FormatError("a file without a hash")
    # The kernel never asks for the content of an empty file, so it is never cached.
    is_empty = location.entry.size == 0
    descriptor = None if is_empty else store.open_object(wanted)
    if descriptor is None and not is_empty:
        return None
    hasher = new_hasher(wanted.algorithm)
    packer = zlib.compressobj(_ZLIB_LEVEL)
    if descriptor is not None:
        with open(descriptor, "rb", buffering=0) as cached:
            while block := cached.read(_READ_BYTES):
                hasher.update(packer.compress(block))
    hasher.update(packer.flush())
    return str(hasher.content_hash())
