"""Entries by path, through nested and bound catalogs."""

from collections.abc import Iterator

import pytest

from cvmfsexec.errors import FormatError, TransferError
from cvmfsexec.format.dirent import Flag
from cvmfsexec.format.names import ROOT, path_hash
from cvmfsexec.repository.lookup import Location, PathLookup
from tests.support.catalog_files import (
    DIGEST,
    chunk,
    directory,
    entry,
    link,
    nested,
)
from tests.support.catalog_repository import (
    BIND_POINT,
    NESTED_POINT,
    CatalogRepository,
)

HIDDEN = Flag.DIRECTORY | Flag.HIDDEN


@pytest.fixture
def lookup(made: CatalogRepository) -> PathLookup:
    """Return a repository with ``/n`` nested, ``/n/m`` in it, and ``/old`` bound."""
    innermost = made.add_catalog(b"/n/m", catalog=[entry(b"/n/m/leaf")])
    inner = made.add_catalog(
        b"/n",
        catalog=[
            entry(b"/n/file"),
            directory(b"/n/m", flags=NESTED_POINT, mode=0o40700),
            directory(b"/n/empty"),
        ],
        nested_catalogs=[nested(b"/n/m", str(innermost), 0)],
    )
    snapshot = made.add_catalog(
        top=directory(ROOT, mode=0o40500),
        catalog=[entry(b"/file", size=77), directory(b"/sub"), entry(b"/sub/x")],
    )
    root = made.add_catalog(
        catalog=[
            entry(b"/file"),
            entry(b"/nn"),  # its path begins like that of a transition point
            link(b"/link", b"file"),
            directory(b"/n", flags=NESTED_POINT),
            directory(b"/old", flags=BIND_POINT),
            directory(b"/.hidden", flags=HIDDEN),
            entry(b"/.hidden/inside"),
        ],
        nested_catalogs=[nested(b"/n", str(inner), 0)],
        bind_mountpoints=[nested(b"/old", str(snapshot), 0)],
    )
    return PathLookup(made.tree(root))


def found(lookup: PathLookup, path: bytes) -> Location:
    location = lookup.find(path)
    assert location is not None
    assert location.path == path
    return location


def names(lookup: PathLookup, path: bytes) -> list[bytes]:
    directory_ = found(lookup, path) if path else lookup.root()
    return [location.path for location in lookup.list_(directory_)]


@pytest.mark.parametrize(
    "path",
    [
        b"/file",
        b"/nn",
        b"/link",
        b"/n",
        b"/n/file",
        b"/n/m",
        b"/n/m/leaf",
        b"/old",
        b"/old/sub/x",
        b"/.hidden",
        b"/.hidden/inside",
    ],
)
def test_what_is_there_is_found(lookup: PathLookup, path: bytes) -> None:
    assert found(lookup, path).entry.name == path.rpartition(b"/")[2]


@pytest.mark.parametrize(
    "path",
    [b"/no", b"/file/x", b"/n/no", b"/n/m/leaf/x", b"/old/no", b"/old/n", b"/n/n"],
)
def test_what_is_not_there_is_not_found(lookup: PathLookup, path: bytes) -> None:
    assert lookup.find(path) is None


def test_the_root_is_a_directory_without_a_name(lookup: PathLookup) -> None:
    root = lookup.root()
    assert (root.path, root.entry.name, root.entry.is_directory) == (ROOT, b"", True)
    assert lookup.find(ROOT) == root


def test_a_transition_point_is_described_by_the_outer_catalog(
    lookup: PathLookup,
) -> None:
    point = found(lookup, b"/n/m")
    assert point.slot.mountpoint == b"/n"
    assert point.entry.is_nested_mountpoint
    assert lookup.contents_slot(point).mountpoint == b"/n/m"
    assert found(lookup, b"/n/m/leaf").slot.mountpoint == b"/n/m"


def test_a_bound_directory_shows_another_revision(lookup: PathLookup) -> None:
    assert found(lookup, b"/file").entry.size == 10
    assert found(lookup, b"/old/file").entry.size == 77
    # Its own entry is that of the outer catalog, as for nested ones.
    assert found(lookup, b"/old").entry.mode == 0o40755


def test_listings_show_what_is_not_hidden(lookup: PathLookup) -> None:
    assert names(lookup, ROOT) == [b"/file", b"/nn", b"/link", b"/n", b"/old"]
    assert names(lookup, b"/n") == [b"/n/file", b"/n/m", b"/n/empty"]
    assert names(lookup, b"/n/m") == [b"/n/m/leaf"]
    assert names(lookup, b"/n/empty") == []
    assert names(lookup, b"/old") == [b"/old/file", b"/old/sub"]
    assert names(lookup, b"/old/sub") == [b"/old/sub/x"]


def test_what_is_hidden_can_be_entered_by_name(lookup: PathLookup) -> None:
    assert names(lookup, b"/.hidden") == [b"/.hidden/inside"]


def everything(lookup: PathLookup, top: Location) -> Iterator[bytes]:
    for location in lookup.list_(top):
        yield location.path
        if location.entry.is_directory:
            yield from everything(lookup, location)


def test_what_a_walk_meets_is_found_by_its_path(lookup: PathLookup) -> None:
    paths = list(everything(lookup, lookup.root()))
    assert len(paths) == len(set(paths)) == 12
    for path in paths:
        assert found(lookup, path).entry.path_hash in (
            path_hash(path),
            path_hash(path.removeprefix(b"/old")),
        )


@pytest.mark.parametrize("top", [entry(ROOT, name=b""), entry(b"/stray")])
def test_a_catalog_without_a_root_directory_is_an_error(
    made: CatalogRepository, top: dict[str, object]
) -> None:
    lookup = PathLookup(made.tree(made.add_catalog(top=top)))
    with pytest.raises(FormatError, match="no root directory"):
        lookup.root()


def test_failure_to_find_out_is_not_absence(made: CatalogRepository) -> None:
    root = made.add_catalog(
        catalog=[directory(b"/n", flags=NESTED_POINT)],
        nested_catalogs=[nested(b"/n", "ab" * 20, 0)],
    )
    lookup = PathLookup(made.tree(root))
    with pytest.raises(TransferError):
        lookup.find(b"/n/anything")
    with pytest.raises(TransferError):
        list(lookup.list_(found(lookup, b"/n")))


# What to fetch for a file


def test_a_file_is_one_object(made: CatalogRepository) -> None:
    lookup = PathLookup(made.tree(made.add_catalog(catalog=[entry(b"/f", size=5)])))
    (request,) = lookup.content_requests(found(lookup, b"/f"))
    assert request.content_hash.digest == DIGEST
    assert (request.size_bytes, request.path[-38:]) == (5, DIGEST.hex()[2:])


def test_a_chunked_file_is_its_chunks_in_order(made: CatalogRepository) -> None:
    root = made.add_catalog(
        catalog=[entry(b"/f", size=30, flags=Flag.FILE | Flag.CHUNKED, hash=None)],
        chunks=[chunk(b"/f", 10, 20), chunk(b"/f", 0, 10), chunk(b"/g", 0, 10)],
    )
    lookup = PathLookup(made.tree(root))
    requests = lookup.content_requests(found(lookup, b"/f"))
    assert [request.size_bytes for request in requests] == [10, 20]
    assert {request.path[-1] for request in requests} == {"P"}


@pytest.mark.parametrize(
    "cells",
    [
        {"hash": None},
        {"hash": b""},
        {"hash": bytes(20)},
        {"flags": Flag.FILE | Flag.CHUNKED},
        {"flags": Flag.FILE | 0x700},
        {"flags": Flag.FILE | 0x3800},
    ],
    ids=["no hash", "empty", "null", "no chunks", "algorithm", "compression"],
)
def test_a_file_without_content_is_an_error(
    made: CatalogRepository, cells: dict[str, object]
) -> None:
    lookup = PathLookup(made.tree(made.add_catalog(catalog=[entry(b"/f", **cells)])))
    with pytest.raises(FormatError):
        lookup.content_requests(found(lookup, b"/f"))
