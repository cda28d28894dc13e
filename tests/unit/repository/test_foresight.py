"""Walks over hand-made repositories, and what is wanted ahead of them."""

import pytest

from cvmfsexec.callers import CannotWait
from cvmfsexec.errors import TransferError
from cvmfsexec.format.digest import ContentHash
from cvmfsexec.format.names import ROOT
from cvmfsexec.repository import catalog_tree
from cvmfsexec.repository.catalog_tree import CatalogTree
from cvmfsexec.repository.foresight import CatalogForesight
from cvmfsexec.repository.lookup import Location, PathLookup
from tests.support.catalog_files import directory, entry
from tests.support.catalog_repository import (
    BIND_POINT,
    NESTED_POINT,
    CatalogRepository,
)

# In the order of their rows, which is not that of their names.
NAMES = (b"/p/c", b"/p/a", b"/q/e", b"/q/b", b"/q/d")


class Walk:
    """A repository of nested catalogs and what it was foreseen to need."""

    def __init__(self, made: CatalogRepository) -> None:
        self.nested = {name: self._leaf(made, name) for name in NAMES}
        rows = [directory(b"/q"), directory(b"/p")]
        rows += [directory(name, flags=NESTED_POINT) for name in NAMES]
        rows.append(directory(b"/bound", flags=BIND_POINT))
        root = made.add_catalog(
            catalog=rows,
            nested_catalogs=[
                {"path": name, "sha1": str(self.nested[name]), "size": 0}
                for name in sorted(NAMES)
            ],
            bind_mountpoints=[
                {"path": b"/bound", "sha1": str(made.add_catalog()), "size": 0}
            ],
        )
        self.made = made
        self.wakes = 0
        self.foresight = CatalogForesight()
        self.foresight.wake = self._wake
        self.tree = CatalogTree(made, root, foresight=self.foresight)
        self.lookup = PathLookup(self.tree)

    def _leaf(self, made: CatalogRepository, name: bytes) -> ContentHash:
        return made.add_catalog(name, catalog=[entry(name + b"/file")])

    def _wake(self) -> None:
        self.wakes += 1

    def at(self, path: bytes) -> Location:
        found = self.lookup.find(path)
        assert found is not None
        return found

    def list_(self, path: bytes) -> list[bytes]:
        """List a directory, and return what is wanted then."""
        list(self.lookup.list_(self.at(path)))
        return self.wanted()

    def wanted(self) -> list[bytes]:
        names = {content_hash: name for name, content_hash in self.nested.items()}
        wanted = []
        while (request := self.foresight.take()) is not None:
            wanted.append(names[request.content_hash])
        return wanted


@pytest.fixture
def walk(made: CatalogRepository) -> Walk:
    return Walk(made)


def test_catalogs_are_wanted_in_the_order_of_rows(walk: Walk) -> None:
    assert walk.list_(ROOT) == walk.list_(b"/q") == []
    assert walk.list_(b"/q/e") == [b"/q/b", b"/q/d"]
    assert walk.wakes == 1
    assert walk.list_(b"/q/b") == [b"/p/c", b"/p/a"]
    assert (walk.foresight.used_count, walk.foresight.wasted_count) == (1, 0)


def test_lookups_want_nothing(walk: Walk) -> None:
    for name in (b"/q/e", b"/q/b", b"/q/d"):
        walk.at(name + b"/file")
    assert walk.wanted() == []
    assert walk.wakes == 0


def test_a_catalog_that_is_listed_again_wants_nothing(walk: Walk) -> None:
    assert walk.list_(b"/q/e")
    assert walk.list_(b"/q/e") == []


def test_bound_catalogs_are_no_part_of_a_walk(walk: Walk) -> None:
    assert walk.list_(b"/bound") == []


def test_a_damaged_reference_harms_only_those_that_need_it(
    made: CatalogRepository,
) -> None:
    leaf = made.add_catalog(b"/a", catalog=[entry(b"/a/file")])
    root = made.add_catalog(
        catalog=[directory(b"/a", flags=NESTED_POINT)],
        nested_catalogs=[
            {"path": b"/a", "sha1": str(leaf), "size": 0},
            {"path": b"/b", "sha1": "nonsense", "size": 0},
        ],
    )
    lookup = PathLookup(CatalogTree(made, root, foresight=CatalogForesight()))
    found = lookup.find(b"/a")
    assert found is not None
    assert [one.path for one in lookup.list_(found)] == [b"/a/file"]


def test_a_listing_does_not_need_the_catalog_above(
    made: CatalogRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog_tree, "OPEN_MAX", 1)
    walk = Walk(made)
    slot = walk.lookup.contents_slot(walk.at(b"/q/e"))
    catalog = walk.tree.catalog(slot)  # pushes the root catalog out
    made.instead[walk.tree.root.content_hash] = slot.content_hash  # and now it is lost
    assert walk.tree.listed(slot) is catalog


def test_catalogs_below_a_walk_are_wanted_when_it_arrives(
    made: CatalogRepository,
) -> None:
    deep = made.add_catalog(b"/a/b")
    outer = made.add_catalog(
        b"/a",
        catalog=[directory(b"/a/b", flags=NESTED_POINT)],
        nested_catalogs=[{"path": b"/a/b", "sha1": str(deep), "size": 0}],
    )
    root = made.add_catalog(
        catalog=[directory(b"/a", flags=NESTED_POINT)],
        nested_catalogs=[{"path": b"/a", "sha1": str(outer), "size": 0}],
    )
    foresight = CatalogForesight()
    lookup = PathLookup(CatalogTree(made, root, foresight=foresight))
    found = lookup.find(b"/a")
    assert found is not None
    # Neither a failure nor a thread that must not wait makes it arrive.
    for error in (TransferError("no network"), CannotWait()):
        made.failure = error
        with pytest.raises(type(error)):
            list(lookup.list_(found))
        assert foresight.take() is None
    made.failure = None
    list(lookup.list_(found))
    request = foresight.take()
    assert request is not None
    assert request.content_hash == deep
