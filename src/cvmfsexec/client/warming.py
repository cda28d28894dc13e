"""Filling a cache before a job needs it: what to fetch, and fetching it.

What is wanted is named by paths, of files, of directories with all that is below, or of
a trace; they mean what they mean in the revision that is shown now. So a trace may be
of an older revision, of another machine, or made up: all that it can do is to have
something of the repository fetched that verifies.

Whatever is in the cache is not fetched again: to go on where one was interrupted is to
begin anew.
"""

import fnmatch
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from cvmfsexec.client.assembly import Client
from cvmfsexec.client.links import follow
from cvmfsexec.errors import CacheError, CvmfsError
from cvmfsexec.fetch import ObjectRequest
from cvmfsexec.format.trace import Event, TraceRecord
from cvmfsexec.repository.lookup import Location

if TYPE_CHECKING:
    from cvmfsexec.format.digest import ContentHash

_MAGIC = frozenset(b"*?[")

Note = Callable[[int], object]


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
        self._touched: set[bytes] = set()
        self.wanted: list[Wish] = []
        self.file_count = 0
        self.missing: list[bytes] = []
        self.failures: list[Failure] = []

    @property
    def total_bytes(self) -> int:
        """Their sizes, as announced."""
        return sum(wish.request.size_bytes or 0 for wish in self.wanted)

    def add_path(self, path: bytes) -> None:
        """Want a file, or everything below a directory; a pattern means what fits."""
        count = 0
        try:
            for location in self._matches(path):
                count += 1
                self._add_tree(location)
        except CvmfsError as error:
            self.failures.append(Failure(path, error))
        else:
            if not count:
                self.missing.append(path)

    def add_trace(self, records: Iterable[TraceRecord]) -> None:
        """Want what was touched: catalogs of directories, and the parts of files."""
        entered: set[bytes] = set()
        for record in records:
            path = record.path
            if record.code == Event.OPEN:
                self._add_touched(record)
            elif path not in entered:
                entered.add(path)
                self._enter(path)
        self.file_count += len(self._touched)

    def _matches(self, path: bytes) -> Iterator[Location]:
        """Yield what a path means, or what fits a pattern."""
        lookup = self._client.lookup
        found = follow(self._client, path)
        if found is not None:
            yield found
            return
        if not _MAGIC.intersection(path):
            return
        tops = [lookup.root()]
        *above, last = path.split(b"/")[1:]
        for pattern in above:
            tops = [
                child
                for top in tops
                for child in self._children(top, pattern)
                if child.entry.is_directory
            ]
        for top in tops:
            yield from self._children(top, last)

    def _children(self, top: Location, pattern: bytes) -> Iterator[Location]:
        lookup = self._client.lookup
        if not _MAGIC.intersection(pattern):
            found = lookup.find(top.path + b"/" + pattern)
            if found is not None:
                yield found
            return
        for child in lookup.list_(top):
            if fnmatch.fnmatchcase(os.fsdecode(child.entry.name), os.fsdecode(pattern)):
                yield child

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

    def _enter(self, path: bytes) -> None:
        """Look into a directory, so that its catalog is there."""
        self._note(1)
        try:
            found = self._client.lookup.find(path)
            if found is None:
                self.missing.append(path)
            elif found.entry.is_directory:
                self._client.tree.catalog(self._client.lookup.contents_slot(found))
        except CvmfsError as error:
            self.failures.append(Failure(path, error))

    def _add_touched(self, record: TraceRecord) -> None:
        self._note(1)
        try:
            found = self._client.lookup.find(record.path)
            if found is None:
                self.missing.append(record.path)
            elif found.entry.is_regular:
                self._touched.add(record.path)
                self._add_file(found, record.offset, record.size_bytes)
        except CvmfsError as error:
            self.failures.append(Failure(record.path, error))

    def _add_file(
        self, file: Location, offset: int = 0, size_bytes: int | None = None
    ) -> None:
        requests = self._client.lookup.content_requests(file)
        start = 0
        for request in requests:
            chunk_bytes = request.size_bytes or 0
            end = offset + (file.entry.size if size_bytes is None else size_bytes)
            is_touched = start < end and offset < start + chunk_bytes
            start += chunk_bytes
            if not is_touched and len(requests) > 1:
                continue
            if request.content_hash not in self._known and chunk_bytes:
                self._known.add(request.content_hash)
                self.wanted.append(Wish(request, file.path))


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
        connections: How many at a time.
        note: Called with the bytes of each object that is there in the end.
    """
    from concurrent.futures import ThreadPoolExecutor

    stoves = _Stove(client, note)
    with ThreadPoolExecutor(connections) as pool:
        for _ in pool.map(stoves.fetch, wishes):
            pass
    return stoves.warmth()


class _Stove:
    """Fetches; any thread may call."""

    def __init__(self, client: Client, note: Note) -> None:
        self._client = client
        self._note = note
        self._lock = threading.Lock()
        self._present_count = 0
        self._fetched_count = 0
        self._fetched_bytes = 0
        self._failures: list[Failure] = []

    def fetch(self, wish: Wish) -> None:
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
