"""Where an answer becomes an object: hashed, decompressed, checked, and only then kept.

The hash covers the stored bytes, so it is taken of what was received. An object is
gathered in memory if its size is known and bearable: the hash is then checked before
anything else looks at the bytes, the fast decompression can be used, and the cache
sees three system calls. Any other object streams through to the cache, where nobody
can see it before it is verified.

A sink lives for one attempt and belongs to one thread.
"""

from typing import Protocol

from cvmfsexec.cache.store import ObjectStore
from cvmfsexec.errors import IntegrityError, ObjectTooLargeError
from cvmfsexec.fetch.inflate import inflate, new_decoder
from cvmfsexec.fetch.request import ObjectRequest
from cvmfsexec.format.digest import ContentHash, new_hasher
from cvmfsexec.format.dirent import Compression


class ObjectSink(Protocol):
    """A ``Sink`` that can hand over what it got."""

    def write(self, data: bytes) -> None:
        """See ``Sink``."""

    def finish(self) -> None:
        """See ``Sink``."""

    def commit(self) -> int:
        """Store the finished object and return a descriptor; the caller closes it.

        Raises:
            IntegrityError: It was not finished.
            CacheError: It is lost for lack of room.
        """

    def discard(self) -> None:
        """Forget everything that was not committed."""


class MemorySink:
    """Gathers an object of known size in memory."""

    __slots__ = ("_content", "_left_bytes", "_pieces", "_request", "_store")

    def __init__(self, request: ObjectRequest, store: ObjectStore) -> None:
        self._request = request
        self._store = store
        self._pieces: list[bytes] = []
        self._left_bytes = request.stored_max_bytes
        self._content: bytes | bytearray | None = None

    def write(self, data: bytes) -> None:
        """See ``Sink``."""
        self._left_bytes -= len(data)
        if self._left_bytes < 0:
            raise _too_long(self._request)
        self._pieces.append(data)

    def finish(self) -> None:
        """See ``Sink``."""
        request = self._request
        stored = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        wanted = request.content_hash
        _check_hash(ContentHash.of(stored, wanted.algorithm), wanted)
        if request.compression is Compression.ZLIB:
            self._content = inflate(stored, request.size_max_bytes)
        elif len(stored) == request.size_max_bytes:
            self._content = stored
        else:
            raise IntegrityError(
                f"{len(stored)} bytes of content instead of {request.size_max_bytes}"
            )

    def commit(self) -> int:
        """See ``ObjectSink``."""
        if self._content is None:
            raise _unfinished(self._request)
        with self._store.transaction() as transaction:
            transaction.write(self._content)
            return transaction.commit(self._request.content_hash)

    def keep(self) -> bool:
        """Store the finished object for whoever asks for it later.

        Returns:
            Whether it is stored; else there was no room.

        Raises:
            IntegrityError: It was not finished.
            CacheError: It is lost for lack of room.
        """
        if self._content is None:
            raise _unfinished(self._request)
        with self._store.transaction() as transaction:
            transaction.write(self._content)
            return transaction.keep(self._request.content_hash)

    def discard(self) -> None:
        """See ``ObjectSink``."""
        self._pieces.clear()
        self._content = None


class StreamSink:
    """Passes an object of any size on to the cache as it comes in."""

    def __init__(self, request: ObjectRequest, store: ObjectStore) -> None:
        self._request = request
        self._hasher = new_hasher(request.content_hash.algorithm)
        self._decoder = new_decoder(
            request.compression, request.size_bytes, request.size_max_bytes
        )
        self._left_bytes = request.stored_max_bytes
        self._is_finished = False
        self._transaction = store.transaction()

    def write(self, data: bytes) -> None:
        """See ``Sink``."""
        self._left_bytes -= len(data)
        if self._left_bytes < 0:
            raise _too_long(self._request)
        self._hasher.update(data)
        for piece in self._decoder.decode(data):
            self._transaction.write(piece)

    def finish(self) -> None:
        """See ``Sink``."""
        _check_hash(self._hasher.content_hash(), self._request.content_hash)
        self._decoder.finish()
        self._is_finished = True

    def commit(self) -> int:
        """See ``ObjectSink``."""
        if not self._is_finished:
            raise _unfinished(self._request)
        return self._transaction.commit(self._request.content_hash)

    def discard(self) -> None:
        """See ``ObjectSink``."""
        self._transaction.abort()


def _check_hash(received: ContentHash, wanted: ContentHash) -> None:
    if received != wanted:
        raise IntegrityError(f"received {received} for object {wanted}")


def _too_long(request: ObjectRequest) -> ObjectTooLargeError:
    return ObjectTooLargeError(
        f"more than {request.stored_max_bytes} bytes for object {request.content_hash}"
    )


def _unfinished(request: ObjectRequest) -> IntegrityError:
    return IntegrityError(f"object {request.content_hash} did not arrive in full")
