"""What objects are called, told by the catalogs that lie beside them."""

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cvmfsexec.client.assembly import Client
from cvmfsexec.client.cached_names import CachedRepository, Kind
from cvmfsexec.client.links import follow
from cvmfsexec.errors import CacheError
from cvmfsexec.publish.chunker import ChunkSizes
from tests.support.clients import open_client
from tests.support.published import FQRN, Tree, publish_tree

LARGE = os.urandom(200_000)
TREE: Tree = {
    "file": b"content",
    "same": b"content",
    "large": LARGE,
    "used": {".cvmfscatalog": b"", "inside": b"used"},
    "link": "used",
    "empty": {},
    "unused": {".cvmfscatalog": b"", "inside": b"unused"},
}
CHUNKS = ChunkSizes(32_768, 65_536, 131_072)


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Path]:
    """Return a cache without the catalog of ``unused``."""
    repository = publish_tree(tmp_path, TREE, chunk_sizes=CHUNKS)
    with open_client(tmp_path, repository, f"file://{repository.output}") as client:
        read(client, b"/used/inside")
        yield tmp_path / "cache" / FQRN


def read(client: Client, path: bytes) -> None:
    location = follow(client, path)
    assert location is not None
    for request in client.lookup.content_requests(location):
        os.close(client.fetcher.open(request))


@pytest.fixture
def directory(cache: Path) -> Iterator[int]:
    descriptor = os.open(cache, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def names(directory: int, cache: Path, *, is_trusted: bool) -> set[tuple[Kind, bytes]]:
    opened = CachedRepository(directory, str(cache), FQRN, is_trusted=is_trusted)
    with closing(opened) as repository:
        return {(name.kind, name.path) for name in repository.names()}


@pytest.mark.parametrize("is_trusted", [True, False])
def test_names_are_those_of_cached_catalogs(
    directory: int, cache: Path, *, is_trusted: bool
) -> None:
    found = names(directory, cache, is_trusted=is_trusted)
    files = {path for kind, path in found if kind is Kind.FILE}
    assert files >= {b"/file", b"/same", b"/used/inside"}
    assert b"/unused/inside" not in files
    assert (Kind.CHUNK, b"/large") in found
    catalogs = {path for kind, path in found if kind is Kind.CATALOG}
    assert catalogs >= {b"", b"/used"}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b"/used", {b"/used", b"/used/inside", b"/used/.cvmfscatalog"}),
        (b"/link", {b"/used", b"/used/inside", b"/used/.cvmfscatalog"}),
        (b"/link/inside", {b"/used/inside"}),
        (b"/us?d/in*", {b"/used/inside"}),
        (b"/[fs]*", {b"/file", b"/same"}),
        (b"/none", None),
        (b"/none*", None),
        (b"/empty", set()),
    ],
)
def test_names_at_a_path(
    directory: int, cache: Path, path: bytes, expected: set[bytes] | None
) -> None:
    opened = CachedRepository(directory, str(cache), FQRN, is_trusted=True)
    with closing(opened) as repository:
        found = repository.names_at(path)
        assert expected == (None if found is None else {name.path for name in found})
        with pytest.raises(CacheError, match="not in the cache"):
            repository.names_at(b"/unused/inside")


def catalogs_in(cache: Path) -> list[Path]:
    found = cache.glob("??/*")
    return [path for path in found if path.read_bytes().startswith(b"SQLite")]


def test_nothing_is_told_without_a_breadcrumb(directory: int, cache: Path) -> None:
    (cache / f"cvmfschecksum.{FQRN}").unlink()
    with pytest.raises(CacheError, match="nothing of"):
        CachedRepository(directory, str(cache), FQRN, is_trusted=True)


@pytest.mark.parametrize("is_trusted", [True, False])
def test_nothing_is_told_by_catalogs_that_are_something_else(
    directory: int, cache: Path, *, is_trusted: bool
) -> None:
    for path in catalogs_in(cache):
        path.unlink()
        os.mkfifo(path)
    with pytest.raises(CacheError, match="not what its name says"):
        CachedRepository(directory, str(cache), FQRN, is_trusted=is_trusted)


def test_who_trusts_nobody_does_not_believe_a_changed_catalog(
    directory: int, cache: Path
) -> None:
    for path in catalogs_in(cache):
        path.write_bytes(path.read_bytes().replace(b"inside", b"INSIDE") + b" ")
    assert names(directory, cache, is_trusted=True)
    with pytest.raises(CacheError, match="not what its name says"):
        names(directory, cache, is_trusted=False)
