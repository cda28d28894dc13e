"""What a client asks a server for, and what it tells about that."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvmfsexec.client.assembly import Client
from cvmfsexec.errors import TransferError
from cvmfsexec.format.digest import ObjectKind
from cvmfsexec.vfs.attributes import ROOT_INODE
from cvmfsexec.vfs.file_system import RepositoryFileSystem
from tests.support.clients import open_client
from tests.support.published import PublishedRepository, publish_tree, serve

TREE = {"hello": b"hi\n", "lost": b"bye\n"}


@pytest.fixture
def repository(tmp_path: Path) -> PublishedRepository:
    return publish_tree(tmp_path, TREE)


@pytest.fixture
def client(tmp_path: Path, repository: PublishedRepository) -> Iterator[Client]:
    with (
        serve(repository.output) as base_url,
        open_client(tmp_path, repository, base_url) as client,
    ):
        yield client


def read(files: RepositoryFileSystem, name: bytes) -> bytes:
    found = files.lookup(ROOT_INODE, name)
    assert found is not None
    return bytes(files.read(found.inode, 0, found.size))


def hit_rate(client: Client) -> bytes | None:
    return client.file_system().getxattr(ROOT_INODE, b"user.hitrate")


def test_the_hit_rate_is_that_of_the_cache(client: Client) -> None:
    # The certificate is missing; the root catalog has come early, and is opened again.
    assert hit_rate(client) == b"66.667"
    assert read(client.file_system(), b"hello") == b"hi\n"
    assert hit_rate(client) == b"50.000"
    assert read(client.file_system(), b"hello") == b"hi\n"
    assert hit_rate(client) == b"60.000"


@pytest.mark.parametrize(
    ("opened", "missed", "text"),
    [(0, 0, b"n/a"), (3, 2, b"33.333"), (3, 1, b"66.667"), (5, 0, b"100.000")],
)
def test_the_hit_rate_has_three_decimals(
    client: Client, opened: int, missed: int, text: bytes
) -> None:
    client.fetcher.opened_count, client.fetcher.missed_count = opened, missed
    assert hit_rate(client) == text


def test_who_reads_a_lost_file_again_and_again_has_to_wait(
    client: Client, repository: PublishedRepository
) -> None:
    lost = client.lookup.find(b"/lost")
    assert lost is not None
    assert lost.entry.content_hash is not None
    path = lost.entry.content_hash.object_path(ObjectKind.FILE)
    (repository.directory / path).unlink()
    files = client.file_system()
    started_s = time.monotonic()
    for _ in range(5):  # of which two are told again what was found out
        with pytest.raises(TransferError):
            read(files, b"lost")
    assert time.monotonic() - started_s >= 0.032 + 0.064
