"""Nested catalogs fetched ahead of a walk.

What a walk is and how far ahead to be is decided by :mod:`.itinerary`; here it learns
in which order the catalogs come, and its decisions become requests.

Threads: any may call. One lock guards the itineraries; nothing is read or fetched
while it is held.
"""

import threading
from collections import deque
from collections.abc import Set
from typing import TYPE_CHECKING, NamedTuple

from cvmfsexec.catalog.reader import Catalog, NestedCatalogRef
from cvmfsexec.errors import CvmfsError
from cvmfsexec.fetch import ObjectRequest
from cvmfsexec.format.names import path_hash
from cvmfsexec.repository.itinerary import Credit, Itinerary
from cvmfsexec.repository.objects import catalog_request
from cvmfsexec.repository.slot import Slot

if TYPE_CHECKING:
    from collections.abc import Callable

_ORDERED_MAX = 1000  # at 50 us each; catalogs with more nested ones are left alone
_WANTED_MAX = 64  # the oldest are forgotten: the walk will have passed them


class _Route(NamedTuple):
    """The catalogs nested in one other, in walking order."""

    refs: tuple[NestedCatalogRef, ...]
    stops: dict[bytes, int]
    itinerary: Itinerary


class CatalogForesight:
    """Watches which catalogs are listed, and tells which will be next.

    Attributes:
        wake: Called when there is something to take.
    """

    def __init__(self) -> None:
        """Expect nothing yet."""
        self.wake: Callable[[], object] = _nobody
        self._wanted: deque[ObjectRequest] = deque(maxlen=_WANTED_MAX)
        self._lock = threading.Lock()
        self._credit = Credit()
        self._routes: dict[int, _Route] = {}
        self._inside: dict[int, int] = {}  # slot: the one nested in it entered last

    @property
    def used_count(self) -> int:
        """How many catalogs were entered after they had been wanted."""
        return self._credit.used

    @property
    def wasted_count(self) -> int:
        """How many were passed by."""
        return self._credit.wasted

    def take(self) -> ObjectRequest | None:
        """Return what is to be fetched next; ``None`` if there is nothing."""
        try:
            return self._wanted.popleft()
        except IndexError:
            return None

    def enter(self, slot: Slot, outer: Slot, catalog: Catalog) -> bool:
        """Take notice that something in a nested catalog is listed for the first time.

        Args:
            slot: The nested catalog's, which need not be there yet.
            outer: The slot in which it is nested.
            catalog: That slot's catalog.

        Returns:
            Whether this is part of a walk.
        """
        route = self._route(outer, catalog)
        stop = route.stops.get(outer.catalog_path(slot.mountpoint))
        if stop is None:
            return False
        with self._lock:
            self._leave(self._inside.get(outer.number))
            self._inside[outer.number] = slot.number
            wanted = route.itinerary.enter(stop)
            is_walk = route.itinerary.is_walked
        self._want(route, wanted)
        return is_walk

    def begin(self, slot: Slot, catalog: Catalog) -> None:
        """Take notice that a walk has entered a catalog, which is there now."""
        route = self._route(slot, catalog)
        with self._lock:
            wanted = route.itinerary.begin()
        self._want(route, wanted)

    def keep_only(self, numbers: Set[int]) -> None:
        """Forget the catalogs of all slots but these: they are not shown any more."""
        with self._lock:
            for number in self._routes.keys() - numbers:
                self._routes.pop(number, None)
            for number in self._inside.keys() - numbers:
                self._inside.pop(number, None)

    def _want(self, route: _Route, stops: list[int]) -> None:
        for stop in stops:
            ref = route.refs[stop]
            self._wanted.append(catalog_request(ref.content_hash, ref.size))
        if stops:
            self.wake()

    def _leave(self, number: int | None) -> None:
        while number is not None:
            if number in self._routes:
                self._routes[number].itinerary.leave()
            number = self._inside.pop(number, None)

    def _route(self, slot: Slot, catalog: Catalog) -> _Route:
        known = self._routes.get(slot.number)
        if known is not None:
            return known
        try:
            refs = _in_walking_order(slot, catalog)
        except CvmfsError:
            refs = ()  # whoever needs what is damaged learns it
        stops = {ref.mountpoint: stop for stop, ref in enumerate(refs)}
        itinerary = Itinerary([ref.size for ref in refs], self._credit)
        return self._routes.setdefault(slot.number, _Route(refs, stops, itinerary))


def _nobody() -> None:
    """Wake nobody."""


def _in_walking_order(slot: Slot, catalog: Catalog) -> tuple[NestedCatalogRef, ...]:
    """Return the nested catalogs in the order in which listings name what leads there.

    That is the order of rows, directory by directory.
    """
    refs = [ref for ref in catalog.nested() if not ref.is_bind]
    if len(refs) > _ORDERED_MAX:
        return ()
    rows: dict[bytes, int] = {}

    def place(ref: NestedCatalogRef) -> list[int]:
        path, end = ref.mountpoint, len(slot.prefix)
        found: list[int] = []
        while end >= 0:
            end = path.find(b"/", end + 1)
            above = path[:end] if end >= 0 else path
            if above not in rows:
                entry = catalog.find(path_hash(above))
                rows[above] = 0 if entry is None else entry.row
            found.append(rows[above])
        return found

    return tuple(sorted(refs, key=place))
