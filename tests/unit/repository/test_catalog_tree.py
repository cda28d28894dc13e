"""Catalogs below catalogs: found, kept, let go, and refused."""

import gc
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from cvmfsexec.errors import CvmfsError, FormatError, IntegrityError, TransferError
from cvmfsexec.format.digest import ContentHash, ObjectKind
from cvmfsexec.format.names import ROOT
from cvmfsexec.repository import catalog_tree
from cvmfsexec.repository.catalog_tree import ROOT_SLOT, CatalogTree
from tests.support.catalog_files import HASH_TEXT, directory, entry, nested
from tests.support.catalog_repository import (
    BIND_POINT,
    NESTED_POINT,
    CatalogRepository,
)
from tests.support.descriptors import descriptor_count


def one_below_another(made: CatalogRepository, depth: int) -> ContentHash:
    """Return the root of /d/d/…, each directory a catalog of its own."""
    below: ContentHash | None = None
    for level in reversed(range(depth)):
        prefix = b"/d" * level
        rows = [entry(prefix + b"/file")]
        nested_rows = []
        if below is not None:
            rows.append(directory(prefix + b"/d", flags=NESTED_POINT))
            nested_rows.append(nested(prefix + b"/d", str(below), 0))
        below = made.add_catalog(prefix, catalog=rows, nested_catalogs=nested_rows)
    assert below is not None
    return below


def side_by_side(made: CatalogRepository, count: int) -> ContentHash:
    """Return the root of /0, /1, …, each directory a catalog of its own."""
    points = [b"/%d" % number for number in range(count)]
    return made.add_catalog(
        catalog=[directory(point, flags=NESTED_POINT) for point in points],
        nested_catalogs=[
            nested(point, str(made.add_catalog(point)), 0) for point in points
        ],
    )


def test_nothing_is_fetched_before_it_is_needed(made: CatalogRepository) -> None:
    tree = made.tree(made.add_catalog())
    assert tree.root.number == ROOT_SLOT
    assert tree.root.mountpoint == ROOT
    assert (tree.open_count, made.opened) == (0, [])


def test_an_open_catalog_is_the_same_for_all(made: CatalogRepository) -> None:
    tree = made.tree(made.add_catalog())
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: tree.catalog(tree.root), range(50)))
    assert len({id(catalog) for catalog in found}) == 1
    assert made.downloads() == 1


def test_catalogs_are_found_by_their_mountpoints(made: CatalogRepository) -> None:
    tree = made.tree(one_below_another(made, 4))
    slot = tree.root
    for level in range(1, 4):
        slot = tree.child(slot, b"/d" * level)
        assert slot.mountpoint == slot.prefix == b"/d" * level
        assert tree.catalog(slot).root_prefix == slot.prefix
    assert [slot.number for slot in tree.slots_below(tree.root)] == [1, 2, 3, 4]
    assert tree.catalog(slot).find(slot.hash_of(b"/d/d/d/file")) is not None


def test_a_slot_stands_for_the_same_for_ever(made: CatalogRepository) -> None:
    tree = made.tree(one_below_another(made, 3))
    first = tree.child(tree.root, b"/d")
    tree.close()
    assert tree.child(tree.root, b"/d") is first
    assert tree.slot(first.number) is first
    assert [tree.slot(number) for number in (-1, 0, 3, 99)] == [None] * 4


def test_a_bound_catalog_keeps_its_own_paths(made: CatalogRepository) -> None:
    inner = made.add_catalog(b"/in", catalog=[entry(b"/in/deep")])
    snapshot = made.add_catalog(
        catalog=[entry(b"/file"), directory(b"/in", flags=NESTED_POINT)],
        nested_catalogs=[nested(b"/in", str(inner), 0)],
    )
    root = made.add_catalog(
        catalog=[directory(b"/old", flags=BIND_POINT)],
        bind_mountpoints=[nested(b"/old", str(snapshot), 0)],
    )
    tree = made.tree(root)
    bound = tree.child(tree.root, b"/old")
    assert (bound.mountpoint, bound.prefix, bound.is_bind) == (b"/old", ROOT, True)
    assert bound.catalog_path(b"/old/file") == b"/file"
    assert bound.repository_path(b"/file") == b"/old/file"
    below = tree.child(bound, b"/old/in")
    assert (below.mountpoint, below.prefix) == (b"/old/in", b"/in")
    assert tree.catalog(below).find(below.hash_of(b"/old/in/deep")) is not None
    # What is bound is another revision: a walk through this one leaves it out.
    assert [slot.number for slot in tree.slots_below(tree.root)] == [tree.root.number]
    assert list(tree.slots_below(bound)) == [bound, below]


def test_one_catalog_bound_twice_is_in_two_places(made: CatalogRepository) -> None:
    snapshot = made.add_catalog()
    root = made.add_catalog(
        bind_mountpoints=[nested(b"/a", str(snapshot)), nested(b"/b", str(snapshot))]
    )
    tree = CatalogTree(made, root)
    assert tree.child(tree.root, b"/a").number != tree.child(tree.root, b"/b").number


# Bounds


def test_the_least_recently_used_catalog_makes_room(
    made: CatalogRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog_tree, "OPEN_MAX", 3)
    tree = made.tree(side_by_side(made, 5))
    slots = [tree.child(tree.root, b"/%d" % number) for number in range(5)]
    for slot in slots:
        tree.catalog(slot)
        tree.catalog(tree.root)
    assert tree.open_count == 3
    assert tree.catalog(tree.root) in tree.opened()
    before = len(made.opened)
    tree.catalog(slots[4])
    assert len(made.opened) == before
    tree.catalog(slots[0])
    assert len(made.opened) == before + 1
    assert made.downloads() == 6  # what was closed comes from the cache


def test_closed_catalogs_cost_no_descriptor(
    made: CatalogRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog_tree, "OPEN_MAX", 3)
    root = side_by_side(made, 20)
    before = descriptor_count()
    gc.disable()
    try:
        tree = made.tree(root)
        assert len(list(tree.slots_below(tree.root))) == 21
        assert descriptor_count() <= before + 3
        tree.close()
        assert descriptor_count() == before
    finally:
        gc.enable()


def test_a_catalog_can_be_asked_while_others_push_it_out(
    made: CatalogRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog_tree, "OPEN_MAX", 2)
    tree = made.tree(side_by_side(made, 12))
    slots = [tree.child(tree.root, b"/%d" % number) for number in range(12)]

    def ask(number: int) -> bool:
        slot = slots[number % len(slots)]
        found = tree.catalog(slot).find(slot.hash_of(slot.mountpoint))
        return found is not None and found.is_nested_root

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(600)))
    assert tree.open_count <= 2


# What is wrong


def test_a_mark_without_a_catalog_is_an_error(made: CatalogRepository) -> None:
    tree = made.tree(made.add_catalog(catalog=[directory(b"/d", flags=NESTED_POINT)]))
    with pytest.raises(FormatError, match="no nested catalog is registered"):
        tree.child(tree.root, b"/d")


@pytest.mark.parametrize("prefix", [b"/other", b"/d/d", ROOT])
def test_a_catalog_made_for_another_place_is_refused(
    made: CatalogRepository, prefix: bytes
) -> None:
    wrong = made.add_catalog(prefix)
    tree = made.tree(made.add_catalog(nested_catalogs=[nested(b"/d", str(wrong), 0)]))
    with pytest.raises(FormatError, match="is made for"):
        tree.catalog(tree.child(tree.root, b"/d"))


def test_a_bound_catalog_must_be_a_root(made: CatalogRepository) -> None:
    wrong = made.add_catalog(b"/d")
    tree = made.tree(made.add_catalog(bind_mountpoints=[nested(b"/d", str(wrong), 0)]))
    with pytest.raises(FormatError, match="is made for"):
        tree.catalog(tree.child(tree.root, b"/d"))


@pytest.mark.parametrize(
    "path", [b"/", b"", b"d", b"/d/", b"/../d", b"/d//e", b"/d\0e"]
)
def test_a_mountpoint_that_is_no_path_is_refused(
    made: CatalogRepository, path: bytes
) -> None:
    tree = made.tree(made.add_catalog(nested_catalogs=[nested(path)]))
    with pytest.raises(FormatError):
        list(tree.slots_below(tree.root))


@pytest.mark.parametrize("inner", [b"/d", b"/d/d"])
def test_a_catalog_nested_in_itself_ends_a_walk(
    made: CatalogRepository, inner: bytes
) -> None:
    # No such catalog can be made, unless somebody finds a fixed point of the hash.
    itself = made.add_catalog(b"/d", nested_catalogs=[nested(inner)])
    made.instead[ContentHash.parse(HASH_TEXT)] = itself
    tree = made.tree(made.add_catalog(nested_catalogs=[nested(b"/d")]))
    with pytest.raises(FormatError):
        list(tree.slots_below(tree.root))


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (lambda stored: stored[:-10], CvmfsError),
        (lambda stored: stored[:-1] + b"\0", IntegrityError),
        (lambda stored: stored[:0], CvmfsError),
    ],
    ids=["cut off", "changed", "empty"],
)
def test_what_is_not_its_hash_is_not_opened(
    made: CatalogRepository, spoil: Callable[[bytes], bytes], error: type[CvmfsError]
) -> None:
    root = made.add_catalog()
    made.spoil(root, spoil)
    tree = made.tree(root)
    with pytest.raises(error):
        tree.catalog(tree.root)
    assert not made.store.has(root)


def test_a_catalog_that_is_nowhere_is_no_empty_one(made: CatalogRepository) -> None:
    tree = made.tree(ContentHash.of(b"never published"))
    with pytest.raises(TransferError):
        tree.catalog(tree.root)


# What a power failure left


def test_a_catalog_torn_in_the_cache_is_fetched_again(made: CatalogRepository) -> None:
    root = made.add_catalog()
    tree = made.tree(root)
    tree.catalog(tree.root)
    cached = f"{made.store.path}/{root.cache_path()}"
    os.truncate(cached, 5000)
    again = made.tree(root)
    assert again.catalog(again.root).root_prefix == ROOT
    assert made.downloads() == 2
    assert os.path.getsize(cached) > 5000


def test_a_malformed_catalog_is_not_fetched_again_and_again(
    made: CatalogRepository,
) -> None:
    junk = made.add_object(b"this is no catalog" * 100, ObjectKind.CATALOG)
    tree = made.tree(junk)
    for _ in range(5):
        with pytest.raises(FormatError):
            tree.catalog(tree.root)
    assert made.downloads() == 2


MANY = 3000  # entries: more pages than the first ones, which opening reads


def garble(made: CatalogRepository, name: ContentHash) -> None:
    """Damage a cached catalog behind its first pages, in place."""
    path = os.path.join(made.store.path, name.cache_path())
    with open(path, "r+b") as file:
        file.seek(16384)
        file.write(b"\xa5" * (os.path.getsize(path) - 16384))


def read_all(tree: CatalogTree) -> int:
    return sum(1 for _ in tree.catalog(tree.root).walk())


@pytest.mark.parametrize("is_open", [True, False])
def test_catalog_damaged_in_the_cache_is_fetched_once_more(
    made: CatalogRepository, *, is_open: bool
) -> None:
    name = made.add_catalog(catalog=[entry(b"/%d" % n) for n in range(MANY)])
    tree = made.tree(name)
    tree.catalog(tree.root)
    if not is_open:
        tree.close()
    garble(made, name)
    assert read_all(tree) == MANY + 1
    assert made.downloads() == 2
    tree.close()
    assert read_all(tree) == MANY + 1  # from the cache, which is sound again
    assert made.downloads() == 2


def test_catalog_published_with_damage_is_fetched_twice_and_no_more(
    made: CatalogRepository,
) -> None:
    sound = made.add_catalog(catalog=[entry(b"/%d" % n) for n in range(MANY)])
    made.tree(sound).catalog(made.tree(sound).root)
    garble(made, sound)
    with open(os.path.join(made.store.path, sound.cache_path()), "rb") as file:
        tree = made.tree(made.add_object(file.read(), ObjectKind.CATALOG))
    before = made.downloads()
    for _ in range(4):
        tree.close()
        with pytest.raises(FormatError):
            read_all(tree)
    assert made.downloads() == before + 2
