"""What paths and patterns mean in a repository."""

from collections.abc import Iterator

import pytest

from cvmfsexec.client.assembly import Client
from cvmfsexec.client.named_entries import matching, outermost
from tests.support.clients import open_client
from tests.support.published import Tree, publish_tree

TREE: Tree = {
    "v1": {".cvmfscatalog": b"", "lib": {"a.so": b"a", "b.so": b"b", "c.txt": b"c"}},
    "v2": {"lib": {"a.so": b"a2"}},
    "latest": "v1",
    "broken": "nowhere",
    "a*b": b"a star",
    "axb": b"no star",
    "\udcff": b"no text",
}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    top = tmp_path_factory.mktemp("named")
    repository = publish_tree(top, TREE)
    with open_client(top, repository, f"file://{repository.output}") as client:
        yield client


def paths(client: Client, path: bytes) -> list[bytes]:
    return sorted(found.path for found in matching(client, path))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b"", [b""]),
        (b"/v1/lib/a.so", [b"/v1/lib/a.so"]),
        (b"/latest/lib/a.so", [b"/v1/lib/a.so"]),
        (b"/v?/lib/a.so", [b"/v1/lib/a.so", b"/v2/lib/a.so"]),
        (b"/v1/lib/*.so", [b"/v1/lib/a.so", b"/v1/lib/b.so"]),
        (b"/latest/lib/[bc]*", [b"/v1/lib/b.so", b"/v1/lib/c.txt"]),
        (b"/*/*/*.txt", [b"/v1/lib/c.txt"]),
        (b"/a*b", [b"/a*b"]),  # it is there, and so no pattern
        (b"/a?b", [b"/a*b", b"/axb"]),
        (b"/\xff", [b"/\xff"]),
        (b"/[\xfe\xff]", [b"/\xff"]),
        (b"/none", []),
        (b"/broken", []),
        (b"/none*", []),
        (b"/v1/lib/a.so/*", []),
        (b"/[", []),
        (b"/*/none", []),
    ],
)
def test_paths_and_patterns(client: Client, path: bytes, expected: list[bytes]) -> None:
    assert paths(client, path) == expected


def test_what_is_below_another_is_left_out(client: Client) -> None:
    named = [b"/v1/lib/a.so", b"/v2", b"/v1/*", b"/v2/lib/a.so", b"/v2", b"/axb"]
    found = [one for path in named for one in matching(client, path)]
    kept = [one.path for one in outermost(found)]
    assert kept == [b"/axb", b"/v1/.cvmfscatalog", b"/v1/lib", b"/v2"]
    assert [one.path for one in outermost([*found, *matching(client, b"")])] == [b""]
    assert outermost([]) == []
