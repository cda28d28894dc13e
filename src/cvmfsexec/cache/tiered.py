"""Two stores, one above the other, as the original's tiered caches.

The upper one is asked first. What only the lower one has is copied up when it is
opened, so that it comes from there the next time, and so that what had to be verified
in the lower one is verified once. What is fetched is kept in the upper one, and in the
lower one too unless that is only read. Limits are those of the upper store. What cannot
be copied up is read where it is; what cannot be read is passed over, and fetched.
"""

from contextlib import AbstractContextManager

from cvmfsexec import log
from cvmfsexec.cache import scratch
from cvmfsexec.cache.open_files import close_quietly
from cvmfsexec.cache.pins import Pin
from cvmfsexec.cache.store import ObjectStore, StoreQuota, Transaction
from cvmfsexec.errors import CacheError
from cvmfsexec.format.digest import ContentHash


class TieredStore:
    """An ``ObjectStore`` of two others, which become its own.

    Args:
        upper: Asked first; whatever is wanted is kept here.
        lower: Asked then.
        is_lower_written: Whether what is fetched is kept there, too.
    """

    def __init__(
        self, upper: ObjectStore, lower: ObjectStore, *, is_lower_written: bool
    ) -> None:
        self._upper = upper
        self._lower = lower
        self._is_lower_written = is_lower_written

    @property
    def quota(self) -> StoreQuota | None:
        """See ``ObjectStore``."""
        return self._upper.quota

    def open_object(self, content_hash: ContentHash) -> int | None:
        """See ``ObjectStore``."""
        descriptor = self._upper.open_object(content_hash)
        if descriptor is not None:
            return descriptor
        found = self._lower.open_object(content_hash)
        if found is None:
            return None
        copy = self._copy_up(found, content_hash)
        if copy != found:
            close_quietly(found)
        return copy

    def has(self, content_hash: ContentHash) -> bool:
        """See ``ObjectStore``."""
        return self._upper.has(content_hash) or self._lower.has(content_hash)

    def pin(self, content_hash: ContentHash) -> Pin:
        """See ``ObjectStore``; what is open lies in the upper store."""
        return self._upper.pin(content_hash)

    def claim(
        self,
        content_hash: ContentHash,
        *,
        patience_s: float,
        size_bytes: int | None = None,
    ) -> AbstractContextManager[bool]:
        """See ``ObjectStore``."""
        return self._upper.claim(
            content_hash, patience_s=patience_s, size_bytes=size_bytes
        )

    def transaction(self) -> Transaction:
        """See ``ObjectStore``."""
        transaction = self._upper.transaction()
        if not self._is_lower_written:
            return transaction
        return _TieredTransaction(self, transaction)

    def remove(self, content_hash: ContentHash) -> None:
        """See ``ObjectStore``; an object of a read-only lower store cannot be."""
        self._upper.remove(content_hash)
        self._lower.remove(content_hash)

    def used_bytes(self) -> int | None:
        """See ``ObjectStore``; of the upper store."""
        return self._upper.used_bytes()

    def close(self) -> None:
        """See ``ObjectStore``."""
        self._upper.close()
        self._lower.close()

    def copy_down(self, source: int, content_hash: ContentHash) -> None:
        """Keep an object in the lower store, if that is possible."""
        if self._lower.has(content_hash):
            return
        try:
            with self._lower.transaction() as transaction:
                _copy(source, transaction)
                transaction.keep(content_hash)
        except (CacheError, OSError) as error:
            log.debug("cache: not kept in the lower one: %s", error)

    def _copy_up(self, source: int, content_hash: ContentHash) -> int | None:
        """Return a descriptor of a copy, or the source if nothing takes one.

        Returns:
            ``None`` if there is nothing to copy.
        """
        try:
            with self._upper.transaction() as transaction:
                _copy(source, transaction)
                return transaction.commit(content_hash)
        except CacheError as error:
            log.debug("cache: not kept in the upper one: %s", error)
            return source
        except OSError as error:  # a disk that fails: the network has it too
            log.warning("cache: cannot read %s: %s", content_hash, error.strerror)
            self._lower.remove(content_hash)
            return None


class _TieredTransaction(Transaction):
    """A transaction of the upper store, whose object is then copied down."""

    __slots__ = ("_store", "_upper")

    def __init__(self, store: TieredStore, upper: Transaction) -> None:
        self._store = store
        self._upper = upper

    def write(self, data: bytes | bytearray) -> None:
        """See ``Transaction``."""
        self._upper.write(data)

    def commit(self, content_hash: ContentHash) -> int:
        """See ``Transaction``."""
        descriptor = self._upper.commit(content_hash)
        self._store.copy_down(descriptor, content_hash)
        return descriptor

    def keep(self, content_hash: ContentHash) -> bool:
        """See ``Transaction``."""
        descriptor = self.commit(content_hash)
        close_quietly(descriptor)
        return self._store.has(content_hash)

    def abort(self) -> None:
        """See ``Transaction``."""
        self._upper.abort()


def _copy(source: int, transaction: Transaction) -> None:
    """Copy an object; only what is the fault of its source is an ``OSError``."""
    for piece in scratch.pieces(source):
        transaction.write(piece)
