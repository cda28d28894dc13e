"""Objects whose transfer breaks: the rest is fetched, into whatever kind of sink."""

import os
import zlib

import pytest

from cvmfsexec.cache.memory import MemoryStore
from cvmfsexec.errors import IntegrityError, TransferError
from cvmfsexec.fetch import Fetcher, ObjectRequest, fetcher
from cvmfsexec.format.digest import ContentHash, HashAlgorithm, ObjectKind
from cvmfsexec.format.dirent import Compression
from cvmfsexec.network.client import HttpClient
from cvmfsexec.network.failover import FailoverPolicy
from cvmfsexec.network.settings import NetworkSettings
from tests.support.http_server import (
    Behaviour,
    Corrupt,
    CutOff,
    HttpServer,
    Stall,
    WholeAnyway,
)

CONTENT = os.urandom(150_000) + bytes(80_000)
BROKEN = 140_000  # beyond what is worth going on from


@pytest.fixture(params=["gathered in memory", "streamed", "streamed, compressed"])
def broken(request: pytest.FixtureRequest) -> tuple[ObjectRequest, bytes]:
    """Return an object for each kind of sink, and its stored bytes."""
    is_compressed = request.param.endswith("compressed")
    stored = zlib.compress(CONTENT) if is_compressed else CONTENT
    size_bytes = len(CONTENT) if request.param == "gathered in memory" else None
    assert size_bytes is None or size_bytes <= fetcher.SMALL_BYTES
    wanted = ObjectRequest(
        ContentHash.of(stored, HashAlgorithm.SHA1),
        ObjectKind.FILE,
        size_bytes,
        Compression.ZLIB if is_compressed else Compression.NONE,
        1 << 20,
    )
    return wanted, stored


def fetch(
    broken: tuple[ObjectRequest, bytes], *behaviours: Behaviour, max_retries: int = 1
) -> tuple[bytes, list[str | None]]:
    """Fetch from a server that does this, then that; return content and ranges."""
    wanted, stored = broken
    with HttpServer({f"/{wanted.path}": stored}) as server:
        for behaviour in behaviours:
            server.misbehave(behaviour, times=1)
        policy = FailoverPolicy(max_retries=max_retries, backoff_init_s=0)
        settings = NetworkSettings((server.url,), failover=policy, timeout_direct_s=1)
        objects = Fetcher(HttpClient(settings), MemoryStore())
        descriptor = objects.open(wanted)
        try:
            content = os.pread(descriptor, len(CONTENT) + 1, 0)
        finally:
            os.close(descriptor)
        return content, [r.headers.get("range") for r in server.requests]


@pytest.mark.parametrize("behaviour", [CutOff(BROKEN), Stall(BROKEN)], ids=repr)
def test_rest_is_fetched(
    broken: tuple[ObjectRequest, bytes], behaviour: Behaviour
) -> None:
    content, ranges = fetch(broken, behaviour)
    assert content == CONTENT
    assert ranges == [None, f"bytes={BROKEN}-"]


def test_object_begins_anew_where_the_rest_cannot_be_had(
    broken: tuple[ObjectRequest, bytes],
) -> None:
    content, ranges = fetch(broken, CutOff(BROKEN), WholeAnyway())
    assert content == CONTENT
    assert ranges == [None, f"bytes={BROKEN}-", None]


def test_object_begins_anew_where_the_rest_is_wrong(
    broken: tuple[ObjectRequest, bytes],
) -> None:
    content, ranges = fetch(broken, CutOff(BROKEN), Corrupt())
    assert content == CONTENT
    assert ranges == [None, f"bytes={BROKEN}-", None]


def test_little_is_fetched_again(broken: tuple[ObjectRequest, bytes]) -> None:
    content, ranges = fetch(broken, CutOff(1000))
    assert content == CONTENT
    assert ranges == [None, None]


def test_nothing_is_kept_of_what_never_arrives(
    broken: tuple[ObjectRequest, bytes],
) -> None:
    with pytest.raises(TransferError, match="cut short"):
        fetch(broken, CutOff(BROKEN), CutOff(1000))


def test_nothing_is_kept_of_what_is_wrong_twice(
    broken: tuple[ObjectRequest, bytes],
) -> None:
    with pytest.raises(IntegrityError, match="corrupt"):
        fetch(broken, CutOff(BROKEN), Corrupt(), Corrupt())
