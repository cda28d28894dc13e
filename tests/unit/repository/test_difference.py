"""What changed between two trees of catalogs, against what was published."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cvmfsexec.client.assembly import Client
from cvmfsexec.publish.chunker import ChunkSizes
from cvmfsexec.repository.catalog_tree import CatalogTree
from cvmfsexec.repository.difference import Aspect, Change, ChangeKind, differences
from tests.support.catalog_files import directory, entry, nested
from tests.support.catalog_repository import (
    BIND_POINT,
    NESTED_POINT,
    CatalogRepository,
)
from tests.support.clients import open_client
from tests.support.published import Tree, publish_tree

CHUNKS = ChunkSizes(2048, 4096, 8192)
TIMES = {Aspect.TIMESTAMP}


def published(tmp_path: Path, *trees: Tree) -> tuple[Client, list[CatalogTree]]:
    all_made = [publish_tree(tmp_path, tree, chunk_sizes=CHUNKS) for tree in trees]
    roots = [made.manifest.root_catalog for made in all_made]
    client = open_client(tmp_path, all_made[-1], f"file://{all_made[-1].output}")
    return client, [CatalogTree(client.fetcher, root) for root in roots]


def told(trees: list[CatalogTree]) -> list[tuple[bytes, ChangeKind, set[Aspect]]]:
    """Return all changes but those of times alone."""
    changes = [(c.path, c.kind, {*c.aspects} - TIMES) for c in differences(*trees)]
    return [
        one for one in changes if one[1] is not ChangeKind.MODIFIED or one[2] != set()
    ]


def test_a_revision_does_not_differ_from_itself(tmp_path: Path) -> None:
    client, (tree,) = published(tmp_path, {"a": b"a", "d": {"b": "a"}})
    with client:
        assert list(differences(tree, tree)) == []


def test_each_kind_of_change_is_told(tmp_path: Path) -> None:
    before: Tree = {
        "same": b"same",
        "gone": b"gone",
        "grown": b"short",
        "link": "a",
        "becomes-dir": b"file",
        "tree-gone": {"x": {"y": b""}},
    }
    now: Tree = {
        "same": b"same",
        "came": b"came",
        "grown": b"much longer",
        "link": "b",
        "becomes-dir": {"inside": b""},
        "tree-came": {"x": {"y": b""}},
    }
    client, trees = published(tmp_path, before, now)
    with client:
        found = told(trees)
    add, remove, modify = ChangeKind.ADDED, ChangeKind.REMOVED, ChangeKind.MODIFIED
    changed = {Aspect.SIZE, Aspect.CONTENT}
    became = {Aspect.SIZE, Aspect.CONTENT, Aspect.MODE, Aspect.LINK_COUNT}
    assert found == [
        (b"/becomes-dir", modify, became),
        (b"/becomes-dir/inside", add, set()),
        (b"/came", add, set()),
        (b"/gone", remove, set()),
        (b"/grown", modify, changed),
        (b"/link", modify, {Aspect.SYMLINK_TARGET}),
        (b"/tree-came", add, set()),
        (b"/tree-came/x", add, set()),
        (b"/tree-came/x/y", add, set()),
        (b"/tree-gone", remove, set()),
        (b"/tree-gone/x", remove, set()),
        (b"/tree-gone/x/y", remove, set()),
    ] or found[0] == (b"", modify, {Aspect.LINK_COUNT})


def test_only_catalogs_that_changed_are_opened(tmp_path: Path) -> None:
    def tree(content: bytes) -> Tree:
        deep: Tree = {".cvmfscatalog": b"", "leaf": b""}
        quiet: Tree = {".cvmfscatalog": b"", "deep": deep}
        busy: Tree = {".cvmfscatalog": b"", "file": content, "quiet": quiet}
        return {"quiet": quiet, "busy": busy}

    client, trees = published(tmp_path, tree(b"old"), tree(b"new"))
    with client:
        assert told(trees) == [(b"/busy/file", ChangeKind.MODIFIED, {Aspect.CONTENT})]
        opened = [
            {slot.mountpoint for slot in map(one.slot, range(1, 9)) if slot is not None}
            for one in trees
        ]
        counts = [one.open_count for one in trees]
    assert counts == [2, 2]
    assert opened == [{b"", b"/busy"}] * 2


def test_splitting_a_catalog_off_changes_no_content(tmp_path: Path) -> None:
    whole: Tree = {"d": {"a": b"a", "b": b"b"}}
    split: Tree = {"d": {"a": b"a", "b": b"b", ".cvmfscatalog": b""}}
    client, trees = published(tmp_path, whole, split)
    with client:
        assert told(trees) == [
            (b"/d", ChangeKind.MODIFIED, {Aspect.NESTED_CATALOG}),
            (b"/d/.cvmfscatalog", ChangeKind.ADDED, set()),
        ]


def test_a_changed_chunk_is_a_change_of_content(tmp_path: Path) -> None:
    old = b"".join(b"%d\n" % number for number in range(5000))
    new = old[:-2] + b"X\n"
    client, trees = published(tmp_path, {"f": old}, {"f": new})
    with client:
        assert told(trees) == [(b"/f", ChangeKind.MODIFIED, {Aspect.CONTENT})]


def test_what_is_bound_or_reserved_is_not_looked_into(made: CatalogRepository) -> None:
    snapshot = made.add_catalog(catalog=[entry(b"/file")])

    before = made.add_catalog(
        catalog=[entry(b"/x"), directory(b"/old", flags=BIND_POINT)],
        bind_mountpoints=[nested(b"/old", str(snapshot), 0)],
    )
    now = made.add_catalog(
        catalog=[entry(b"/x"), directory(b"/.cvmfs", flags=NESTED_POINT)]
    )
    old, new = CatalogTree(made, before), CatalogTree(made, now)
    assert [(c.path, c.kind) for c in differences(old, new)] == [
        (b"/old", ChangeKind.REMOVED)
    ]
    assert snapshot not in made.opened


MARK = ".cvmfscatalog"
names = st.sampled_from(["a", "b", "c", MARK])
leaves = st.sampled_from([b"", b"1", b"22"]) | st.sampled_from(["t", "tt"])
trees: st.SearchStrategy[Tree] = st.recursive(
    st.dictionaries(names, leaves, max_size=3),
    lambda inner: st.dictionaries(names, leaves | inner, max_size=4),
    max_leaves=8,
)


def plain(tree: Tree, above: str = "") -> dict[str, object]:
    """Return what each path holds."""
    found: dict[str, object] = {}
    for name, value in tree.items():
        path = f"{above}/{name}"
        found[path] = value
        if isinstance(value, Mapping):
            found |= {path: "directory", **plain(value, path)}
    return found


def cleaned(tree: Tree) -> Tree:
    """Let catalog marks be empty files."""
    return {
        name: cleaned(value)
        if isinstance(value, Mapping) and name != MARK
        else (b"" if name == MARK else value)
        for name, value in tree.items()
    }


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(trees, trees)
def test_names_that_came_and_went_are_all_told(
    tmp_path_factory: pytest.TempPathFactory, old: Tree, new: Tree
) -> None:
    tmp_path = tmp_path_factory.mktemp("difference")
    old, new = below_the_root(old), below_the_root(new)
    client, sides = published(tmp_path, old, new)
    before, now = plain(old), plain(new)
    with client:
        changes = list(differences(*sides))
    paths = [os.fsdecode(change.path) for change in changes]
    assert len(paths) == len(set(paths))

    def of(kind: ChangeKind) -> set[str]:
        return {os.fsdecode(c.path) for c in changes if c.kind is kind}

    assert of(ChangeKind.ADDED) == now.keys() - before.keys()
    assert of(ChangeKind.REMOVED) == before.keys() - now.keys()
    differing = {p for p in before.keys() & now.keys() if before[p] != now[p]}
    assert differing <= of(ChangeKind.MODIFIED)
    assert all(_is_consistent(change) for change in changes)


def below_the_root(tree: Tree) -> Tree:
    """Leave out the mark of the root, where a catalog begins anyhow."""
    return {name: value for name, value in cleaned(tree).items() if name != MARK}


def _is_consistent(change: Change) -> bool:
    there = (change.old is not None, change.new is not None)
    wanted = {
        ChangeKind.ADDED: (False, True),
        ChangeKind.REMOVED: (True, False),
        ChangeKind.MODIFIED: (True, True),
    }
    names = {one.name for one in (change.old, change.new) if one is not None}
    is_modified = change.kind is ChangeKind.MODIFIED
    return (
        there == wanted[change.kind]
        and len(names) == 1
        and bool(change.aspects) == is_modified
    )
