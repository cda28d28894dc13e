"""Which catalogs are looked at on the way to another revision, and which stay."""

import pytest

from cvmfsexec.errors import CvmfsError, FormatError
from cvmfsexec.format.digest import ContentHash, ObjectKind
from cvmfsexec.repository.advance import Advance, plan_advance
from cvmfsexec.repository.catalog_tree import CatalogTree
from cvmfsexec.repository.slot import Slot
from tests.support.catalog_files import directory, entry, nested
from tests.support.catalog_repository import (
    BIND_POINT,
    NESTED_POINT,
    CatalogRepository,
)


def root_with(
    made: CatalogRepository, catalogs: dict[bytes, ContentHash], *names: bytes
) -> ContentHash:
    """Return a root in which catalogs are nested, and files lie."""
    return made.add_catalog(
        catalog=[
            *(directory(point, flags=NESTED_POINT) for point in catalogs),
            *(entry(name) for name in names),
        ],
        nested_catalogs=[
            nested(point, str(name), 0) for point, name in catalogs.items()
        ],
    )


def leaf(made: CatalogRepository, point: bytes, *names: bytes) -> ContentHash:
    return made.add_catalog(point, catalog=[entry(point + b"/" + n) for n in names])


def places(slots: list[Slot]) -> list[bytes]:
    return [slot.mountpoint for slot in slots]


def taken(tree: CatalogTree, advance: Advance) -> bool:
    return tree.switch(advance.shown, advance.slot_count, lambda: None)


def test_what_is_the_same_stays_with_all_below_it(made: CatalogRepository) -> None:
    inner = leaf(made, b"/a/in", b"x")
    outer = made.add_catalog(
        b"/a",
        catalog=[directory(b"/a/in", flags=NESTED_POINT)],
        nested_catalogs=[nested(b"/a/in", str(inner), 0)],
    )
    tree = made.tree(root_with(made, {b"/a": outer, b"/b": leaf(made, b"/b")}))
    a = tree.child(tree.root, b"/a")
    inside = tree.child(a, b"/a/in")
    before = tree.root
    made.opened.clear()
    root = root_with(made, {b"/a": outer, b"/b": leaf(made, b"/b", b"new")})
    advance = plan_advance(tree, root, 0)
    assert set(made.opened) <= {root, before.content_hash}, "nobody has entered b"
    assert advance.shown == {b"": advance.root, b"/a": a, b"/a/in": inside}
    assert [(g.left, g.entered) for g in advance.groups] == [([before], [advance.root])]
    assert taken(tree, advance)
    assert tree.root is advance.root
    former, current = tree.catalog(before), tree.catalog(tree.root)
    assert former not in tree.opened()
    assert current in tree.opened()
    assert tree.child(tree.root, b"/a") is a
    assert tree.child(a, b"/a/in") is inside
    assert tree.slot(before.number) is before


def test_what_was_entered_and_has_changed_is_fetched(made: CatalogRepository) -> None:
    tree = made.tree(root_with(made, {b"/a": leaf(made, b"/a", b"x")}))
    a = tree.child(tree.root, b"/a")
    changed = leaf(made, b"/a", b"y")
    advance = plan_advance(tree, root_with(made, {b"/a": changed}), 0)
    assert advance.shown[b"/a"].content_hash == changed
    assert advance.shown[b"/a"] is not a
    assert [places(group.left) for group in advance.groups] == [[b""], [b"/a"]]


def test_a_catalog_made_of_a_directory_is_of_its_group(made: CatalogRepository) -> None:
    plain = made.add_catalog(catalog=[directory(b"/a"), entry(b"/a/x")])
    tree = made.tree(plain)
    new = leaf(made, b"/new", b"y")
    root = root_with(made, {b"/a": leaf(made, b"/a", b"x"), b"/new": new})
    advance = plan_advance(tree, root, 0)
    (group,) = advance.groups
    assert (places(group.left), places(group.entered)) == ([b""], [b"", b"/a"])
    assert new not in made.opened, "nothing can be known below what was not there"


def test_a_catalog_that_was_merged_is_of_the_outer_group(
    made: CatalogRepository,
) -> None:
    tree = made.tree(root_with(made, {b"/a": leaf(made, b"/a", b"x")}))
    tree.child(tree.root, b"/a")
    plain = made.add_catalog(catalog=[directory(b"/a"), entry(b"/a/x")])
    (group,) = plan_advance(tree, plain, 0).groups
    assert (places(group.left), places(group.entered)) == ([b"", b"/a"], [b""])


def test_bound_catalogs_are_never_compared(made: CatalogRepository) -> None:
    def root_bound_to(name: ContentHash) -> ContentHash:
        return made.add_catalog(
            catalog=[directory(b"/tag", flags=BIND_POINT)],
            bind_mountpoints=[nested(b"/tag", str(name), 0)],
        )

    old, new = leaf(made, b"", b"x"), leaf(made, b"", b"y")
    tree = made.tree(root_bound_to(old))
    bound = tree.child(tree.root, b"/tag")
    same = made.add_catalog(
        catalog=[directory(b"/tag", flags=BIND_POINT), entry(b"/more")],
        bind_mountpoints=[nested(b"/tag", str(old), 0)],
    )
    assert plan_advance(tree, same, 0).shown[b"/tag"] is bound
    advance = plan_advance(tree, root_bound_to(new), 0)
    assert b"/tag" not in advance.shown
    assert [places(group.left) for group in advance.groups] == [[b""]]


def test_who_enters_a_catalog_meanwhile_makes_a_plan_void(
    made: CatalogRepository,
) -> None:
    tree = made.tree(root_with(made, {b"/a": leaf(made, b"/a", b"x")}))
    before = tree.root
    root = root_with(made, {b"/a": leaf(made, b"/a", b"y")})
    advance = plan_advance(tree, root, 0)
    tree.child(tree.root, b"/a")
    assert not taken(tree, advance)
    assert tree.root is before
    assert taken(tree, plan_advance(tree, root, 0))


def test_a_catalog_in_use_that_cannot_be_had_stops_it(made: CatalogRepository) -> None:
    tree = made.tree(root_with(made, {b"/a": leaf(made, b"/a", b"x")}))
    tree.child(tree.root, b"/a")
    lost = ContentHash.parse("5" * 40)
    with pytest.raises(CvmfsError):
        plan_advance(tree, root_with(made, {b"/a": lost}), 0)
    with pytest.raises(FormatError):
        plan_advance(tree, made.add_object(b"no catalog", ObjectKind.CATALOG), 0)
    assert tree.child(tree.root, b"/a").mountpoint == b"/a"
