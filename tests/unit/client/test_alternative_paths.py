"""Repositories of which root catalog and certificate lie beside the manifest."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cvmfsexec.errors import CvmfsError, TransferError
from cvmfsexec.format.digest import ContentHash, HashAlgorithm, ObjectKind
from cvmfsexec.publish.keys import load_keys
from cvmfsexec.trust.signature import sign_manifest_letter
from tests.support.clients import open_client
from tests.support.published import PublishedRepository, publish_tree, serve

TREE = {"nested": {".cvmfscatalog": b"", "file": b"content\n"}}


@pytest.fixture
def repository(tmp_path: Path) -> PublishedRepository:
    return publish_tree(tmp_path, TREE)


@pytest.fixture
def base_url(repository: PublishedRepository) -> Iterator[str]:
    with serve(repository.output) as url:
        yield url


def announce(repository: PublishedRepository) -> None:
    """Sign a manifest that says A=yes."""
    manifest = repository.manifest._replace(has_alternative_path=True)
    keys = load_keys(repository.keys_directory, repository.fqrn)
    letter = sign_manifest_letter(manifest, HashAlgorithm.SHA1, keys.private)
    (repository.directory / ".cvmfspublished").write_bytes(letter)


def move(
    repository: PublishedRepository, content_hash: ContentHash | None, kind: ObjectKind
) -> None:
    """Let there be the alternative path only."""
    assert content_hash is not None
    usual = repository.directory / content_hash.object_path(kind)
    usual.rename(repository.directory / content_hash.alternative_path(kind))


def move_both(repository: PublishedRepository) -> None:
    move(repository, repository.manifest.root_catalog, ObjectKind.CATALOG)
    move(repository, repository.manifest.certificate, ObjectKind.CERTIFICATE)


def test_the_manifest_announces_them(
    tmp_path: Path, repository: PublishedRepository, base_url: str
) -> None:
    announce(repository)
    move_both(repository)
    for _ in ("cold", "warm"):
        with open_client(tmp_path, repository, base_url) as client:
            assert client.lookup.find(b"/nested/file") is not None, "not of the nested"


def test_a_parameter_asks_for_them(
    tmp_path: Path, repository: PublishedRepository, base_url: str
) -> None:
    move_both(repository)
    with open_client(
        tmp_path, repository, base_url, CVMFS_ALT_ROOT_PATH="yes"
    ) as client:
        assert client.lookup.find(b"/nested/file") is not None


def test_a_parameter_asks_for_a_pinned_root(
    tmp_path: Path, repository: PublishedRepository, base_url: str
) -> None:
    move(repository, repository.manifest.root_catalog, ObjectKind.CATALOG)
    with open_client(
        tmp_path,
        repository,
        base_url,
        CVMFS_ALT_ROOT_PATH="yes",
        CVMFS_ROOT_HASH=str(repository.manifest.root_catalog),
    ) as client:
        assert client.lookup.find(b"/nested/file") is not None


def test_a_root_that_is_lost_from_the_cache_is_asked_for_there_too(
    tmp_path: Path, repository: PublishedRepository, base_url: str
) -> None:
    announce(repository)
    move_both(repository)
    with open_client(tmp_path, repository, base_url) as client:
        client.store.remove(repository.manifest.root_catalog)
    with open_client(tmp_path, repository, base_url) as client:
        assert client.lookup.find(b"/nested/file") is not None


@pytest.mark.parametrize("lost", [ObjectKind.CATALOG, ObjectKind.CERTIFICATE])
def test_the_usual_path_does_not_stand_in(
    tmp_path: Path, repository: PublishedRepository, base_url: str, lost: ObjectKind
) -> None:
    announce(repository)
    if lost is ObjectKind.CATALOG:
        move(repository, repository.manifest.certificate, ObjectKind.CERTIFICATE)
    else:
        move(repository, repository.manifest.root_catalog, ObjectKind.CATALOG)
    with pytest.raises(TransferError, match=rf"\.cvmfsalt-[0-9a-f]*{lost.value}"):
        open_client(tmp_path, repository, base_url)


def test_nobody_looks_there_unasked(
    tmp_path: Path, repository: PublishedRepository, base_url: str
) -> None:
    move_both(repository)
    with pytest.raises(CvmfsError, match="no server has data/"):
        open_client(tmp_path, repository, base_url)
