"""What ``df`` shows: how much of its limit the cache uses, and how many entries.

Source: docs/reference/client-behaviour.md, "statfs".
"""

from collections.abc import Callable

from cvmfsexec.cache.store import ObjectStore
from cvmfsexec.client.counters import entry_count, own_entry_count
from cvmfsexec.repository.catalog_tree import CatalogTree
from cvmfsexec.vfs.attributes import BLOCK_BYTES, FilesystemStatistics

_FILES_MAX = 2**63 - 1


def file_system_statistics(
    tree: CatalogTree, store: ObjectStore, limit_mb: int
) -> Callable[[], FilesystemStatistics]:
    """Return the function that answers ``statfs``.

    Args:
        tree: Its counters tell how many entries there are; those in open catalogs
            count as used.
        store: The cache.
        limit_mb: Limit of the cache, unless that knows better; 0 for none, which
            shows sizes of 0.
    """

    def statfs() -> FilesystemStatistics:
        limit_blocks = _limit_bytes(store, limit_mb) // BLOCK_BYTES
        used_blocks = (store.used_bytes() or 0) // BLOCK_BYTES if limit_blocks else 0
        files = entry_count(tree.catalog(tree.root).counters())
        loaded = sum(own_entry_count(catalog.counters()) for catalog in tree.opened())
        return FilesystemStatistics(
            blocks=limit_blocks,
            free_blocks=max(0, limit_blocks - used_blocks),
            files=_bounded(files),
            free_files=_bounded(files - loaded),
        )

    return statfs


def _limit_bytes(store: ObjectStore, limit_mb: int) -> int:
    if store.quota is None or not store.quota.limit_bytes:
        return limit_mb << 20
    return store.quota.binding_limit_bytes()


def _bounded(count: int) -> int:
    """Return a number of files as one can be; publishers may have counted oddly."""
    return min(max(count, 0), _FILES_MAX)
