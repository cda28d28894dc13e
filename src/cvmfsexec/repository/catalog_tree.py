"""The catalogs of a repository, opened on demand, each in a slot for life.

A *slot* is a small number that stands for one catalog at one mountpoint. It never
changes its meaning while the tree lives, so that an inode can be built of slot and
row alone and needs no table (design decision: inodes without state). What lies in a
slot is opened when it is needed and may be closed again: at most ``OPEN_MAX``
catalogs are open at a time, the least recently used one makes room.

Another revision is shown by another root catalog. A catalog that is at its place in
both keeps its slot, a changed one gets a new slot; the old slot goes on meaning what it
meant, for whoever still has an inode of it. See :mod:`.advance`.

Threads: every method may be called from any thread. ``_lock`` guards the tables;
it is not held while a catalog is downloaded or queried.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

from cvmfsexec.catalog.reader import Catalog, NestedCatalogRef
from cvmfsexec.errors import CvmfsError, FormatError, TransferError
from cvmfsexec.fetch import ObjectRequest
from cvmfsexec.format.digest import ContentHash
from cvmfsexec.format.names import ROOT
from cvmfsexec.repository.foresight import CatalogForesight
from cvmfsexec.repository.objects import (
    CatalogOpener,
    catalog_request,
    named_catalog,
    open_once,
    open_whole,
)
from cvmfsexec.repository.slot import Slot

OPEN_MAX = 64
"""Open catalogs; each costs a descriptor and up to half a megabyte of memory."""

ROOT_SLOT = 1
"""Slots begin here, so that no inode collides with the root's, which is 1."""


class KnownSlots(NamedTuple):
    """The slots of the revision shown that somebody has asked for.

    Attributes:
        by_mountpoint: The slots.
        slot_count: How many slots there were at that moment, of all revisions.
    """

    by_mountpoint: dict[bytes, Slot]
    slot_count: int


class CatalogTree:
    """Catalogs by slot, starting from one root catalog.

    Attributes:
        missed: Called when no server has a catalog that is needed.
    """

    def __init__(
        self,
        fetcher: CatalogOpener,
        root_catalog: ContentHash,
        size_bytes: int = 0,
        *,
        has_alternative_path: bool = False,
        foresight: CatalogForesight | None = None,
    ) -> None:
        """Make the tree; nothing is downloaded yet.

        Args:
            fetcher: Opens verified objects.
            root_catalog: What is believed to be the root.
            size_bytes: Its announced size; 0 for unknown.
            has_alternative_path: Whether the root is asked for by that path.
            foresight: Fetches catalogs ahead of a walk, if there shall be some.
        """
        self.missed: Callable[[], object] = _nobody
        self._fetcher = fetcher
        self._alternatives = {root_catalog} if has_alternative_path else set()
        self._lock = threading.Lock()
        self._entrance = threading.RLock()
        self._slots: list[Slot] = []
        self._by_place: dict[tuple[bytes, ContentHash], Slot] = {}
        self._shown: dict[bytes, Slot] = {}
        self._open: OrderedDict[int, Catalog] = OrderedDict()
        self._foresight = foresight
        self._listed: set[int] = {ROOT_SLOT}
        self._refused: set[ContentHash] = set()
        self._renewed: set[ContentHash] = set()
        self._add(
            ROOT, ROOT, NestedCatalogRef(ROOT, root_catalog, size_bytes, is_bind=False)
        )

    @property
    def root(self) -> Slot:
        """The root catalog's slot in the revision shown."""
        return self._shown[ROOT]

    @property
    def open_count(self) -> int:
        """How many catalogs are open at this moment."""
        return len(self._open)

    @property
    def inode_max(self) -> int:
        """The highest inode number that can have been given out."""
        return len(self._slots) + ROOT_SLOT << 32

    def opened(self) -> list[Catalog]:
        """Return the catalogs of the revision shown that are open at this moment."""
        with self._lock:
            shown = {slot.number for slot in self._shown.values()}
            return [
                catalog for number, catalog in self._open.items() if number in shown
            ]

    def slot(self, number: int) -> Slot | None:
        """Return a slot by its number; ``None`` if there never was one."""
        index = number - ROOT_SLOT
        return self._slots[index] if 0 <= index < len(self._slots) else None

    def catalog(self, slot: Slot) -> Catalog:
        """Return the open catalog of a slot, fetching it if needed.

        Raises:
            FormatError: It is not the catalog that its place asks for.
            CvmfsError: It cannot be fetched or verified.
        """
        with self._lock:
            catalog = self._open.get(slot.number)
            if catalog is not None:
                self._open.move_to_end(slot.number)
                return catalog
        return self._keep(slot, self._read(slot))

    def listed(self, slot: Slot) -> Catalog:
        """Return the open catalog of a slot in which a directory is to be listed.

        As :meth:`catalog`, but who lists one catalog after the other will find the next
        ones fetched.
        """
        if self._foresight is None or slot.number in self._listed:
            return self.catalog(slot)
        self._listed.add(slot.number)  # of several threads at once one is the first
        try:
            return self._listed_first(slot, self._foresight)
        except BaseException:
            # It will be listed again: when there is a network, or by a thread that may
            # wait for it.
            self._listed.discard(slot.number)
            raise

    def _listed_first(self, slot: Slot, foresight: CatalogForesight) -> Catalog:
        outer = self._outer(slot)
        try:
            is_walk = foresight.enter(slot, outer, self.catalog(outer))
        except CvmfsError:
            is_walk = False  # the outer one was there before, and is not needed here
        catalog = self.catalog(slot)
        if is_walk:
            foresight.begin(slot, catalog)
        return catalog

    def child(self, slot: Slot, mountpoint: bytes) -> Slot:
        """Return the slot of the catalog that begins at a transition point.

        Args:
            slot: Where the directory has its entry.
            mountpoint: The directory, as a repository path.

        Raises:
            FormatError: The catalog marks the directory but names no catalog for it.
        """
        path = slot.catalog_path(mountpoint)
        ref = self.catalog(slot).find_nested(path)
        if ref is None or ref.content_hash.is_null:
            raise FormatError(f"no nested catalog is registered for {mountpoint!r}")
        _check_is_below(path, slot)
        return self._add(mountpoint, ROOT if ref.is_bind else path, ref, slot.number)

    def slots_below(self, slot: Slot) -> Iterator[Slot]:
        """Yield a slot and all catalogs nested below it; bind mountpoints left out.

        The order is that of a walk from the top, each catalog fetched as it comes.
        """
        pending = [slot]
        while pending:
            current = pending.pop()
            yield current
            for ref in self.catalog(current).nested():
                if not ref.is_bind:
                    place = current.repository_path(ref.mountpoint)
                    pending.append(self.child(current, place))

    def known(self) -> KnownSlots:
        """Return what is known of the revision shown."""
        with self._lock:
            return KnownSlots(dict(self._shown), len(self._slots))

    def new_slot(
        self, mountpoint: bytes, prefix: bytes, ref: NestedCatalogRef, parent: int = 0
    ) -> Slot:
        """Return a slot of a revision that is not shown yet.

        It is a new one even where the same catalog was shown there before: what its
        inodes stood for may have gone on under the same numbers meanwhile.
        """
        with self._lock:
            return self._new_slot(mountpoint, prefix, ref, parent)

    def open_by_alternative_path(self, root_catalog: ContentHash) -> None:
        """Ask for this root catalog by its alternative path."""
        self._alternatives.add(root_catalog)

    def switch(
        self,
        shown: Mapping[bytes, Slot],
        slot_count: int,
        switched: Callable[[], object],
    ) -> bool:
        """Show another revision, unless a catalog was entered meanwhile.

        Args:
            shown: All that is known of the other revision, by mountpoint.
            slot_count: How many slots there were when this was found out.
            switched: Called at the moment of the change, to change more with it.

        Returns:
            Whether it is shown.
        """
        with self._lock:
            if len(self._slots) != slot_count:
                return False
            numbers = {slot.number for slot in shown.values()}
            self._shown = dict(shown)
            switched()
            self._listed &= numbers
        if self._foresight is not None:
            self._foresight.keep_only(numbers)
        return True

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Let nobody else enter a catalog for the first time meanwhile."""
        with self._entrance:
            yield

    def close(self) -> None:
        """Let go of every catalog."""
        with self._lock:
            self._open.clear()

    def _add(
        self, mountpoint: bytes, prefix: bytes, ref: NestedCatalogRef, parent: int = 0
    ) -> Slot:
        place = (mountpoint, ref.content_hash)
        if place not in self._by_place:
            with self._entrance, self._lock:
                if place not in self._by_place:
                    self._new_slot(mountpoint, prefix, ref, parent)
        with self._lock:
            known = self._by_place[place]
            if not parent or self._is_shown(self._slots[parent - ROOT_SLOT]):
                self._shown.setdefault(mountpoint, known)
            return known

    def _new_slot(
        self, mountpoint: bytes, prefix: bytes, ref: NestedCatalogRef, parent: int
    ) -> Slot:
        slot = Slot(
            ROOT_SLOT + len(self._slots),
            mountpoint,
            prefix,
            ref.content_hash,
            ref.size,
            parent,
            ref.is_bind,
        )
        self._slots.append(slot)
        self._by_place[mountpoint, ref.content_hash] = slot
        return slot

    def _is_shown(self, slot: Slot) -> bool:
        return self._shown.get(slot.mountpoint) is slot

    def _outer(self, slot: Slot) -> Slot:
        """Return the catalog in which another one is nested now, or once was."""
        outer = self._slots[slot.parent - ROOT_SLOT]
        return self._shown.get(outer.mountpoint, outer)

    def _read(self, slot: Slot) -> Catalog:
        request = catalog_request(
            slot.content_hash,
            slot.size_bytes,
            slot.mountpoint,
            is_alternative=slot.content_hash in self._alternatives,
        )
        # Who asks for a malformed catalog again and again does not fetch it each time.
        is_refused = slot.content_hash in self._refused
        open_catalog = open_once if is_refused else open_whole
        pin = self._fetcher.pin(slot.content_hash)
        try:
            catalog = open_catalog(self._fetcher, request, named_catalog(request))
        except FormatError:
            self._refused.add(slot.content_hash)
            raise
        except TransferError:
            self.missed()
            raise
        if catalog.root_prefix != slot.prefix:
            catalog.close()
            raise FormatError(
                f"catalog {slot.content_hash} is made for {catalog.root_prefix!r}, "
                f"not for {slot.prefix!r}"
            )
        catalog.pin = pin
        if slot.content_hash not in self._renewed:
            catalog.can_renew(partial(self._renew, request))
        return catalog

    def _renew(self, request: ObjectRequest) -> Catalog:
        """Return what is fetched instead of a catalog that turned out damaged.

        Once for each: who publishes damaged ones does not have them fetched for ever.
        """
        self._renewed.add(request.content_hash)
        self._fetcher.discard(request.content_hash)
        return open_once(self._fetcher, request, named_catalog(request))

    def _keep(self, slot: Slot, catalog: Catalog) -> Catalog:
        # A catalog that falls out is not closed here: another thread may be asking it
        # something. It closes itself when the last of them lets go.
        with self._lock:
            catalog = self._open.setdefault(slot.number, catalog)
            if len(self._open) > OPEN_MAX:
                self._open.popitem(last=False)
            return catalog


def _nobody() -> None:
    """Nobody wants to know."""


def _check_is_below(path: bytes, slot: Slot) -> None:
    """Refuse a catalog that is nested in itself: mountpoints only ever get longer."""
    if not path.startswith(slot.prefix + b"/"):
        raise FormatError(f"{path!r} is not below {slot.prefix!r}")
