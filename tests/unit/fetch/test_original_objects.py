"""Every object that the original server tools wrote, through the real client."""

import os
import re
import zlib
from pathlib import Path

import pytest

from cvmfsexec.cache.memory import MemoryStore
from cvmfsexec.errors import IntegrityError
from cvmfsexec.fetch import Fetcher, ObjectRequest
from cvmfsexec.format.digest import ContentHash, ObjectKind
from cvmfsexec.format.dirent import Compression
from cvmfsexec.network.client import HttpClient
from cvmfsexec.network.settings import NetworkSettings
from tests.support.fixtures import REPOSITORIES, fixture_repository
from tests.support.store_contract import content_of

_OBJECT = re.compile(r"([0-9a-f]{2})/([0-9a-f]{38}(?:-rmd160|-shake128)?)([CHXMP]?)")
LIMIT_BYTES = 1 << 30


def objects_in(repository: Path) -> list[tuple[ContentHash, ObjectKind, bytes]]:
    found = []
    for path in sorted((repository / "data").glob("*/*")):
        match = _OBJECT.fullmatch(f"{path.parent.name}/{path.name}")
        if match is not None:
            name = ContentHash.parse(match[1] + match[2])
            found.append((name, ObjectKind(match[3]), path.read_bytes()))
    return found


def content_and_compression(stored: bytes) -> tuple[bytes, Compression]:
    try:
        return zlib.decompress(stored), Compression.ZLIB
    except zlib.error:
        return stored, Compression.NONE


@pytest.mark.parametrize("fqrn", REPOSITORIES)
def test_every_object_is_delivered(fqrn: str) -> None:
    repository = fixture_repository(fqrn)
    client = HttpClient(NetworkSettings((repository.as_uri(),)))
    objects = Fetcher(client, MemoryStore())
    found = objects_in(repository)
    assert len(found) > 10
    for number, (name, kind, stored) in enumerate(found):
        content, compression = content_and_compression(stored)
        size_bytes = len(content) if number % 2 or not content else None
        request = ObjectRequest(name, kind, size_bytes, compression, LIMIT_BYTES)
        assert content_of(objects.open(request)) == content


def test_a_damaged_object_is_corrupt_wherever_it_was_fetched(tmp_path: Path) -> None:
    stored = zlib.compress(b"content")
    name = ContentHash.of(stored)
    path = tmp_path / name.object_path(ObjectKind.FILE)
    os.makedirs(path.parent)
    path.write_bytes(stored[:-1])
    objects = Fetcher(HttpClient(NetworkSettings((tmp_path.as_uri(),))), MemoryStore())
    request = ObjectRequest(name, ObjectKind.FILE, 7, Compression.ZLIB, LIMIT_BYTES)
    with pytest.raises(IntegrityError, match="is corrupt wherever it was fetched"):
        objects.open(request)
    path.write_bytes(stored)
    assert content_of(objects.open(request)) == b"content"
