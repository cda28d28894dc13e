"""Opening the store that a configuration asks for.

Modules of stores are imported when one of their kind is wanted: a warm start needs one.
"""

from cvmfsexec.cache.directory import DirectoryStore
from cvmfsexec.cache.store import ObjectStore
from cvmfsexec.configuration.cache_instances import StoreSettings
from cvmfsexec.configuration.settings import CacheSettings


def open_store(cache: CacheSettings) -> ObjectStore:
    """Return the configured store of a repository; the caller closes it.

    Raises:
        CacheError: What is configured cannot be used.
    """
    return _open(cache.store, cache)


def _open(store: StoreSettings, cache: CacheSettings) -> ObjectStore:
    return DirectoryStore.open(store.directory)
