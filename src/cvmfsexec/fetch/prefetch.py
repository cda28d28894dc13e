"""One object that is fetched before anybody asked for it.

While it is under way, it is a flight like any other: whoever asks for the object waits
for it, and asks a server if it fails. It may end in another thread than it began in.
"""

from contextlib import ExitStack
from functools import partial
from typing import Self

from cvmfsexec.cache.store import ObjectStore
from cvmfsexec.errors import CacheError
from cvmfsexec.fetch.flights import Flights
from cvmfsexec.fetch.request import ObjectRequest
from cvmfsexec.fetch.sinks import MemorySink


class Prefetch:
    """An object on its way into the store. End it by ``land`` or ``give_up``.

    Attributes:
        request: The object.
        sink: For its stored bytes.
    """

    __slots__ = ("_claim", "_flights", "_store", "request", "sink")

    def __init__(
        self,
        request: ObjectRequest,
        store: ObjectStore,
        flights: Flights,
        claim: ExitStack,
    ) -> None:
        self.request = request
        self.sink = MemorySink(request, store)
        self._store = store
        self._flights = flights
        self._claim = claim

    @classmethod
    def begin(
        cls, request: ObjectRequest, store: ObjectStore, flights: Flights
    ) -> Self | None:
        """Return it, or ``None`` if the object is there, on its way, or has no room.

        Raises:
            FormatError: The request names no possible object.
        """
        request.check()
        content_hash = request.content_hash
        if not flights.begin(content_hash):
            return None
        claim = ExitStack()
        is_ours = False
        try:
            # With the claim: until it was ours, another process may have landed.
            is_ours = claim.enter_context(
                store.claim(content_hash, patience_s=0, size_bytes=request.size_bytes)
            ) and not store.has(content_hash)
        finally:
            if not is_ours:
                claim.close()
                flights.end(content_hash, None)
        return cls(request, store, flights, claim) if is_ours else None

    def land(self) -> bool:
        """Verify and store what was received; return whether somebody waited for it.

        Raises:
            CvmfsError: It is not the object, or there is no room for it. All is ended.
        """
        content_hash = self.request.content_hash
        is_kept = False
        try:
            self.sink.finish()
            is_kept = self.sink.keep()
        finally:
            self.sink.discard()
            self._claim.close()
            opened = partial(self._store.open_object, content_hash)
            was_waited_for = self._flights.end(
                content_hash, opened if is_kept else None
            )
        if not is_kept:
            raise CacheError(f"no room to keep object {content_hash}")
        return was_waited_for

    def give_up(self) -> None:
        """Leave the object to whoever asks for it."""
        self.sink.discard()
        self._claim.close()
        self._flights.end(self.request.content_hash, None)
