"""Filling a cache before a job needs it: what to fetch, and fetching it.

What is wanted is named by paths, of files, of directories with all that is below, or of
a trace; they mean what they mean in the revision that is shown now. So a trace may be
of an older revision, of another machine, or made up: all that it can do is to have
something of the repository fetched that verifies.

Whatever is in the cache is not fetched again: to go on where one was interrupted is to
begin anew.
"""

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from math import inf
from typing import TYPE_CHECKING, NamedTuple

from cvmfsexec import log
from cvmfsexec.cache.store import ObjectStore
from cvmfsexec.client.assembly import Client
from cvmfsexec.client.named_entries import matching, outermost
from cvmfsexec.errors import CacheError, CvmfsError
from cvmfsexec.fetch import ObjectRequest
from cvmfsexec.format.touched_paths import WHOLE, Extent, TouchedPaths
from cvmfsexec.repository.lookup import Location
from cvmfsexec.repository.slot import Slot

if TYPE_CHECKING:
    from cvmfsexec.format.digest import ContentHash

Note = Callable[[int], object]

_SLACK = 20
"""A twentieth of a cache: what other processes have set aside for themselves."""


class Wish(NamedTuple):
    """One object that is wanted.

    Attributes:
        request: What to fetch.
        path: The file that it is of; of the same content there may be more.
    """

    request: ObjectRequest
    path: bytes


class Failure(NamedTuple):
    """One that could not be had.

    Attributes:
        path: A file that it is of.
        error: Why.
    """

    path: bytes
    error: CvmfsError


class Wishes:
    """What is wanted of one repository, each object once.

    Attributes:
        wanted: In the order in which they came.
        file_count: How many files they are of.
        missing: Paths that are not there.
        failures: What could not be looked up.
    """

    def __init__(self, client: Client, note: Note = lambda _count: None) -> None:
        """Want nothing yet.

        Args:
            client: Of the repository.
            note: Called with the number of entries that were looked at.
        """
        self._client = client
        self._note = note
        self._known: set[ContentHash] = set()
        self.wanted: list[Wish] = []
        self.file_count = 0
        self.missing: list[bytes] = []
        self.failures: list[Failure] = []

    @property
    def total_bytes(self) -> int:
        """Their sizes, as announced."""
        return sum(wish.request.size_bytes or 0 for wish in self.wanted)

    def add_paths(self, paths: Iterable[bytes]) -> None:
        """Want files, and everything below directories; patterns mean what fits."""
        tops: list[Location] = []
        for path in paths:
            try:
                found = list(matching(self._client, path))
            except CvmfsError as error:
                self.failures.append(Failure(path, error))
                continue
            tops += found
            if not found:
                self.missing.append(path)
        for top in outermost(tops):
            self._add_tree(top)

    def add_trace(self, touched: TouchedPaths, connections: int) -> None:
        """Want what was touched: catalogs of directories, and the parts of files.

        Args:
            touched: What a trace tells.
            connections: How many catalogs to fetch at a time.
        """
        slots = self._slots_inside(touched.places(), connections)
        for directory, names in touched:
            slot = slots[directory]
            if isinstance(slot, CvmfsError):
                continue
            for name, extents in names:
                self._note(1)
                path = directory + b"/" + name if name else b""
                if slot is None:
                    self.missing.append(path)
                else:
                    self._add_touched(slot, path, extents)

    def _add_tree(self, top: Location) -> None:
        pending = [top]
        while pending:
            location = pending.pop()
            self._note(1)
            try:
                if location.entry.is_directory:
                    children = self._client.lookup.list_(location)
                    pending.extend(sorted(children, reverse=True))
                elif location.entry.is_regular:
                    self.file_count += 1
                    self._add_file(location)
            except CvmfsError as error:
                self.failures.append(Failure(location.path, error))

    def _slots_inside(
        self, places: Iterator[bytes], connections: int
    ) -> dict[bytes, Slot | CvmfsError | None]:
        """Have the catalogs of many directories; what cannot be had is a failure."""
        slots: dict[bytes, Slot | CvmfsError | None] = {}
        lock = threading.Lock()

        def work() -> None:
            while True:
                with lock:
                    place = next(places, None)
                if place is None:
                    return
                try:
                    slots[place] = self._slot_inside(place)
                except CvmfsError as error:
                    slots[place] = error

        _share_out(work, connections)
        for place, slot in slots.items():
            if isinstance(slot, CvmfsError):
                self.failures.append(Failure(place, slot))
        return slots

    def _slot_inside(self, directory: bytes) -> Slot | None:
        """Return the catalog of a directory's entries; ``None`` if it is not there."""
        found = self._client.lookup.find(directory)
        if found is None or not found.entry.is_directory:
            return None
        slot = self._client.lookup.contents_slot(found)
        self._client.tree.catalog(slot)
        return slot

    def _add_touched(self, slot: Slot, path: bytes, extents: Sequence[Extent]) -> None:
        try:
            found = self._client.lookup.find_in(slot, path)
            if found is None:
                self.missing.append(path)
            elif found.entry.is_regular and extents:
                self.file_count += 1
                self._add_file(found, extents)
        except CvmfsError as error:
            self.failures.append(Failure(path, error))

    def _add_file(self, file: Location, extents: Sequence[Extent] = (WHOLE,)) -> None:
        requests = self._client.lookup.content_requests(file)
        for request in _touched(requests, extents) if len(requests) > 1 else requests:
            if request.content_hash not in self._known and request.size_bytes:
                self._known.add(request.content_hash)
                self.wanted.append(Wish(request, file.path))


def _touched(
    chunks: Iterable[ObjectRequest], extents: Sequence[Extent]
) -> Iterator[ObjectRequest]:
    """Yield the chunks of a file that were read; both are in the order of the file."""
    start = position = 0
    for chunk in chunks:
        end = start + (chunk.size_bytes or 0)
        while position < len(extents) and _end(extents[position]) <= start:
            position += 1
        if position < len(extents) and extents[position][0] < end:
            yield chunk
        start = end


def _end(extent: Extent) -> float:
    offset, size_bytes = extent
    return inf if size_bytes is None else offset + size_bytes


class Room(NamedTuple):
    """What of the wishes a cache with a limit can keep.

    Attributes:
        kept: These.
        left_out_count: How many objects would push others of them out.
        limit_bytes: The limit.
    """

    kept: list[Wish]
    left_out_count: int = 0
    limit_bytes: int = 0


def with_room(store: ObjectStore, wishes: list[Wish]) -> Room:
    """Leave out what would make a cache remove what was fetched just before.

    A full cache is emptied to the half, beginning with what was used least recently.
    So there is room for what comes before it is full, or for the half of it.
    """
    if store.quota is None or not store.quota.limit_bytes:
        return Room(wishes)
    limit_bytes = store.quota.binding_limit_bytes()
    half_bytes = limit_bytes // 2
    if sum(wish.request.size_bytes or 0 for wish in wishes) <= half_bytes:
        return Room(wishes)
    free_bytes = limit_bytes - (store.used_bytes() or 0) - limit_bytes // _SLACK
    kept = []
    kept_bytes = missing_bytes = 0
    for wish in wishes:
        size_bytes = wish.request.size_bytes or 0
        more_bytes = 0 if store.has(wish.request.content_hash) else size_bytes
        if (
            missing_bytes + more_bytes <= free_bytes
            or kept_bytes + size_bytes <= half_bytes
        ):
            kept.append(wish)
            kept_bytes += size_bytes
            missing_bytes += more_bytes
    return Room(kept, len(wishes) - len(kept), limit_bytes)


class Warmth(NamedTuple):
    """What came of it.

    Attributes:
        present_count: Objects that were there already.
        fetched_count: Objects that were fetched and kept.
        fetched_bytes: Their sizes.
        failures: What could not be fetched, or not be kept.
    """

    present_count: int
    fetched_count: int
    fetched_bytes: int
    failures: tuple[Failure, ...]


def warm(
    client: Client, wishes: Iterable[Wish], connections: int, note: Note
) -> Warmth:
    """Fetch what is wanted and not there, several objects at a time.

    Args:
        client: Whose cache it is.
        wishes: What is wanted.
        connections: How many at a time; fewer, if there may not be so many threads.
        note: Called with the bytes of each object that is there in the end.
    """
    stove = _Stove(client, note, wishes)
    _share_out(stove.work, connections)
    return stove.warmth()


def _share_out(work: Callable[[], None], connections: int) -> None:
    """Do work in several threads, this one among them, until all have done theirs."""
    threads = []
    for _ in range(connections - 1):
        thread = threading.Thread(target=work, name="warming", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # a limit of the user's processes
            log.debug("%s; fewer connections than wanted", error)
            break
        threads.append(thread)
    work()
    for thread in threads:
        thread.join()


class _Stove:
    """Fetches; any thread may call."""

    def __init__(self, client: Client, note: Note, wishes: Iterable[Wish]) -> None:
        self._client = client
        self._note = note
        self._lock = threading.Lock()
        self._wishes = iter(wishes)
        self._present_count = 0
        self._fetched_count = 0
        self._fetched_bytes = 0
        self._failures: list[Failure] = []

    def work(self) -> None:
        """Fetch one after the other, until nothing is left for this thread."""
        while (wish := self._next()) is not None:
            self._fetch(wish)

    def _next(self) -> Wish | None:
        with self._lock:
            return next(self._wishes, None)

    def _fetch(self, wish: Wish) -> None:
        content_hash = wish.request.content_hash
        size_bytes = wish.request.size_bytes or 0
        error: CvmfsError | None = None
        was_present = self._client.store.has(content_hash)
        try:
            # Opened even if it is there: a use is noted, a damaged one fetched again.
            os.close(self._client.fetcher.open(wish.request))
            if not self._client.store.has(content_hash):
                error = CacheError("there is no room to keep it")
        except CvmfsError as failure:
            error = failure
        with self._lock:
            if error is not None:
                self._failures.append(Failure(wish.path, error))
                return
            self._note(size_bytes)
            if was_present:
                self._present_count += 1
            else:
                self._fetched_count += 1
                self._fetched_bytes += size_bytes

    def warmth(self) -> Warmth:
        return Warmth(
            self._present_count,
            self._fetched_count,
            self._fetched_bytes,
            tuple(self._failures),
        )
