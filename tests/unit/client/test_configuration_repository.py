"""A configuration repository without a mount: a verified copy of ``etc/cvmfs``."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cvmfsexec.client import configuration_repository
from cvmfsexec.client.assembly import Client
from cvmfsexec.client.configuration_repository import extract_configuration
from cvmfsexec.errors import CacheError, CvmfsError, FormatError
from tests.support.bent_repository import BentRepository
from tests.support.clients import open_client
from tests.support.published import PublishedRepository, Tree, publish_tree

TREE: Tree = {
    "etc": {
        "cvmfs": {
            "default.conf": b"CVMFS_TIMEOUT=5\n",
            "empty.conf": b"",
            "domain.d": {".cvmfscatalog": b"", "example.org.conf": b"A=1\n"},
            "keys": {"example.org": {"one.pub": b"key\n"}},
            "link.conf": "default.conf",
            "deep.conf": "domain.d/example.org.conf",
            "outside.conf": "../../../../../../../../etc/passwd",
            "absolute.conf": "/etc/passwd",
            "large.conf": bytes((1 << 20) + 1),
        },
        "other": b"not part of it\n",
    }
}


@pytest.fixture
def repository(tmp_path: Path) -> PublishedRepository:
    return publish_tree(tmp_path, TREE)


def opened(tmp_path: Path, repository: PublishedRepository, served: Path) -> Client:
    return open_client(tmp_path, repository, f"file://{served}")


def test_files_and_links_within_are_copied(
    tmp_path: Path, repository: PublishedRepository
) -> None:
    with opened(tmp_path, repository, repository.output) as client:
        copy = Path(extract_configuration(client))
    etc = copy / "etc/cvmfs"
    assert (etc / "default.conf").read_bytes() == b"CVMFS_TIMEOUT=5\n"
    assert (etc / "domain.d/example.org.conf").read_bytes() == b"A=1\n"
    assert (etc / "keys/example.org/one.pub").read_bytes() == b"key\n"
    assert (etc / "empty.conf").read_bytes() == b""
    assert (etc / "link.conf").read_bytes() == b"CVMFS_TIMEOUT=5\n"
    assert (etc / "deep.conf").read_bytes() == b"A=1\n"
    assert [path.name for path in copy.iterdir()] == ["etc"]
    assert [path.name for path in (copy / "etc").iterdir()] == ["cvmfs"]


@pytest.mark.parametrize("name", ["outside.conf", "absolute.conf", "large.conf"])
def test_what_leads_out_or_is_too_large_is_left_out(
    tmp_path: Path, repository: PublishedRepository, name: str
) -> None:
    with opened(tmp_path, repository, repository.output) as client:
        copy = extract_configuration(client)
    assert not os.path.lexists(f"{copy}/etc/cvmfs/{name}")


def test_a_copy_is_made_once_for_each_revision(
    tmp_path: Path, repository: PublishedRepository
) -> None:
    with opened(tmp_path, repository, repository.output) as client:
        first = extract_configuration(client)
        made_at = os.stat(first).st_mtime_ns
        assert extract_configuration(client) == first
        assert os.stat(first).st_mtime_ns == made_at
    publish_tree(tmp_path, {"etc": {"cvmfs": {"default.conf": b"B=2\n"}}})
    with opened(tmp_path, repository, repository.output) as client:
        second = extract_configuration(client)
    assert second != first
    assert Path(second, "etc/cvmfs/default.conf").read_bytes() == b"B=2\n"


def test_many_may_make_it_at_once(
    tmp_path: Path, repository: PublishedRepository
) -> None:
    with opened(tmp_path, repository, repository.output) as client:
        with ThreadPoolExecutor(6) as pool:
            copies = set(pool.map(lambda _: extract_configuration(client), range(12)))
        (copy,) = copies
        assert Path(copy, "etc/cvmfs/default.conf").exists()
        workspace = Path(client.settings.cache.workspace)
    assert list(workspace.glob(".configuration.*")) == []


def test_a_repository_without_configuration_gives_an_empty_one(
    tmp_path: Path,
) -> None:
    repository = publish_tree(tmp_path, {"something": b"else"})
    with opened(tmp_path, repository, repository.output) as client:
        assert os.listdir(extract_configuration(client)) == []


def test_a_tree_that_is_too_large_is_refused(
    tmp_path: Path, repository: PublishedRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(configuration_repository, "_FILES_MAX", 5)
    with opened(tmp_path, repository, repository.output) as client:
        with pytest.raises(FormatError, match="too much"):
            extract_configuration(client)
        workspace = Path(client.settings.cache.workspace)
    assert list(workspace.glob("*configuration.*")) == []


def test_nothing_is_left_of_a_copy_that_failed(
    tmp_path: Path, repository: PublishedRepository
) -> None:
    bent = BentRepository(repository, tmp_path / "bent")
    path = bent.path_of(b"/etc/cvmfs/keys/example.org/one.pub")
    bent.write(path, b"spoilt")
    with opened(tmp_path, repository, bent.output) as client:
        with pytest.raises(CvmfsError):
            extract_configuration(client)
        workspace = Path(client.settings.cache.workspace)
    assert list(workspace.glob("*configuration.*")) == []


def test_two_entries_of_one_name_are_refused(
    tmp_path: Path, repository: PublishedRepository
) -> None:
    bent = BentRepository(repository, tmp_path / "bent")
    bent.execute("UPDATE catalog SET name = 'default.conf' WHERE name = 'link.conf'")
    with (
        opened(tmp_path, repository, bent.output) as client,
        pytest.raises(FormatError, match="stored as another path"),
    ):
        extract_configuration(client)


def test_a_cache_that_cannot_be_written_is_told(
    tmp_path: Path, repository: PublishedRepository
) -> None:
    with opened(tmp_path, repository, repository.output) as client:
        settings = client.settings
        nowhere = settings.cache._replace(workspace=str(tmp_path / "no/where"))
        client.settings = settings._replace(cache=nowhere)
        with pytest.raises(CacheError, match="cannot write"):
            extract_configuration(client)
