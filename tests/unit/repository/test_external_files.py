"""External files from a real server, whose names need escaping in a URL."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvmfsexec.cache.memory import MemoryStore
from cvmfsexec.fetch import Fetcher
from cvmfsexec.format.chunk import Chunk
from cvmfsexec.format.digest import ContentHash
from cvmfsexec.format.dirent import (
    COMPRESSION_SHIFT,
    Compression,
    DirectoryEntry,
    Flag,
)
from cvmfsexec.format.parameters import Parameters
from cvmfsexec.network.client import HttpClient
from cvmfsexec.network.settings import NetworkSettings
from cvmfsexec.repository.objects import chunk_request, file_request
from tests.support.http_server import HttpServer
from tests.support.memory_source import MemorySource
from tests.support.store_contract import content_of

CONTENT = os.urandom(300_000)
CHUNK_BYTES = 70_000

UNCOMPRESSED = Compression.NONE << COMPRESSION_SHIFT
ENTRY = DirectoryEntry(
    row=1,
    name=b"as it is in the path",
    size=len(CONTENT),
    mode=stat.S_IFREG | 0o644,
    mtime_s=0,
    mtime_ns=0,
    flags=Flag.FILE | Flag.EXTERNAL | UNCOMPRESSED,
    hardlinks=1,
    uid=0,
    gid=0,
    symlink=b"",
    digest=bytes(20),
    xattr=None,
    md5_1=0,
    md5_2=0,
    parent_1=0,
    parent_2=0,
)

NAMES = pytest.mark.parametrize(
    "path",
    [
        b"/plain.bin",
        "/dir/with space %25/ž.bin".encode(),
        b"/a?b#c&d=e+f;g.bin",
        b"/latin-1 \xe9 and \xff.bin",
        "/%C3%BC is no ü".encode(),
    ],
    ids=repr,
)


@pytest.fixture
def directory(tmp_path: Path) -> bytes:
    return os.fsencode(tmp_path / "external")


@pytest.fixture(params=["http", "file"])
def base_url(request: pytest.FixtureRequest, directory: bytes) -> Iterator[str]:
    if request.param == "file":
        yield f"file://{os.fsdecode(directory)}"
        return
    with HttpServer(os.fsdecode(directory)) as server:
        yield server.url


@pytest.fixture
def objects(base_url: str) -> Fetcher:
    values = {"CVMFS_EXTERNAL_URL": base_url}
    settings = NetworkSettings.external_from_parameters(
        Parameters.from_values("test.example.org", values)
    )
    assert settings is not None
    return Fetcher(MemorySource(), MemoryStore(), HttpClient(settings))


def serve_file(directory: bytes, path: bytes) -> None:
    os.makedirs(os.path.dirname(directory + path), exist_ok=True)
    with open(directory + path, "wb") as file:
        file.write(CONTENT)


@NAMES
def test_a_whole_file(directory: bytes, objects: Fetcher, path: bytes) -> None:
    serve_file(directory, path)
    request = file_request(ENTRY, ContentHash.of(CONTENT), path)
    assert content_of(objects.open(request)) == CONTENT


@NAMES
def test_a_file_in_chunks(directory: bytes, objects: Fetcher, path: bytes) -> None:
    serve_file(directory, path)
    for offset in range(0, len(CONTENT), CHUNK_BYTES):
        piece = CONTENT[offset : offset + CHUNK_BYTES]
        chunk = Chunk(offset, len(piece), ContentHash.of(piece))
        request = chunk_request(ENTRY, chunk, path)
        assert content_of(objects.open(request)) == piece
