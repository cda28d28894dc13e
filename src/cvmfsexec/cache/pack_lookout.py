"""When a process looks at what others have added to their packs.

To look costs operations on the file server; not to look, a download.

* The indexes of others are read again when an object is missing, but at most every few
  seconds, and less often the more there are, the longer they have not grown, and while
  nothing new is found.
* The packs of neighbours, processes of the same node, are known by their names, which
  begin with a number of the node. Who has the claim on an object looks at those first,
  because a neighbour may just have fetched it: at the indexes that grow, which are kept
  open for that. On the node, where they are written, reading on asks no file server.
* Times of files are compared with each other, never with the clock of the node: that
  of a file server may differ.

Any thread may call. ``_looking`` lets one thread look, for which those wait who miss an
object.
"""

import contextlib
import os
import threading
from collections.abc import Callable

from cvmfsexec import log
from cvmfsexec.cache.open_files import close_quietly
from cvmfsexec.cache.pack_files import PackFiles
from cvmfsexec.cache.pack_listing import names_in
from cvmfsexec.cache.pack_places import PackPlaces, without_torn_end
from cvmfsexec.cache.pack_writer import DIRECTORY, INDEX, READ_FLAGS, is_written
from cvmfsexec.format import pack_index
from cvmfsexec.format.pack_index import INDEX_BYTES_MAX, RECORD_BYTES

REFRESH_S = 2.0
REFRESH_MAX_S = 8.0
"""So rarely, at least, who misses an object looks, while he finds nothing new."""

FEW_PACKS = 16
"""With more packs than that, they are read again less often."""

DISCOVERY_MIN_S = 0.1
"""How often to look for new packs of neighbours; ever longer while there are none."""

COARSE_TIME_S = 0.1
"""For so long a directory that has changed may change again, and not show it."""

ACTIVE_S = 30.0
"""For so long after it has grown a neighbour's pack is looked at with each claim."""

ACTIVE_MAX = 64
"""At so many, at most; each costs a descriptor."""

IDLE_PAUSE_MAX_S = 600.0
"""So rarely, at least, the pack of another node is looked at that does not grow."""

_READ_BYTES = 64 << 10  # of an index at a time
_LONG_AGO_S = float("-inf")


class _Watch:
    """When to look at somebody's pack again; and when that was written last."""

    __slots__ = ("active_until_s", "is_at_work", "looked_s", "pause_s", "written_ns")

    def __init__(self) -> None:
        self.written_ns = 0
        self.is_at_work = False  # it was seen to grow
        self.active_until_s = self.looked_s = _LONG_AGO_S
        self.pause_s = REFRESH_S

    def note(self, now_s: float, *, has_grown: bool) -> None:
        """Learn whether it has grown since the last look."""
        was_known = self.looked_s != _LONG_AGO_S
        if has_grown:
            self.is_at_work = was_known
            self.pause_s = REFRESH_S
        elif was_known:
            self.pause_s = min(2 * self.pause_s, IDLE_PAUSE_MAX_S)
        self.looked_s = now_s

    def is_due(self, now_s: float, newest_ns: int) -> bool:
        """Whether to look again.

        Args:
            now_s: By the clock of the node.
            newest_ns: When any pack was written last. Who was idle for long by then is
                looked at as rarely, until he is seen at work: a time may be wrong.
        """
        pause_s = self.pause_s
        if not self.is_at_work:
            idle_s = (newest_ns - self.written_ns) / 1e9
            pause_s = max(pause_s, min(idle_s, IDLE_PAUSE_MAX_S))
        return now_s - self.looked_s >= pause_s


class PackLookout:
    """What one process reads of the indexes of others, and when.

    Args:
        directory: Descriptor of the cache directory, which stays the caller's.
        node: How the names of neighbours' packs begin.
        places: Told of what is read.
        settle: Forgets the packs that are gone, and returns the names of the others'.
        clock: Seconds that do not jump.

    Attributes:
        own_name: The pack that this process appends to, which is nobody else's.
        pack_count: How many there were at the last look.
    """

    def __init__(
        self,
        directory: int,
        node: str,
        places: PackPlaces,
        settle: Callable[[], list[str]],
        clock: Callable[[], float],
    ) -> None:
        self._directory = directory
        self._node = node
        self._places = places
        self._settle = settle
        self._clock = clock
        self._watches: dict[str, _Watch] = {}
        self._growing = PackFiles(directory, INDEX, ACTIVE_MAX)
        self._looking = threading.Lock()
        self._learnt_count = 0
        self.own_name: str | None = None
        self.pack_count = 0
        self.begin_anew()

    def begin_anew(self) -> None:
        """Look at everything soon: the directory is another one."""
        self._growing.close_all()
        self._looked_s = _LONG_AGO_S
        self._refresh_s = REFRESH_S
        self._refresh_share = 1.0
        self._packs_changed_ns = 0
        self._packs_changed_s = _LONG_AGO_S
        self._discovery_s = DISCOVERY_MIN_S
        self._discovered_s = _LONG_AGO_S

    def close(self) -> None:
        """Give back all files."""
        self._growing.close_all()

    def look_again(self) -> None:
        """Look, unless that was done a moment ago; or wait for who does."""
        self._look_after(self._refresh_s * self._refresh_share)

    def look_now(self) -> None:
        """Look at those packs of others that may have grown."""
        self._look_after(0.0)

    def look_once(self) -> None:
        """Look if that was never done."""
        if self._looked_s == _LONG_AGO_S:
            self._look_after(float("inf"))

    def look_at_all(self) -> None:
        """Look at all packs of others, also at those that have not grown for long."""
        with self._looking:
            self._look(REFRESH_S)

    def _look_after(self, pause_s: float) -> None:
        with self._looking:
            if self._clock() - self._looked_s >= pause_s:
                self._look(None)

    def _look(self, age_max_s: float | None) -> None:
        """Look at packs that are due, or at those that were not for so long."""
        is_first, learnt_before = self._looked_s == _LONG_AGO_S, self._learnt_count
        try:
            names = self._settle()
            self.pack_count = len(names)
            self._refresh_share = max(1.0, len(names) / FEW_PACKS)
            for name in self._due(names, age_max_s):
                self.read_index(name)
        except OSError as error:
            log.debug("cache: cannot look for packs: %s", error.strerror)
        finally:
            self._looked_s = self._clock()
            if is_first or self._learnt_count > learnt_before:
                self._refresh_s = REFRESH_S
            else:
                self._refresh_s = min(2 * self._refresh_s, REFRESH_MAX_S)

    def _due(self, names: list[str], age_max_s: float | None) -> list[str]:
        now_s = self._clock()
        if age_max_s is not None:
            return [n for n in names if now_s - self._watch(n).looked_s > age_max_s]
        newest_ns = max((w.written_ns for w in self._watches.values()), default=0)
        return [
            name
            for name in names
            if self._watch(name).is_due(now_s, newest_ns) or self._may_grow(name)
        ]

    def _may_grow(self, name: str) -> bool:
        return name.startswith(self._node) and is_written(name)

    def look_at_neighbours(self, *, has_met_one: bool = False) -> None:
        """Learn what other processes of this node have added.

        Args:
            has_met_one: Somebody is known to fetch objects: look for new packs, too,
                and at those that have not grown for long.
        """
        now_s = self._clock()
        if has_met_one or now_s - self._discovered_s >= self._discovery_s:
            self._discovered_s = now_s
            self._discover()
        for name in self._active(now_s):
            self._read_on(name)
        if has_met_one:
            for name in self._neighbours():
                self.read_index(name)

    def _neighbours(self) -> list[str]:
        names = [n for n in self._places.names() if n.startswith(self._node)]
        return [name for name in names if name != self.own_name]

    def _active(self, now_s: float) -> list[str]:
        """Return the packs of neighbours that grow, the busiest first."""
        until_s = {n: self._watch(n).active_until_s for n in self._neighbours()}
        active = [name for name in until_s if until_s[name] > now_s]
        return sorted(active, key=until_s.__getitem__, reverse=True)[:ACTIVE_MAX]

    def expect_neighbours(self) -> None:
        """Look for new packs of neighbours soon: somebody else is at work here."""
        self._discovery_s = DISCOVERY_MIN_S

    def last_written_first(self) -> list[str]:
        """Return the packs of this node that are known."""
        return sorted(
            self._neighbours(), key=lambda name: -self._watch(name).written_ns
        )

    def written_s(self, name: str) -> float:
        """Return when a pack's index was written, at the latest look."""
        return self._watch(name).written_ns / 1e9

    def read_index(self, name: str) -> None:
        """Read what was added to one index."""
        watch = self._watch(name)
        offset, added = 0, b""
        with contextlib.suppress(OSError):  # removed meanwhile
            offset, added = self._added(name, watch)
        if not offset and not pack_index.has_header(added):
            added = b""  # not written yet, or of another version
        watch.note(self._clock(), has_grown=bool(added))
        self._take(name, offset, added)

    def _read_on(self, name: str) -> None:
        """Read what a neighbour has added, without asking how large an index is."""
        offset = self._places.read_bytes(name)
        size_bytes = min(INDEX_BYTES_MAX - offset, _READ_BYTES)
        try:
            descriptor = self._growing.open(name)
            try:
                added = os.pread(descriptor, size_bytes, offset)
            finally:
                close_quietly(descriptor)
        except OSError:
            self._growing.close(name)
        else:
            self._take(name, offset, without_torn_end(added))

    def _take(self, name: str, offset: int, added: bytes) -> None:
        if not added:
            return
        self._learnt_count += 1
        self._places.take(name, offset, added)
        if offset or is_written(name):  # else somebody has left it
            self._watch(name).active_until_s = self._clock() + ACTIVE_S

    def _added(self, name: str, watch: _Watch) -> tuple[int, bytes]:
        """Return from where on an index is new, and whole records."""
        path = f"{DIRECTORY}/{name}{INDEX}"
        have_bytes = self._places.read_bytes(name)
        if have_bytes:
            there = os.stat(path, dir_fd=self._directory)
            watch.written_ns = there.st_mtime_ns
            if there.st_size < have_bytes:  # somebody has cut it off
                self._places.drop(name)
                have_bytes = 0
            elif there.st_size - have_bytes < RECORD_BYTES:
                return have_bytes, b""
        added, watch.written_ns = _read_from(path, self._directory, have_bytes)
        return have_bytes, without_torn_end(added)

    def forget(self, name: str) -> None:
        """Forget a pack that is gone."""
        self._watches.pop(name, None)
        self._growing.close(name)

    def _watch(self, name: str) -> _Watch:
        return self._watches.setdefault(name, _Watch())

    def _discover(self) -> None:
        """Look for new packs, if the directory of packs has changed."""
        try:
            changed_ns = os.stat(DIRECTORY, dir_fd=self._directory).st_mtime_ns
            now_s = self._clock()
            if changed_ns != self._packs_changed_ns:
                self._packs_changed_s = now_s
            elif now_s - self._packs_changed_s > COARSE_TIME_S:
                self._discovery_s = min(2 * self._discovery_s, REFRESH_S)
                return
            names = names_in(self._directory)
        except OSError:
            return  # there are none
        self._packs_changed_ns = changed_ns
        self._discovery_s = DISCOVERY_MIN_S
        for name in names:
            if name.startswith(self._node) and not self._places.read_bytes(name):
                self.read_index(name)


def _read_from(path: str, directory: int, offset: int) -> tuple[bytes, int]:
    """Return what was added to a file, and when it was written last."""
    descriptor = os.open(path, READ_FLAGS, dir_fd=directory)
    try:
        status = os.fstat(descriptor)
        size_bytes = min(status.st_size, INDEX_BYTES_MAX)
        added = os.pread(descriptor, max(size_bytes - offset, 0), offset)
        return added, status.st_mtime_ns
    finally:
        close_quietly(descriptor)
