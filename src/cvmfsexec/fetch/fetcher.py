"""The door to objects: from the cache if they are there, else from a server.

Any thread may call; a thread that asks for an object that another thread, or another
process with the same cache, is downloading waits for that download. What can be wrong
with an object is found here and nowhere else: a descriptor that leaves this module is
that of the right bytes.
"""

import os
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from cvmfsexec import callers, log
from cvmfsexec.cache.open_files import (
    again_while_gone,
    close_quietly,
    is_same_file,
    unreadable,
)
from cvmfsexec.cache.pins import Pin
from cvmfsexec.cache.store import ObjectStore
from cvmfsexec.errors import (
    CacheError,
    IntegrityError,
    NoRouteError,
    ObjectTooLargeError,
    UnreadableObjectError,
)
from cvmfsexec.fetch.flights import Flights
from cvmfsexec.fetch.request import ObjectRequest, ObjectSource
from cvmfsexec.fetch.sinks import MemorySink, ObjectSink, StreamSink
from cvmfsexec.format.digest import ContentHash

if TYPE_CHECKING:
    from cvmfsexec.fetch.prefetch import Prefetch
    from cvmfsexec.fetch.slowest import SlowestObjects, Wait

SMALL_BYTES = 256 * 1024
"""Objects up to here are always gathered in memory, in as many threads as there are."""

LARGE_BYTES = 16 * 1024 * 1024
"""Objects up to here (a chunk of default size) are if few do so at once."""

PATIENCE_S = 10.0
"""How long another process may take for an object of no size: two connections that
do not come about, and then one that does."""

_PATIENCE_BYTES_PER_S = 1_000_000  # slower than that, waiting is not worth it

_LARGE_AT_ONCE = 2  # each leaves up to 12 MiB in the allocator; zlib serves the others


class Fetcher:
    """Opens objects of one repository.

    Args:
        client: Asked for objects.
        store: Where they are kept.
        external_client: Asked for external files; ``None`` if none are configured.

    Attributes:
        opened_count: How often an object was asked for.
        missed_count: How often it was not in the cache. Threads do not wait for each
            other to count: both may be a little too low.
    """

    def __init__(
        self,
        client: ObjectSource,
        store: ObjectStore,
        external_client: ObjectSource | None = None,
    ) -> None:
        self._client = client
        self._store = store
        self._external_client = external_client
        self._flights = Flights()
        self._large = threading.Semaphore(_LARGE_AT_ONCE)
        self._discarding = threading.Lock()
        self._unusable: set[tuple[int, int]] = set()
        self.opened_count = 0
        self.missed_count = 0
        self._slowest: SlowestObjects | None = None  # until there is one

    def open(
        self, request: ObjectRequest, missed: Callable[[], object] | None = None
    ) -> int:
        """Return a descriptor of the verified, decompressed object.

        Args:
            request: The object.
            missed: Called if it is not in the cache, before it is fetched.

        Returns:
            The caller closes it. Its position is undefined: read with ``os.pread``.

        Raises:
            FormatError: The request names no possible object.
            IntegrityError: No server delivered the right bytes.
            TransferError: No server delivered anything.
            CacheError: There is no room for the object, not even in memory.
            CannotWait: It is not in the cache, and the thread must not wait.
        """
        self.opened_count += 1
        descriptor = self._open_cached(request)
        if descriptor is not None:
            return descriptor
        callers.before_waiting()
        self.missed_count += 1
        if missed is not None:
            missed()
        begun_s = time.monotonic()
        descriptor = self._flights.join(
            request.content_hash, lambda: self._fetch(request)
        )
        self._note_wait(request, time.monotonic() - begun_s)
        if not _has_announced_size(descriptor, request):
            # Two catalogs announce different sizes; the other one had its way.
            close_quietly(descriptor)
            raise IntegrityError(f"object {request.content_hash} has another size")
        return descriptor

    @property
    def slowest(self) -> "list[Wait]":
        """The objects for which somebody had to wait longest."""
        return self._slowest.waits() if self._slowest is not None else []

    def read(self, request: ObjectRequest, limit_bytes: int) -> bytes:
        """Return the content of a small object.

        Raises:
            ObjectTooLargeError: It has more than ``limit_bytes``.
            CvmfsError: As ``open``.
        """
        read = partial(again_while_gone, partial(self._read, request, limit_bytes))
        try:
            return read()
        except UnreadableObjectError as error:
            log.warning("%s; it is fetched again", error)
            self.discard(request.content_hash)
        return read()

    def prefetch(self, request: ObjectRequest) -> "Prefetch | None":
        """Begin to fetch an object by other means, for whoever asks for it later.

        Returns:
            ``None`` if it is there, on its way, another process's claim, or without
            room.

        Raises:
            FormatError: The request names no possible object.
        """
        from cvmfsexec.fetch.prefetch import Prefetch

        return Prefetch.begin(request, self._store, self._flights)

    @property
    def fetching_count(self) -> int:
        """How many objects are being fetched at this moment."""
        return len(self._flights)

    def has(self, content_hash: ContentHash) -> bool:
        """Whether an object can be opened without asking a server."""
        return self._store.has(content_hash)

    def pin(self, content_hash: ContentHash) -> Pin:
        """Keep an object in the cache until the pin is released, or forgotten."""
        return self._store.pin(content_hash)

    def discard(self, content_hash: ContentHash, damaged: int | None = None) -> None:
        """Forget a cached object that its reader finds damaged.

        Verified objects can be torn by a power failure, and the size that would tell
        is not always known. Discard it, open it once more, and believe the second.

        What a cache does not let go of (a failing disk becomes read-only) is passed
        over from now on.

        Args:
            content_hash: Its hash.
            damaged: Descriptor of it, if that is still open: what another thread or
                process has put in its place stays.
        """
        with self._discarding:
            present = self._store.open_object(content_hash)
            try:
                if damaged is not None and _has_taken_its_place(present, damaged):
                    return
                self._store.remove(content_hash)
                if present is not None and self._is_still(content_hash, present):
                    self._unusable.add(_identity(present))
            finally:
                if present is not None:
                    close_quietly(present)

    def _note_wait(self, request: ObjectRequest, seconds: float) -> None:
        log.debug("object %s came in %.3f s", request.content_hash, seconds)
        if self._slowest is None:
            from cvmfsexec.fetch.slowest import SlowestObjects

            self._slowest = SlowestObjects()
        self._slowest.add(request.content_hash, seconds, request.size_bytes or 0)

    def _is_still(self, content_hash: ContentHash, damaged: int) -> bool:
        """Whether an object is the same file, and not one that took its place."""
        present = self._store.open_object(content_hash)
        if present is None:
            return False
        try:
            return is_same_file(present, damaged)
        finally:
            close_quietly(present)

    def _read(self, request: ObjectRequest, limit_bytes: int) -> bytes:
        descriptor = self.open(request)
        try:
            size_bytes = os.fstat(descriptor).st_size
            if size_bytes > limit_bytes:
                raise ObjectTooLargeError(
                    f"object {request.content_hash} has {size_bytes} bytes; "
                    f"the limit is {limit_bytes}"
                )
            return os.pread(descriptor, size_bytes, 0)
        except OSError as error:
            raise unreadable(f"object {request.content_hash}", error) from error
        finally:
            close_quietly(descriptor)

    def _open_cached(self, request: ObjectRequest) -> int | None:
        descriptor = self._store.open_object(request.content_hash)
        if descriptor is None:
            return None
        if self._unusable and _identity(descriptor) in self._unusable:
            close_quietly(descriptor)
            return None
        if _has_announced_size(descriptor, request):
            return descriptor
        log.warning(
            "object %s in the cache has the wrong size; it is fetched again",
            request.content_hash,
        )
        self.discard(request.content_hash, descriptor)
        close_quietly(descriptor)
        return None

    def _fetch(self, request: ObjectRequest) -> int:
        request.check()
        with self._store.claim(
            request.content_hash,
            patience_s=_patience_s(request),
            size_bytes=request.size_bytes,
        ):
            # Since the look into the cache, another flight or process may have landed.
            descriptor = self._open_cached(request)
            if descriptor is not None:
                return descriptor
            try:
                return self._download(request)
            except CacheError as error:
                log.debug("%s; once more", error)
                return self._download(request)  # the store has changed its place

    def _download(self, request: ObjectRequest) -> int:
        size_bytes = request.size_bytes
        if size_bytes is None or size_bytes > LARGE_BYTES:
            return self._download_through(StreamSink, request)
        if size_bytes <= SMALL_BYTES:
            return self._download_through(MemorySink, request)
        if not self._large.acquire(blocking=False):
            return self._download_through(StreamSink, request)
        try:
            return self._download_through(MemorySink, request)
        finally:
            self._large.release()

    def _download_through(
        self, sink_type: type[MemorySink | StreamSink], request: ObjectRequest
    ) -> int:
        source = self._source(request)
        attempts = _Attempts(sink_type, request, self._store)
        try:
            source.fetch_object(
                request.path,
                attempts.begin,
                limit_bytes=request.stored_max_bytes,
                byte_range=request.external_range,
                label=request.label,
            )
            return attempts.commit()
        finally:
            attempts.discard()

    def _source(self, request: ObjectRequest) -> ObjectSource:
        if request.external_path is None:
            return self._client
        if self._external_client is None:
            raise NoRouteError(
                "a file is external, and no server for such files is configured",
                hint="set CVMFS_EXTERNAL_URL",
            )
        return self._external_client


class _Attempts:
    """The sinks of one download; the last one made is the one that counts."""

    __slots__ = ("_request", "_sink", "_sink_type", "_store")

    def __init__(
        self,
        sink_type: type[MemorySink | StreamSink],
        request: ObjectRequest,
        store: ObjectStore,
    ) -> None:
        self._sink_type = sink_type
        self._request = request
        self._store = store
        self._sink: ObjectSink | None = None

    def begin(self) -> ObjectSink:
        """Return a new sink; what an earlier attempt left is forgotten."""
        self.discard()
        self._sink = self._sink_type(self._request, self._store)
        return self._sink

    def commit(self) -> int:
        """Store what the last attempt brought and return a descriptor."""
        if self._sink is None:
            raise IntegrityError(f"object {self._request.content_hash} never arrived")
        return self._sink.commit()

    def discard(self) -> None:
        """Forget everything that was not committed."""
        if self._sink is not None:
            self._sink.discard()


def _has_taken_its_place(present: int | None, damaged: int) -> bool:
    """Whether an object is another file than the damaged one, or none at all.

    Of copies, which have no name, that cannot be told.
    """
    if present is None:
        return True
    return bool(os.fstat(present).st_nlink) and not is_same_file(present, damaged)


def _identity(descriptor: int) -> tuple[int, int]:
    """Return what tells a file from all others."""
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


def _patience_s(request: ObjectRequest) -> float:
    """Return how long to wait for another process that downloads an object."""
    return PATIENCE_S + (request.size_bytes or 0) / _PATIENCE_BYTES_PER_S


def _has_announced_size(descriptor: int, request: ObjectRequest) -> bool:
    """Whether a file can be the whole object.

    No object of unknown size is empty: those are databases, certificates and JSON.
    """
    size_bytes = os.fstat(descriptor).st_size
    if request.size_bytes is None:
        return size_bytes > 0
    return size_bytes == request.size_bytes
