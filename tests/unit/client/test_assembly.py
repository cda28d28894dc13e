"""A client as its configuration makes it, on repositories of our own making."""

import datetime as dt
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cvmfsexec.cache.memory import MemoryStore
from cvmfsexec.client.assembly import Client, User
from cvmfsexec.client.ownership import UNMAPPED_ID, Identity
from cvmfsexec.errors import (
    ConfigurationError,
    NoMasterKeyError,
    RevisionBlacklistedError,
    SignatureMismatchError,
    TagNotFoundError,
    TransferError,
    UnsupportedTrustError,
)
from cvmfsexec.format.names import ROOT
from cvmfsexec.publish.keys import create_keys
from cvmfsexec.vfs.attributes import ROOT_INODE, Attributes
from cvmfsexec.vfs.file_system import RepositoryFileSystem
from tests.support.bent_repository import BentRepository
from tests.support.clients import open_client
from tests.support.descriptors import descriptor_count
from tests.support.published import FQRN, PublishedRepository, Tree, publish_tree

TREE: Tree = {
    "hello": b"hello\n",
    "variant": "$(CVMFS_FQRN)/$(CVMFS_ARCH)/$(SITE)/$(HOME)/$(NOT:-none)",
    "nested": {".cvmfscatalog": b"", "deep": {"leaf": b"leaf\n"}},
}


@pytest.fixture
def repository(tmp_path: Path) -> PublishedRepository:
    return publish_tree(tmp_path, TREE, tag="first")


@pytest.fixture
def url(repository: PublishedRepository) -> str:
    return f"file://{repository.output}"


class Opener:
    """Opens clients of one repository; all share a cache."""

    def __init__(self, directory: Path, repository: PublishedRepository) -> None:
        self.url = f"file://{repository.output}"
        self.directory = directory
        self._repository = repository

    def __call__(self, **settings: Any) -> Client:  # noqa: ANN401
        return open_client(self.directory, self._repository, self.url, **settings)


@pytest.fixture
def opened(tmp_path: Path, repository: PublishedRepository) -> Opener:
    return Opener(tmp_path, repository)


def look_up(files: RepositoryFileSystem, path: str) -> Attributes:
    found = files.attributes(ROOT_INODE)
    for name in path.split("/"):
        assert found is not None
        found = files.lookup(found.inode, name.encode())
    assert found is not None
    return found


def test_a_repository_is_read(opened: Opener) -> None:
    with opened() as client:
        files = client.file_system()
        leaf = look_up(files, "nested/deep/leaf")
        assert files.read(leaf.inode, 0, 100) == b"leaf\n"
        assert client.revision.number == 1
        location = client.lookup.find(b"/nested/deep/leaf")
        assert location is not None
        assert location.entry.content_hash is not None
        assert client.fetcher.has(location.entry.content_hash)


def test_what_was_read_is_read_again_without_a_server(
    opened: Opener, repository: PublishedRepository, caplog: pytest.LogCaptureFixture
) -> None:
    with opened() as client:
        files = client.file_system()
        files.read(look_up(files, "hello").inode, 0, 100)
    shutil.rmtree(repository.output)
    with opened() as client:
        files = client.file_system()
        assert files.read(look_up(files, "hello").inode, 0, 100) == b"hello\n"
        assert client.revision.is_offline
        with pytest.raises(TransferError):
            look_up(files, "nested/deep")
    assert "working offline" in caplog.text


def test_a_store_of_its_own_leaves_nothing_on_the_disk(opened: Opener) -> None:
    with opened(store=MemoryStore()) as client:
        assert client.lookup.find(b"/hello") is not None
    assert not (opened.directory / "cache").exists()


def test_closing_gives_everything_back(opened: Opener) -> None:
    opened().close()
    before = descriptor_count()
    with opened() as client:
        assert list(client.lookup.list_(client.lookup.root()))
        assert descriptor_count() > before
    assert descriptor_count() == before


def test_tags_are_listed_and_mounted(opened: Opener) -> None:
    with opened(CVMFS_REPOSITORY_TAG="first") as client:
        assert [tag.name for tag in client.tags()] == ["first", "trunk"]
        assert client.revision.is_fixed
    with pytest.raises(TagNotFoundError):
        opened(CVMFS_REPOSITORY_TAG="second")


# Trust


def test_another_key_is_refused(opened: Opener, tmp_path: Path) -> None:
    create_keys(tmp_path / "others", FQRN, 0)
    key = tmp_path / "others" / f"{FQRN}.pub"
    with pytest.raises(SignatureMismatchError):
        opened(CVMFS_PUBLIC_KEY=str(key))


def test_no_key_is_refused(opened: Opener, tmp_path: Path) -> None:
    with pytest.raises(NoMasterKeyError):
        opened(CVMFS_PUBLIC_KEY="", CVMFS_KEYS_DIR=str(tmp_path))


def test_a_root_hash_needs_no_key(
    opened: Opener, repository: PublishedRepository, tmp_path: Path
) -> None:
    with opened(
        CVMFS_PUBLIC_KEY="",
        CVMFS_KEYS_DIR=str(tmp_path),
        CVMFS_ROOT_HASH=str(repository.manifest.root_catalog),
    ) as client:
        assert client.lookup.find(b"/hello") is not None
        assert client.trust.master_keys == ()


def test_the_blacklist_is_asked(opened: Opener, tmp_path: Path) -> None:
    blacklist = tmp_path / "blacklist"
    blacklist.write_text(f"<{FQRN} 2\n")
    with pytest.raises(RevisionBlacklistedError):
        opened(CVMFS_BLACKLIST=str(blacklist))
    blacklist.write_text(f"<{FQRN} 1\n<other.example.org 9\n")
    with opened(CVMFS_BLACKLIST=str(blacklist)) as client:
        assert client.revision.number == 1


@pytest.mark.parametrize(
    "pin", ["CVMFS_REPOSITORY_TAG", "CVMFS_REPOSITORY_DATE", "CVMFS_ROOT_HASH"]
)
def test_a_pinned_revision_can_be_blacklisted(
    tmp_path: Path, opened: Opener, repository: PublishedRepository, pin: str
) -> None:
    publish_tree(tmp_path, {"new": b"new\n"}, now_s=int(time.time()) + 10)
    published_at = dt.datetime.fromtimestamp(repository.manifest.published_at_s, dt.UTC)
    pins = {
        "CVMFS_REPOSITORY_TAG": "first",
        "CVMFS_REPOSITORY_DATE": f"{published_at:%Y-%m-%dT%H:%M:%SZ}",
        "CVMFS_ROOT_HASH": str(repository.manifest.root_catalog),
    }
    blacklist = tmp_path / "blacklist"
    settings = {pin: pins[pin], "CVMFS_BLACKLIST": str(blacklist)}
    blacklist.write_text(f"<{FQRN} 1\n")
    with opened(**settings) as client:
        assert client.revision.number == 1
    blacklist.write_text(f"<{FQRN} 2\n")
    with pytest.raises(RevisionBlacklistedError):
        opened(**settings)


def test_a_repository_for_members_is_refused(
    opened: Opener, repository: PublishedRepository, tmp_path: Path
) -> None:
    bent = BentRepository(repository, tmp_path / "bent")
    bent.execute("INSERT INTO properties VALUES ('voms_authz', 'x509%/cms')")
    opened.url = f"file://{bent.output}"
    with pytest.raises(UnsupportedTrustError, match=f"{FQRN}.*x509%/cms"):
        opened()


def test_a_root_catalog_without_a_root_is_refused(
    opened: Opener, repository: PublishedRepository, tmp_path: Path
) -> None:
    bent = BentRepository(repository, tmp_path / "bent")
    bent.execute("DELETE FROM catalog WHERE name = ''")
    opened.url = f"file://{bent.output}"
    with pytest.raises(Exception, match="no root directory"):
        opened()


@pytest.mark.parametrize("parameter", ["CVMFS_HTTP_PROXY", "CVMFS_SERVER_URL"])
def test_what_is_needed_must_be_configured(opened: Opener, parameter: str) -> None:
    with pytest.raises(ConfigurationError, match=parameter):
        opened(**{parameter: ""})


# The view


@pytest.fixture
def somebody() -> User:
    return User(
        uid=Identity(4711, 0, is_confined=True),
        gid=Identity(4712, 0, is_confined=True),
        environment={"HOME": "/home/somebody", "SITE": "ignored"},
    )


def test_everything_belongs_to_the_user(opened: Opener, somebody: User) -> None:
    with opened(user=somebody) as client:
        found = look_up(client.file_system(), "hello")
    assert (found.uid, found.gid) == (0, 0)


def test_published_owners_are_shown_on_request(
    opened: Opener, somebody: User, tmp_path: Path
) -> None:
    with opened(user=somebody, CVMFS_CLAIM_OWNERSHIP="no") as client:
        found = look_up(client.file_system(), "hello")
    mine = (os.getuid() == 4711, os.getgid() == 4712)
    assert (found.uid == 0, found.gid == 0) == mine
    (tmp_path / "uid_map").write_text("* 4711\n")
    (tmp_path / "gid_map").write_text("* 99\n")
    with opened(
        user=somebody,
        CVMFS_CLAIM_OWNERSHIP="no",
        CVMFS_UID_MAP=str(tmp_path / "uid_map"),
        CVMFS_GID_MAP=str(tmp_path / "gid_map"),
    ) as client:
        found = look_up(client.file_system(), "hello")
    assert (found.uid, found.gid) == (0, UNMAPPED_ID)


def test_link_targets_know_configuration_and_environment(
    opened: Opener, somebody: User
) -> None:
    with opened(user=somebody, SITE="here") as client:
        files = client.file_system()
        target = files.readlink(look_up(files, "variant").inode)
    arch = os.uname().machine
    assert target == f"{FQRN}/{arch}/here//home/somebody/none".encode()


def test_files_can_be_made_readable(opened: Opener, tmp_path: Path) -> None:
    (tmp_path / "source" / FQRN / "hello").chmod(0o600)
    publish_tree(tmp_path, tmp_path / "source" / FQRN)
    with opened() as client:
        assert look_up(client.file_system(), "hello").mode & 0o777 == 0o600
    with opened(CVMFS_WORLD_READABLE="yes") as client:
        assert look_up(client.file_system(), "hello").mode & 0o777 == 0o644


def listed(client: Client, path: str = "") -> set[bytes]:
    files = client.file_system()
    inode = look_up(files, path).inode if path else ROOT_INODE
    return set(files.listxattr(inode))


@pytest.mark.parametrize(
    ("settings", "at_root", "below"),
    [
        ({}, True, False),
        ({"CVMFS_MAGIC_XATTRS_VISIBILITY": "rootonly"}, True, False),
        ({"CVMFS_MAGIC_XATTRS_VISIBILITY": "always"}, True, True),
        ({"CVMFS_MAGIC_XATTRS_VISIBILITY": "never"}, False, False),
        ({"CVMFS_HIDE_MAGIC_XATTRS": "yes"}, False, False),
    ],
)
def test_magic_attributes_are_listed_where_configured(
    opened: Opener, settings: dict[str, str], *, at_root: bool, below: bool
) -> None:
    with opened(**settings) as client:
        assert (b"user.fqrn" in listed(client)) is at_root
        assert (b"user.hash" in listed(client, "hello")) is below
        files = client.file_system()
        hello = look_up(files, "hello").inode
        assert files.getxattr(hello, b"user.fqrn") == FQRN.encode()


def test_a_bad_value_names_parameter_and_file(opened: Opener) -> None:
    with pytest.raises(ConfigurationError, match=r"VISIBILITY.*default\.local"):
        opened(CVMFS_MAGIC_XATTRS_VISIBILITY="sometimes")


def test_nested_catalogs_are_opened_when_somebody_looks(opened: Opener) -> None:
    with opened() as client:
        assert client.tree.open_count == 1
        assert client.lookup.find(ROOT) is not None
        assert client.lookup.find(b"/nested/deep/leaf") is not None
        assert client.tree.open_count == 2


@pytest.fixture(autouse=True)
def no_leftovers(tmp_path: Path) -> Iterator[None]:
    yield
    assert not list(tmp_path.glob("cache/*/txn/*"))
