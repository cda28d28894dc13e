"""A bounded set of open objects.

However many files the payload has open, the file server needs a descriptor only
while it reads. The most recently used ones stay open, because reads come in runs; a
descriptor that falls out while another thread reads from it is closed by that thread.

A disk can lose what was verified when it was stored: an object turns out to be shorter
than it was, or the kernel says that it cannot be read. Such an object is fetched again
before the reader hears of it, once; what the reader gets is right, or an error.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from cvmfsexec import log
from cvmfsexec.cache.open_files import (
    again_while_gone,
    close_quietly,
    unreadable,
)
from cvmfsexec.errors import GoneObjectError, UnreadableObjectError
from cvmfsexec.fetch import ObjectRequest

if TYPE_CHECKING:
    from cvmfsexec.format.digest import ContentHash

OPEN_MAX = 128
"""With catalogs, worker threads and connections, a server stays below 300."""


OpenObject = Callable[[ObjectRequest, Callable[[], object] | None], int]
Discard = Callable[["ContentHash", int], object]


class _Descriptor:
    """An open object and how many threads are reading from it."""

    __slots__ = ("is_dropped", "number", "reader_count")

    def __init__(self, number: int) -> None:
        self.number = number
        self.reader_count = 0
        self.is_dropped = False


class DescriptorCache:
    """Reads from objects, keeping the most recently used ones open.

    Safe to call from any thread. ``_lock`` guards the table and the counts; it is
    not held while an object is fetched or read.
    """

    def __init__(
        self,
        open_object: OpenObject,
        limit: int = OPEN_MAX,
        discard: Discard | None = None,
    ) -> None:
        """Make an empty set.

        Args:
            open_object: Returns a descriptor of the verified object, and calls what
                it is given if that is not in the cache.
            limit: Descriptors kept open at most.
            discard: Makes the cache forget an object that is damaged, of which it is
                given a descriptor, unless another has taken its place.
        """
        self._open_object = open_object
        self._discard = discard
        self._limit = limit
        self._lock = threading.Lock()
        self._kept: OrderedDict[ContentHash, _Descriptor] = OrderedDict()

    def __len__(self) -> int:
        """Return how many descriptors are kept."""
        return len(self._kept)

    def read(
        self,
        request: ObjectRequest,
        start: int,
        length: int,
        missed: Callable[[], object] | None = None,
    ) -> bytes:
        """Return a piece of an object that is known to reach that far.

        Args:
            request: The object.
            start: First byte.
            length: Bytes wanted; all of them lie inside the object.
            missed: Called if the object has to be fetched, before it is.

        Raises:
            UnreadableObjectError: The object is damaged, and so is the one fetched
                instead.
            CvmfsError: The object cannot be had.
        """
        read = partial(
            again_while_gone, partial(self._read, request, start, length, missed)
        )
        try:
            return read()
        except UnreadableObjectError as error:
            if self._discard is None:
                raise
            log.warning("%s; it is fetched again", error)
        return read()

    def _read(
        self,
        request: ObjectRequest,
        start: int,
        length: int,
        missed: Callable[[], object] | None,
    ) -> bytes:
        descriptor = self._acquire(request, missed)
        try:
            return _read(request, descriptor.number, start, length)
        except UnreadableObjectError as error:
            self._let_go(request, descriptor)
            if self._discard is not None and not isinstance(error, GoneObjectError):
                self._discard(request.content_hash, descriptor.number)
            raise
        finally:
            self._release(descriptor)

    def close(self) -> None:
        """Close what nobody reads from; the rest follows with its last reader."""
        with self._lock:
            while self._kept:
                self._drop(self._kept.popitem()[1])

    def _acquire(
        self, request: ObjectRequest, missed: Callable[[], object] | None
    ) -> _Descriptor:
        key = request.content_hash
        with self._lock:
            known = self._kept.get(key)
            if known is not None:
                self._kept.move_to_end(key)
                known.reader_count += 1
                return known
        fresh = _Descriptor(self._open_object(request, missed))
        with self._lock:
            kept = self._kept.setdefault(key, fresh)
            kept.reader_count += 1
            if kept is not fresh:
                close_quietly(fresh.number)
            elif len(self._kept) > self._limit:
                self._drop(self._kept.popitem(last=False)[1])
            return kept

    def _release(self, descriptor: _Descriptor) -> None:
        with self._lock:
            descriptor.reader_count -= 1
            if descriptor.is_dropped and descriptor.reader_count == 0:
                close_quietly(descriptor.number)

    def _let_go(self, request: ObjectRequest, descriptor: _Descriptor) -> None:
        with self._lock:
            if self._kept.get(request.content_hash) is descriptor:
                self._drop(self._kept.pop(request.content_hash))

    def _drop(self, descriptor: _Descriptor) -> None:
        """Close now or leave it to the last reader. The caller holds the lock."""
        descriptor.is_dropped = True
        if descriptor.reader_count == 0:
            close_quietly(descriptor.number)


def _read(request: ObjectRequest, descriptor: int, start: int, length: int) -> bytes:
    try:
        data = os.pread(descriptor, length, start)
    except OSError as error:
        raise unreadable(f"object {request.content_hash}", error) from error
    if len(data) != length:
        raise UnreadableObjectError(f"object {request.content_hash} is cut short")
    return data
