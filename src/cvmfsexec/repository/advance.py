"""The way from the revision that a tree shows to another one: which catalogs change.

A catalog that lies at the same place in both revisions stays as it is, with all that is
nested in it: catalogs name those below them by hash. So from the root downwards only
what differs is looked at, and of that only what somebody has entered; nothing else can
be known to anybody.

Where a catalog was changed, entries move: into a catalog newly made of a directory, out
of one that was merged into the outer one. All catalogs between which an entry of one
changed catalog can have moved are a *group*.

All changed catalogs are fetched here, before anybody can ask for them.
"""

from bisect import bisect_left
from collections.abc import Iterator
from typing import NamedTuple

from cvmfsexec.catalog.reader import NestedCatalogRef
from cvmfsexec.format.digest import ContentHash
from cvmfsexec.format.names import ROOT, parent_path
from cvmfsexec.repository.catalog_tree import CatalogTree, KnownSlots
from cvmfsexec.repository.slot import Slot

_AFTER_SLASH = bytes([ord("/") + 1])


class Group(NamedTuple):
    """Catalogs between which entries can have moved.

    Attributes:
        left: As they were.
        entered: As they are.
    """

    left: list[Slot]
    entered: list[Slot]


class Advance(NamedTuple):
    """The way to another revision.

    Attributes:
        root: The slot of its root catalog.
        shown: All its slots that are known already, by mountpoint.
        groups: What has changed.
        slot_count: How many slots the tree had before; with more, this is outdated.
    """

    root: Slot
    shown: dict[bytes, Slot]
    groups: list[Group]
    slot_count: int


def plan_advance(
    tree: CatalogTree, root_catalog: ContentHash, size_bytes: int
) -> Advance:
    """Find the way from what a tree shows to another root catalog.

    Raises:
        FormatError: A catalog is damaged.
        CvmfsError: A catalog cannot be fetched.
    """
    return _Planner(tree).plan(
        NestedCatalogRef(ROOT, root_catalog, size_bytes, is_bind=False)
    )


class _Planner:
    def __init__(self, tree: CatalogTree) -> None:
        self._tree = tree
        self._known: KnownSlots = tree.known()
        self._mountpoints = sorted(self._known.by_mountpoint)
        self._shown: dict[bytes, Slot] = {}
        self._made = 0

    def plan(self, ref: NestedCatalogRef) -> Advance:
        groups = []
        root = self._new_slot(ROOT, ROOT, ref, 0)
        pending = [(self._tree.root, root)]
        while pending:
            left, entered = pending.pop()
            group = Group([left], [entered])
            # Catalogs made of directories of this one may be followed by more.
            for slot in group.entered:
                self._shown[slot.mountpoint] = slot
                pending += self._look_into(slot, group)
            groups.append(group)
        self._add_merged(groups)
        return Advance(root, self._shown, groups, self._known.slot_count + self._made)

    def _look_into(self, slot: Slot, group: Group) -> Iterator[tuple[Slot, Slot]]:
        """Yield what has changed of what is nested in a changed catalog."""
        before = self._nested_before(group.left[0])
        for ref in self._tree.catalog(slot).nested():
            place = slot.repository_path(ref.mountpoint)
            known = self._known.by_mountpoint.get(place)
            if known is not None and _is_same(known, ref):
                self._keep(known)
            elif ref.is_bind or (known is not None and known.is_bind):
                continue  # another revision's paths: nothing there is the same
            elif known is not None:
                yield known, self._new_slot(place, ref.mountpoint, ref, slot.number)
            elif place not in before and self._was_directory(place):
                group.entered.append(
                    self._new_slot(place, ref.mountpoint, ref, slot.number)
                )

    def _nested_before(self, left: Slot) -> set[bytes]:
        """Return where catalogs were nested; nobody need have entered them."""
        refs = self._tree.catalog(left).nested()
        return {left.repository_path(ref.mountpoint) for ref in refs}

    def _keep(self, slot: Slot) -> None:
        self._shown[slot.mountpoint] = slot
        begin = bisect_left(self._mountpoints, slot.mountpoint + b"/")
        end = bisect_left(self._mountpoints, slot.mountpoint + _AFTER_SLASH)
        for mountpoint in self._mountpoints[begin:end]:
            self._shown[mountpoint] = self._known.by_mountpoint[mountpoint]

    def _was_directory(self, path: bytes) -> bool:
        """Whether a known catalog has a directory at a path."""
        slot = self._covering(path)
        if slot is None or slot.prefix != slot.mountpoint:
            return False
        entry = self._tree.catalog(slot).find(slot.hash_of(path))
        return entry is not None and entry.is_directory

    def _covering(self, path: bytes) -> Slot | None:
        while path:
            path = parent_path(path)
            slot = self._known.by_mountpoint.get(path)
            if slot is not None:
                return slot
        return None

    def _add_merged(self, groups: list[Group]) -> None:
        """Add to the groups what is not nested any more: its entries may be outside."""
        by_mountpoint = {
            slot.mountpoint: group for group in groups for slot in group.left
        }
        # The outer ones come first.
        for mountpoint in self._mountpoints:
            slot = self._known.by_mountpoint[mountpoint]
            if mountpoint in self._shown or slot.prefix != mountpoint:
                continue
            above = self._covering(mountpoint)
            group = by_mountpoint.get(above.mountpoint) if above else None
            if group is not None:
                group.left.append(slot)
                by_mountpoint[mountpoint] = group

    def _new_slot(
        self, mountpoint: bytes, prefix: bytes, ref: NestedCatalogRef, parent: int
    ) -> Slot:
        slot = self._tree.new_slot(mountpoint, prefix, ref, parent)
        self._made += 1
        self._tree.catalog(slot)
        return slot


def _is_same(slot: Slot, ref: NestedCatalogRef) -> bool:
    return slot.content_hash == ref.content_hash and slot.is_bind == ref.is_bind
