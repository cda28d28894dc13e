"""From what is read to what is fetched next: foresight, applied to catalogs.

Readers tell what they read and miss, in their threads; ``next_request`` is called in
that of whoever fetches (``cvmfsexec.fetch.forerunner``), which alone looks into
catalogs for it. One lock guards the decisions; nobody holds it while anything is
looked up.
"""

import threading
from bisect import bisect_right
from collections.abc import Callable, Hashable, Iterator, Sequence
from operator import attrgetter
from typing import NamedTuple

from cvmfsexec import log
from cvmfsexec.catalog.reader import Catalog
from cvmfsexec.errors import CvmfsError
from cvmfsexec.fetch import ObjectRequest
from cvmfsexec.format.chunk import Chunk
from cvmfsexec.format.digest import ContentHash
from cvmfsexec.format.dirent import DirectoryEntry
from cvmfsexec.repository.objects import chunk_request
from cvmfsexec.vfs.foresight import CHUNKS, FILES, Foresight, Order, Place, Walk
from cvmfsexec.vfs.succession import small_files_after, small_files_of

STEPS_MAX = 512
"""A walk that finds nothing to fetch in so many steps ends: all is there."""

_NEAR_ROWS = 16  # between two files in a row lie directories, links, empty files

_offset_of = attrgetter("offset")


class _Candidate(NamedTuple):
    """An object on the way of a walk."""

    series: Hashable
    row: int
    request: ObjectRequest


_Candidates = Iterator[_Candidate | None]


class LookAhead:
    """What to fetch next for the readers of one mount.

    Args:
        has: Whether an object is there already.

    Attributes:
        foresight: The decisions; its counts may be read at any time.
        is_active: Whether it matters what is read; if not, only misses do.
        wake: Called when there may be more to fetch.
    """

    def __init__(self, has: Callable[[ContentHash], bool]) -> None:
        self.foresight = Foresight()
        self.is_active = False
        self.wake: Callable[[], object] = _nobody
        self._has = has
        self._lock = threading.Lock()
        self._candidates: dict[int, _Candidates] = {}

    def read_file(self, slot_number: int, entry: DirectoryEntry) -> bool:
        """Take note of the first read of a file; return whether it was foreseen."""
        return self._read(_file_place(slot_number, entry))

    def missed_file(
        self, slot_number: int, catalog: Catalog, entry: DirectoryEntry
    ) -> None:
        """Take note that a file that was not foreseen is not in the cache."""
        place = _file_place(slot_number, entry)
        with self._lock:
            walk = self.foresight.missed(place, FILES)
            if walk is not None:
                self._begin(walk, _small_files(slot_number, catalog, walk, entry))
        self._tell()

    def read_chunk(self, inode: int, chunk: Chunk) -> bool:
        """Take note of a read in a chunk; return whether it was foreseen."""
        return self._read(_chunk_place(inode, chunk))

    def missed_chunk(
        self, inode: int, entry: DirectoryEntry, chunks: Sequence[Chunk], chunk: Chunk
    ) -> None:
        """Take note that a chunk that was not foreseen is not in the cache."""
        with self._lock:
            walk = self.foresight.missed(_chunk_place(inode, chunk), CHUNKS)
            if walk is not None:
                self._begin(walk, _chunks_after(inode, entry, chunks, chunk))
        self._tell()

    def next_request(self) -> ObjectRequest | None:
        """Return the next object to fetch; ``None`` if there is none for now."""
        walk: Walk | None = None
        for _ in range(STEPS_MAX):
            with self._lock:
                walk = self.foresight.next_walk()
                candidates = self._candidates.get(walk.number) if walk else None
            if walk is None or candidates is None:
                return None
            candidate = self._next(walk, candidates)
            if candidate is None or self._has(candidate.request.content_hash):
                continue
            if self._ask(walk, candidate):
                return candidate.request
        if walk is not None:
            self._exhaust(walk)
        return None

    def _tell(self) -> None:
        if self.foresight.has_walks:
            self.wake()

    def _read(self, place: Place) -> bool:
        with self._lock:
            was_foreseen = self.foresight.read(place)
            self.is_active = self.foresight.is_active
        if was_foreseen:
            self.wake()
        return was_foreseen

    def _begin(self, walk: Walk, candidates: _Candidates) -> None:
        numbers = {walk.number for walk in self.foresight.walks()}
        for number in [n for n in self._candidates if n not in numbers]:
            del self._candidates[number]
        self._candidates[walk.number] = candidates

    def _next(self, walk: Walk, candidates: _Candidates) -> _Candidate | None:
        try:
            return next(candidates)
        except StopIteration:
            pass
        except CvmfsError as error:  # its reader learns of it
            log.debug("cannot look ahead: %s", error)
        self._exhaust(walk)
        return None

    def _ask(self, walk: Walk, candidate: _Candidate) -> bool:
        size_bytes = candidate.request.size_bytes or 0
        with self._lock:
            is_asked = self.foresight.ask(
                walk, candidate.series, candidate.row, size_bytes
            )
            self.is_active = self.foresight.is_active
            return is_asked

    def _exhaust(self, walk: Walk) -> None:
        with self._lock:
            self.foresight.exhaust(walk)
            self._candidates.pop(walk.number, None)


def _nobody() -> None:
    """Nothing is fetched ahead."""


def _file_place(slot_number: int, entry: DirectoryEntry) -> Place:
    series = (slot_number, entry.parent_1, entry.parent_2)
    return Place(series, entry.row, entry.row + _NEAR_ROWS)


def _chunk_place(inode: int, chunk: Chunk) -> Place:
    return Place(inode, chunk.offset, chunk.offset + chunk.size)


def _small_files(
    slot_number: int, catalog: Catalog, walk: Walk, entry: DirectoryEntry
) -> _Candidates:
    directory = entry.parent_hash
    if walk.order is Order.NEIGHBOURHOOD:
        files = small_files_of(catalog, directory)
    else:
        files = small_files_after(catalog, directory, entry.row)
    for file in files:
        if file is None:
            yield None
        else:
            yield _Candidate((slot_number, *file.directory), file.row, file.request)


def _chunks_after(
    inode: int, entry: DirectoryEntry, chunks: Sequence[Chunk], chunk: Chunk
) -> _Candidates:
    index = bisect_right(chunks, chunk.offset, key=_offset_of)
    for following in chunks[index:]:
        yield _Candidate(inode, following.offset, chunk_request(entry, following, b""))
