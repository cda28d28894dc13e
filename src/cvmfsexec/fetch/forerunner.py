"""Fetches objects before they are asked for.

One thread drives many transfers (``ParallelTransport``), verifies what is small and
stores it; a second one does so with what is large, so that the transfers go on. Both
are started when there is something to fetch for the first time, and end with the
process.

**Those who wait come first.** A read of an object on its way joins its flight, one of
any other object is never queued behind us. We use the connections that readers leave:
with theirs they are no more than ``connections_max``, but for the moment in which a
reader comes when we have them all.

**Failures are silent.** Each object is asked for once, on the route that is in use. If
that fails, in whatever way, the object is left to its reader, who has all the patience
and all the other routes. When several fail in a row, we rest.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import TYPE_CHECKING, Protocol

from cvmfsexec import log
from cvmfsexec.errors import CvmfsError
from cvmfsexec.fetch.fetcher import LARGE_BYTES, SMALL_BYTES, Fetcher
from cvmfsexec.fetch.prefetch import Prefetch
from cvmfsexec.fetch.request import ObjectRequest

if TYPE_CHECKING:
    from cvmfsexec.network.parallel_transport import Finished, ParallelTransport
    from cvmfsexec.network.transport import Request

BYTES_MAX = 32 << 20
"""Content of all objects under way: two chunks of the largest usual size."""

FAILURES_MAX = 3
REST_MIN_S = 2.0
REST_MAX_S = 60.0

_LANDINGS_MAX = 32  # that wait; behind a slow disk it is no use to hurry
_LANDINGS_AT_ONCE = 4  # before the transfers are looked after again
_END_PATIENCE_S = 2.0


class Routes(Protocol):
    """Who knows where to ask; ``cvmfsexec.network.client.HttpClient`` is one."""

    def first_request(
        self, path: str, limit_bytes: int, label: Callable[[], str]
    ) -> "Request":
        """Return what to ask first for an object."""

    def count(self, received_bytes: int, seconds: float) -> None:
        """Take note of a download."""


class Forerunner:
    """Fetches what a supply names.

    Args:
        fetcher: Knows what is there and what is on its way.
        routes: Where to ask.
        new_transport: Makes what transfers; called once, when it is needed.
        supply: Returns the next object to fetch, or ``None`` if there is none for now;
            called in our thread.
        connections_max: Of all transfers, those of others included.
        clock: Seconds that do not jump.

    Attributes:
        fetched_count: Objects that were fetched and stored.
        failed_count: Objects that could not be.
    """

    def __init__(
        self,
        fetcher: Fetcher,
        routes: Routes,
        new_transport: Callable[[], "ParallelTransport[Prefetch]"],
        supply: Callable[[], ObjectRequest | None],
        *,
        connections_max: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fetcher = fetcher
        self._routes = routes
        self._new_transport = new_transport
        self._supply = supply
        self._connections_max = connections_max
        self._clock = clock
        self._lock = threading.Lock()
        self._bytes = 0  # under way; both threads write it, under the lock
        self._thread: threading.Thread | None = None
        self._lander: threading.Thread | None = None
        self._transport: ParallelTransport[Prefetch] | None = None
        self._waits = False
        self._is_over = False
        self._next: ObjectRequest | None = None
        self._small: deque[Prefetch] = deque()
        self._large: SimpleQueue[Prefetch | None] = SimpleQueue()
        self._failures_in_a_row = 0
        self._rest_s = REST_MIN_S
        self._rests_until_s = float("-inf")
        self.fetched_count = 0
        self.failed_count = 0

    def wake(self) -> None:
        """Look at the supply again soon; any thread may call, often."""
        if self._thread is None:
            self._start()
        elif self._waits and self._transport is not None:
            self._waits = False
            self._transport.wake()

    def close(self) -> None:
        """Stop at once; whoever waits for an object on its way goes on alone."""
        with self._lock:
            self._is_over = True
        if self._transport is not None:
            self._transport.wake()
        for thread in (self._thread, self._lander):
            if thread is not None:
                thread.join(_END_PATIENCE_S)

    def _start(self) -> None:
        with self._lock:
            if self._thread is not None or self._is_over:
                return
            try:
                self._transport = self._new_transport()
                self._lander = self._start_thread(self._land_large)
                self._thread = self._start_thread(self._run)
            except (RuntimeError, CvmfsError, OSError) as error:
                # Threads or descriptors are short: do not ask for more of them.
                log.debug("nothing is fetched ahead: %s", error)
                self._is_over = True

    def _start_thread(self, work: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=work, name="ahead", daemon=True)
        thread.start()
        return thread

    def _run(self) -> None:
        transport = self._transport
        if transport is None:
            return
        under_way: set[Prefetch] = set()
        try:
            while not self._is_over:
                self._round(transport, under_way)
        finally:
            for prefetch in (*under_way, *self._small):
                prefetch.give_up()
            self._end_large()

    def _round(
        self, transport: "ParallelTransport[Prefetch]", under_way: set[Prefetch]
    ) -> None:
        """Do one round: start transfers first, so that no connection waits for us."""
        self._waits = True  # set before the supply is asked, so that no call is lost
        while (prefetch := self._next_prefetch(transport.active_count)) is not None:
            under_way.add(prefetch)
            if not self._begin(transport, prefetch):
                under_way.remove(prefetch)
        finished = transport.work()
        for transfer in finished:
            under_way.remove(transfer.token)
            self._arrive(transfer)
        if finished:
            return
        for _ in range(min(_LANDINGS_AT_ONCE, len(self._small))):
            self._land(self._small.popleft())
        if not self._small and not self._is_over:
            transport.wait()

    def _next_prefetch(self, active_count: int) -> Prefetch | None:
        while self._has_room(active_count):
            request = self._next or self._supply()
            self._next = None
            if request is None:
                return None
            size_bytes = request.size_bytes
            if size_bytes is None or size_bytes > LARGE_BYTES:
                continue
            if self._bytes and self._bytes + size_bytes > BYTES_MAX:
                self._next = request
                return None
            try:
                prefetch = self._fetcher.prefetch(request)
            except CvmfsError:
                continue  # its reader learns why
            if prefetch is not None:
                self._add_bytes(size_bytes)
                return prefetch
        return None

    def _has_room(self, active_count: int) -> bool:
        if self._is_over or len(self._small) >= _LANDINGS_MAX:
            return False
        if self._clock() < self._rests_until_s:
            return False
        others_count = self._fetcher.fetching_count - active_count - len(self._small)
        return active_count + max(0, others_count) < self._connections_max

    def _begin(
        self, transport: "ParallelTransport[Prefetch]", prefetch: Prefetch
    ) -> bool:
        request = prefetch.request
        try:
            asked = self._routes.first_request(
                request.path, request.stored_max_bytes, request.label
            )
            if asked.url.startswith("file:"):
                self._is_over = True  # what is on a local disk is not far
                self._drop(prefetch)
                return False
            transport.start(asked, prefetch.sink.write, prefetch)
        except CvmfsError as error:
            self._fail(prefetch, error)
            return False
        return True

    def _arrive(self, transfer: "Finished[Prefetch]") -> None:
        prefetch, answer = transfer.token, transfer.answer
        if answer is None or not answer.is_success:
            reason = transfer.error or f"HTTP status {answer.status if answer else 0}"
            self._fail(prefetch, reason)
            return
        self._routes.count(answer.received_bytes, transfer.seconds)
        if (prefetch.request.size_bytes or 0) <= SMALL_BYTES:
            self._small.append(prefetch)
        else:
            self._large.put(prefetch)

    def _land_large(self) -> None:
        try:
            while (prefetch := self._large.get()) is not None:
                self._land(prefetch)
                self.wake()  # there may be room for another one
        finally:
            self._is_over = True
            self._end_large()

    def _end_large(self) -> None:
        """Leave nobody waiting for what will not be landed any more."""
        while not self._large.empty():
            prefetch = self._large.get()
            if prefetch is not None:
                prefetch.give_up()
        self._large.put(None)

    def _land(self, prefetch: Prefetch) -> None:
        try:
            prefetch.land()
        except CvmfsError as error:
            self._take_note(prefetch, error)
        else:
            self.fetched_count += 1
            self._failures_in_a_row = 0
            self._rest_s = REST_MIN_S
        finally:
            self._add_bytes(-(prefetch.request.size_bytes or 0))

    def _drop(self, prefetch: Prefetch) -> None:
        prefetch.give_up()
        self._add_bytes(-(prefetch.request.size_bytes or 0))

    def _fail(self, prefetch: Prefetch, reason: object) -> None:
        self._drop(prefetch)
        self._take_note(prefetch, reason)

    def _take_note(self, prefetch: Prefetch, reason: object) -> None:
        self.failed_count += 1
        log.debug("object %s not ahead: %s", prefetch.request.content_hash, reason)
        self._failures_in_a_row += 1
        if self._failures_in_a_row >= FAILURES_MAX:
            self._failures_in_a_row = 0
            self._rests_until_s = self._clock() + self._rest_s
            self._rest_s = min(2 * self._rest_s, REST_MAX_S)

    def _add_bytes(self, size_bytes: int) -> None:
        with self._lock:
            self._bytes += size_bytes
