"""What a mount says and does about its cache, when it is talked to.

Objects have names of their own in the cache; which files they belong to, only the
catalogs know. So files can be evicted and pinned by their paths, but a list tells paths
of catalogs only.

Source: docs/reference/talk.md.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cvmfsexec.cache.contents import StoredObject, stored_objects
from cvmfsexec.cache.directory import DirectoryStore
from cvmfsexec.cache.lasting_pins import pin_for_good, unpin
from cvmfsexec.cache.store import ObjectStore
from cvmfsexec.client.assembly import Client
from cvmfsexec.errors import CacheError, ConfigurationError
from cvmfsexec.fetch import ObjectRequest
from cvmfsexec.format.digest import ContentHash
from cvmfsexec.format.names import normalize_path
from cvmfsexec.format.talk_message import OK, whole_number

LIMIT_MB_MIN = 1000
"""The original's."""

_MB = 1 << 20
_MINUTE_S = 60
_NO_SUCH_FILE = "No such regular file\n"
_NOT_PINNED = "No such regular file or pinning failed\n"
_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class CachedPaths:
    """The cache of one mount."""

    def __init__(self, client: Client) -> None:
        """Talk about the cache of this client."""
        self._client = client
        self._store = client.store

    def answers(self) -> dict[str, Callable[[str], str]]:
        """Return the function for each command."""
        return {
            "cache instance": self._instance,
            "cache size": self._size,
            "cache list": lambda _: self._list(lambda _one: True),
            "cache list pinned": lambda _: self._list(lambda one: one.is_pinned),
            "cache list catalogs": self._list_catalogs,
            "cache limit get": self._limit,
            "cache limit set": self._set_limit,
            "cleanup": self._clean,
            "cleanup rate": self._cleanings,
            "evict": self._evict,
            "pin": self._pin,
        }

    def _instance(self, _argument: str) -> str:
        cache = self._client.settings.cache
        return (
            f"Cache: {type(self._store).__name__}\n"
            f"Directory: {cache.directory}\n"
            f"Workspace: {cache.workspace}\n"
        )

    def _size(self, _argument: str) -> str:
        quota = self._store.quota
        if quota is None:
            return "Cache cannot report its size\n"
        used_bytes, pinned_bytes = quota.used_bytes(), quota.pinned_bytes()
        return (
            f"Current cache size is {used_bytes // _MB}MB ({used_bytes} Bytes), "
            f"pinned: {pinned_bytes // _MB}MB ({pinned_bytes} Bytes)\n"
        )

    def _list(self, is_wanted: Callable[[StoredObject], bool]) -> str:
        names = self._catalog_names()
        quota = self._store.quota
        with _directory_of(self._store) as directory:
            if directory is None or quota is None:
                return "Cache cannot list its entries\n"
            return "".join(
                f"{names.get(one.content_hash, str(one.content_hash))}\n"
                for one in stored_objects(directory, quota.in_use())
                if is_wanted(one)
            )

    def _list_catalogs(self, _argument: str) -> str:
        names = self._catalog_names()
        return "".join(
            f"{name}\n" for key, name in names.items() if self._store.has(key)
        )

    def _catalog_names(self) -> dict[ContentHash, str]:
        """Return what is known of catalogs, as the original calls them."""
        names: dict[ContentHash, str] = {}
        tree = self._client.tree
        number = tree.root.number
        while (slot := tree.slot(number)) is not None:
            path = os.fsdecode(slot.mountpoint) or "/"
            title = f"file catalog at {self._client.fqrn}:{path}"
            names[slot.content_hash] = f"{title} ({slot.content_hash})"
            number += 1
        return names

    def _limit(self, _argument: str) -> str:
        quota = self._store.quota
        return f"{quota.limit_bytes // _MB if quota is not None else 0}\n"

    def _set_limit(self, argument: str) -> str:
        quota, limit_mb = self._store.quota, whole_number(argument)
        if quota is None or not quota.limit_bytes or limit_mb is None:
            return "Limit not reset\n"
        if limit_mb < LIMIT_MB_MIN:
            return f"New limit too low (minimum {LIMIT_MB_MIN})\n"
        quota.limit_bytes = limit_mb * _MB
        return OK

    def _clean(self, argument: str) -> str:
        quota, target_mb = self._store.quota, whole_number(argument)
        if target_mb is None:
            return "Usage: cleanup <MB>\n"
        if quota is None:
            return "Cache cannot trigger eviction\n"
        if quota.clean(target_mb * _MB):
            return OK
        return "Not fully cleaned (there might be pinned chunks)\n"

    def _cleanings(self, argument: str) -> str:
        quota, minutes = self._store.quota, whole_number(argument)
        if minutes is None:
            return "Usage: cleanup rate <period in mn>\n"
        if quota is None:
            return "Unsupported by this cache\n"
        return f"{quota.cleanings_within(minutes * _MINUTE_S)}\n"

    def _evict(self, argument: str) -> str:
        requests = self._requests_for(argument)
        if requests is None:
            return _NO_SUCH_FILE
        with _directory_of(self._store) as directory:
            for request in requests:
                if directory is not None:
                    unpin(directory, request.content_hash)
                self._store.remove(request.content_hash)
        if any(self._store.has(request.content_hash) for request in requests):
            raise CacheError("it cannot be removed from the cache")
        return OK

    def _pin(self, argument: str) -> str:
        requests = self._requests_for(argument)
        if requests is None:
            return _NOT_PINNED
        with _directory_of(self._store) as directory:
            if directory is None:
                return _NOT_PINNED
            for request in requests:
                os.close(self._client.fetcher.open(request))
                if not pin_for_good(directory, request.content_hash):
                    return _NOT_PINNED
        return OK

    def _requests_for(self, argument: str) -> list[ObjectRequest] | None:
        """Return what a regular file consists of; ``None`` if there is none."""
        try:
            path = normalize_path(os.fsencode(argument))
        except ConfigurationError:
            return None
        found = self._client.lookup.find(path)
        if found is None or not found.entry.is_regular:
            return None
        return self._client.lookup.content_requests(found)


@contextmanager
def _directory_of(store: ObjectStore) -> Iterator[int | None]:
    """Open the directory of a store for a moment, if it is one.

    Raises:
        CacheError: What is done to it is not possible.
    """
    if not isinstance(store, DirectoryStore):
        yield None
        return
    try:
        directory = os.open(store.path, _DIRECTORY_FLAGS)
        try:
            yield directory
        finally:
            os.close(directory)
    except OSError as error:
        raise CacheError(f"cache directory {store.path}: {error.strerror}") from error
