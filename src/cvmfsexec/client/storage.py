"""Opening the store that a configuration asks for.

Modules of stores are imported when one of their kind is wanted: a warm start needs one.
"""

import os
import stat
from typing import TYPE_CHECKING

from cvmfsexec import log
from cvmfsexec.cache.directory import DirectoryStore
from cvmfsexec.cache.private_directory import open_private_directory
from cvmfsexec.cache.store import ObjectStore
from cvmfsexec.cache.young_directories import is_being_made
from cvmfsexec.configuration.cache_instances import StoreKind, StoreSettings
from cvmfsexec.configuration.settings import CacheSettings
from cvmfsexec.errors import CacheError

if TYPE_CHECKING:
    from cvmfsexec.cache.read_only import ReadOnlyStore

_OTHERS_CAN_WRITE = stat.S_IWGRP | stat.S_IWOTH


def open_store(cache: CacheSettings, uid: int) -> ObjectStore:
    """Return the configured store of a repository; the caller closes it.

    Args:
        cache: Its settings.
        uid: The user's number on the host.

    Raises:
        CacheError: What is configured cannot be used.
    """
    if cache.workspace != cache.store.directory:
        # What is not an object has its place, which only this user can write.
        os.close(open_private_directory(cache.workspace))
    return _Opening(cache, uid).open(cache.store)


class _Opening:
    """Opens the stores of one repository."""

    def __init__(self, cache: CacheSettings, uid: int) -> None:
        self._cache = cache
        self._uid = uid

    def open(self, store: StoreSettings) -> ObjectStore:
        """Return one of the configured stores."""
        if store.kind is StoreKind.POSIX:
            return self._posix(store)
        if store.kind is StoreKind.ALIEN:
            return self._alien(store)
        if store.kind is StoreKind.RAM:
            return self._ram(store)
        if store.kind is StoreKind.PACKED:
            from cvmfsexec.cache.packed import PackedStore

            return PackedStore.open(store.directory, store.limit_bytes)
        return self._tiered(store)

    def _posix(self, store: StoreSettings) -> ObjectStore:
        if self._cache.workspace != store.directory and _is_shared(store.directory):
            return self._alien(store)
        directory = open_private_directory(store.directory)
        if not os.major(os.fstat(directory).st_dev):
            _warn_of_network(store.directory, directory)
        return DirectoryStore.on_descriptor(
            store.directory, directory, store.limit_bytes
        )

    def _alien(self, store: StoreSettings) -> ObjectStore:
        from cvmfsexec.cache.alien import AlienStore

        return AlienStore.open(
            store.directory, self._cache.workspace, store.limit_bytes
        )

    def _ram(self, store: StoreSettings) -> ObjectStore:
        from cvmfsexec.cache.ram import RamStore

        try:
            return RamStore.open_for(self._uid, store.limit_bytes)
        except CacheError as error:
            from cvmfsexec.cache.memory import MemoryStore

            log.warning("%s; each repository has a RAM cache of its own", error)
            return MemoryStore(store.limit_bytes)

    def _tiered(self, store: StoreSettings) -> ObjectStore:
        from cvmfsexec.cache.tiered import TieredStore

        if store.upper is None or store.lower is None:
            raise CacheError("a tiered cache needs an upper and a lower one")
        upper = self.open(store.upper)
        try:
            lower = self._lower(store.lower, is_written=store.is_lower_written)
        except CacheError:
            upper.close()
            raise
        return TieredStore(upper, lower, is_lower_written=store.is_lower_written)

    def _lower(self, store: StoreSettings, *, is_written: bool) -> ObjectStore:
        has_files = store.kind in (StoreKind.POSIX, StoreKind.ALIEN)
        return self.open(store) if is_written or not has_files else self._read(store)

    def _read(self, store: StoreSettings) -> "ReadOnlyStore":
        from cvmfsexec.cache.read_only import ReadOnlyStore

        verifies = store.kind is StoreKind.ALIEN or _is_shared(store.directory)
        workspace = self._cache.workspace if verifies else None
        return ReadOnlyStore.open(store.directory, workspace)


def _warn_of_network(path: str, directory: int) -> None:
    """Suggest what is better, if the directory's file system is on the network.

    Those have no device of their own, so nobody else comes here.
    """
    from cvmfsexec.cache.file_system_type import network_type_of

    file_system = network_type_of(directory)
    if file_system is not None:
        log.warning(
            "the cache directory %s lies on %s, a network file system: set "
            "CVMFS_CACHE_TYPE=packed for few large files, or CVMFS_CACHE_BASE to a "
            "local disk",
            path,
            file_system,
        )


def _is_shared(directory: str) -> bool:
    """Whether other users can write a directory, if it is there."""
    try:
        status = os.stat(directory)
    except OSError:
        return False
    if is_being_made(status):
        return False
    return status.st_uid != os.geteuid() or bool(status.st_mode & _OTHERS_CAN_WRITE)
