"""Objects kept in this process: for tests, and for tools that store nothing.

With a limit it is a cache: what was stored or opened longest ago is forgotten.
"""

import threading
from collections import OrderedDict

from cvmfsexec.cache import scratch
from cvmfsexec.cache.lone_store import LoneStore
from cvmfsexec.cache.open_files import close_quietly
from cvmfsexec.cache.store import Transaction
from cvmfsexec.errors import CacheError
from cvmfsexec.format.digest import ContentHash


class MemoryStore(LoneStore):
    """An ``ObjectStore`` that ends with its process.

    Args:
        limit_bytes: How much to hold; 0 for any.
    """

    def __init__(self, limit_bytes: int = 0) -> None:
        self._limit_bytes = limit_bytes
        self._lock = threading.Lock()
        self._objects: OrderedDict[ContentHash, bytes] = OrderedDict()
        self._used_bytes = 0

    def open_object(self, content_hash: ContentHash) -> int | None:
        """See ``ObjectStore``."""
        with self._lock:
            content = self._objects.get(content_hash)
            if content is None:
                return None
            self._objects.move_to_end(content_hash)
        return _file_of(content)

    def has(self, content_hash: ContentHash) -> bool:
        """See ``ObjectStore``."""
        return content_hash in self._objects

    def transaction(self) -> "_MemoryTransaction":
        """See ``ObjectStore``."""
        return _MemoryTransaction(self)

    def put(self, content_hash: ContentHash, content: bytes) -> bool:
        """Keep an object; return whether there is room for it."""
        if self._limit_bytes and len(content) > self._limit_bytes:
            return False
        with self._lock:
            self._forget(content_hash)
            self._objects[content_hash] = content
            self._used_bytes += len(content)
            while self._limit_bytes and self._used_bytes > self._limit_bytes:
                self._forget(next(iter(self._objects)))
        return True

    def remove(self, content_hash: ContentHash) -> None:
        """See ``ObjectStore``."""
        with self._lock:
            self._forget(content_hash)

    def _forget(self, content_hash: ContentHash) -> None:
        self._used_bytes -= len(self._objects.pop(content_hash, b""))

    def used_bytes(self) -> int | None:
        """See ``ObjectStore``; exact."""
        return self._used_bytes

    def close(self) -> None:
        """See ``ObjectStore``; the objects stay for whoever opens it again."""


class _MemoryTransaction(Transaction):
    """An object being gathered."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._content = bytearray()

    def write(self, data: bytes | bytearray) -> None:
        """See ``Transaction``."""
        self._content += data

    def commit(self, content_hash: ContentHash) -> int:
        """See ``Transaction``."""
        content = bytes(self._content)
        descriptor = _file_of(content)
        self._store.put(content_hash, content)
        return descriptor

    def keep(self, content_hash: ContentHash) -> bool:
        """See ``Transaction``."""
        return self._store.put(content_hash, bytes(self._content))

    def abort(self) -> None:
        """See ``Transaction``."""
        self._content = bytearray()


def _file_of(content: bytes) -> int:
    try:
        descriptor = scratch.open_in_memory()
    except OSError as error:
        raise CacheError(f"no room for an object: {error.strerror}") from error
    try:
        scratch.write_all(descriptor, content)
    except OSError as error:
        close_quietly(descriptor)
        raise CacheError(f"no room for an object: {error.strerror}") from error
    return descriptor
