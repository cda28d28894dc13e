"""Links in a repository lead where a kernel would go, and never out of it."""

from collections.abc import Iterator

import pytest

from cvmfsexec.client.assembly import Client
from cvmfsexec.client.links import follow
from tests.support.clients import open_client
from tests.support.published import FQRN, Tree, publish_tree

TREE: Tree = {
    "v1": {".cvmfscatalog": b"", "lib": {"a": b"a"}},
    "latest": "v1",
    "v1-lib": "latest/lib",
    "absolute": f"/cvmfs/{FQRN}/v1/lib",
    "up": {"one": "../v1", "too-far": "../../../../etc"},
    "outside": "/etc",
    "elsewhere": "/cvmfs/other.example.org/x",
    "broken": "nowhere",
    "loop": "loop",
    "ping": "pong",
    "pong": "ping/x",
}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    top = tmp_path_factory.mktemp("links")
    repository = publish_tree(top, TREE)
    with open_client(top, repository, f"file://{repository.output}") as client:
        yield client


@pytest.mark.parametrize(
    ("path", "leads_to"),
    [
        (b"", b""),
        (b"/v1/lib/a", b"/v1/lib/a"),
        (b"/latest", b"/v1"),
        (b"/latest/lib/a", b"/v1/lib/a"),
        (b"/v1-lib/a", b"/v1/lib/a"),
        (b"/absolute/a", b"/v1/lib/a"),
        (b"/up/one/lib/a", b"/v1/lib/a"),
    ],
)
def test_links_are_followed(client: Client, path: bytes, leads_to: bytes) -> None:
    found = follow(client, path)
    assert found is not None
    assert found.path == leads_to


@pytest.mark.parametrize(
    "path",
    [
        b"/none",
        b"/v1/none/a",
        b"/latest/none",
        b"/outside",
        b"/outside/passwd",
        b"/elsewhere",
        b"/up/too-far/passwd",
        b"/broken",
        b"/loop",
        b"/loop/a",
        b"/ping",
        b"/v1/lib/a/b",
    ],
)
def test_what_leads_nowhere_is_not_there(client: Client, path: bytes) -> None:
    assert follow(client, path) is None
