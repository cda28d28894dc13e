"""What a mount tells about itself, attribute by attribute."""

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cvmfsexec import __version__, log
from cvmfsexec.client.assembly import Client
from cvmfsexec.client.counters import NAMES
from cvmfsexec.client.mount_attributes import MountAttributes
from cvmfsexec.format.digest import ObjectKind
from cvmfsexec.publish.chunker import ChunkSizes
from cvmfsexec.vfs.attributes import ROOT_INODE
from tests.support.bent_repository import BentRepository
from tests.support.clients import open_client
from tests.support.published import FQRN, PublishedRepository, Tree, publish_tree

ROOT_DIRECTORY = Path(__file__).resolve().parents[3]
TREE: Tree = {
    "hello": b"hello\n" * 1000,
    "nested": {".cvmfscatalog": b"", "leaf": b"leaf\n", "link": "leaf"},
}
PARAMETERS: dict[str, Any] = {
    "CVMFS_TIMEOUT": "7",
    "CVMFS_TIMEOUT_DIRECT": "9",
    "CVMFS_HTTP_PROXY": "http://user:secret@p1:3128;http://p2:3128;DIRECT",
    "CVMFS_EXTERNAL_URL": "http://external.example.org",
    "CVMFS_EXTERNAL_HTTP_PROXY": "http://p3:3128",
}


class Gauges:
    """What a server of kernel requests may have counted."""

    class _Faults:
        io_errors = 3
        last_io_error_s = 1_700_000_000

    requests = {"OPEN": 4, "OPENDIR": 5, "LOOKUP": 6}  # noqa: RUF012 -- never changed
    faults = _Faults()


@pytest.fixture
def repository(tmp_path: Path) -> PublishedRepository:
    return publish_tree(tmp_path, TREE, ttl_s=600)


@pytest.fixture
def client(tmp_path: Path, repository: PublishedRepository) -> Iterator[Client]:
    # Two servers in the list; the first is a directory, for which no proxy is asked.
    here = f"file://{repository.output}"
    servers = f"{here}/@fqrn@;http://second.example.org/@fqrn@"
    with open_client(
        tmp_path, repository, here, CVMFS_SERVER_URL=servers, **PARAMETERS
    ) as client:
        yield client


def told(client: Client, name: str) -> str:
    value = client.file_system().getxattr(ROOT_INODE, b"user." + name.encode())
    assert value is not None, name
    return value.decode()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("fqrn", FQRN),
        ("revision", "1"),
        ("tag", ""),
        ("version", f"{__version__}.0"),
        ("uptime", "0"),
        ("expires", "9"),
        ("useddirp", "0"),
        ("nclg", "1"),
        ("nopen", "0"),
        ("ndiropen", "0"),
        ("fuse_requests", ""),
        ("read_ahead", "fetched,0\nfailed,0\nused,0\nwasted,0\n"),
        ("network_failures", ""),
        ("nioerr", "0"),
        ("timestamp_last_ioerr", "0"),
        ("ncleanup24", "0"),
        ("proxy_list", "http://p1:3128\nhttp://p2:3128\n"),
        ("proxy_list_external", "http://p3:3128\n"),
        ("external_host", "http://external.example.org"),
        ("timeout", "7"),
        ("timeout_direct", "9"),
        ("external_timeout", "9"),
        ("repo_metainfo", "manifest not available"),
    ],
)
def test_a_fresh_mount_tells(client: Client, name: str, value: str) -> None:
    assert told(client, name) == value


def test_the_last_messages_are_told_the_newest_first(client: Client) -> None:
    for number in range(120):
        log.info("message\n%d", number)
    newest, *_, oldest = lines = told(client, "logbuffer").splitlines()
    assert len(lines) == 100
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ message\\n119", newest)
    assert oldest.endswith(" message\\n20")


def test_identity_of_the_process(client: Client) -> None:
    assert told(client, "pid") == str(os.getpid())
    assert int(told(client, "maxfd")) >= int(told(client, "usedfd")) > 2


def test_what_is_mounted(client: Client, repository: PublishedRepository) -> None:
    assert told(client, "root_hash") == str(repository.manifest.root_catalog)
    assert told(client, "pubkeys") == repository.master_key_pem.decode()


def test_where_it_comes_from(client: Client, repository: PublishedRepository) -> None:
    here = f"file://{repository.output}/{FQRN}"
    assert told(client, "host") == here
    assert told(client, "host_list") == f"{here};http://second.example.org/{FQRN}"
    assert told(client, "proxy") == "http://p1:3128"


def test_credentials_are_never_told(client: Client) -> None:
    files = client.file_system()
    for name in files.listxattr(ROOT_INODE):
        assert b"secret" not in (files.getxattr(ROOT_INODE, name) or b"")


def test_downloads_are_counted(client: Client) -> None:
    before = int(told(client, "ndownload"))
    assert before == 4  # manifest, whitelist, certificate, root catalog
    location = client.lookup.find(b"/nested/leaf")
    assert location is not None
    assert int(told(client, "ndownload")) == before + 1
    assert told(client, "nclg") == "2"
    assert int(told(client, "rx")) >= 1
    assert re.fullmatch(r"\d+|n/a", told(client, "speed"))


def test_the_highest_inode_is_higher_than_all(client: Client) -> None:
    files = client.file_system()
    nested = files.lookup(ROOT_INODE, b"nested")
    assert nested is not None
    leaf = files.lookup(nested.inode, b"leaf")
    assert leaf is not None
    assert leaf.inode < int(told(client, "inode_max"))


def test_the_kernels_requests_are_told(client: Client) -> None:
    client.watch(Gauges())
    assert told(client, "nopen") == "4"
    assert told(client, "ndiropen") == "5"
    assert told(client, "fuse_requests") == "LOOKUP,6\nOPEN,4\nOPENDIR,5\n"
    assert told(client, "nioerr") == "3"
    assert told(client, "timestamp_last_ioerr") == "1700000000"


def test_the_whole_repository_is_counted(client: Client) -> None:
    rows = dict(line.split(",") for line in told(client, "repo_counters").split())
    assert tuple(rows) == NAMES
    assert rows["regular"] == "3"
    assert rows["symlink"] == "1"
    assert rows["nested"] == "1"


def test_a_tag_never_expires(tmp_path: Path, repository: PublishedRepository) -> None:
    tag = repository.publication.tag
    url = f"file://{repository.output}"
    with open_client(tmp_path, repository, url, CVMFS_REPOSITORY_TAG=tag) as client:
        assert told(client, "tag") == tag
        assert told(client, "expires") == "never (fixed root catalog)"


def test_the_revision_of_a_pinned_root_is_in_the_catalog(
    tmp_path: Path, repository: PublishedRepository
) -> None:
    root = str(repository.manifest.root_catalog)
    url = f"file://{repository.output}"
    with open_client(tmp_path, repository, url, CVMFS_ROOT_HASH=root) as client:
        assert client.revision.number == 1
        assert told(client, "revision") == "1"


def test_without_a_ttl_it_is_four_minutes(
    tmp_path: Path, repository: PublishedRepository
) -> None:
    bent = BentRepository(repository, tmp_path / "bent")
    bent.execute("DELETE FROM properties WHERE key = 'TTL'")
    with open_client(tmp_path, repository, f"file://{bent.output}") as client:
        assert told(client, "expires") == "3"


def test_without_external_servers_there_is_none(
    tmp_path: Path, repository: PublishedRepository
) -> None:
    with open_client(tmp_path, repository, f"file://{repository.output}") as client:
        assert told(client, "external_host") == ""
        assert told(client, "proxy_list") == ""
        assert told(client, "proxy_list_external") == ""
        assert told(client, "proxy") == "DIRECT"


def test_time_passes(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = time.time()
    monkeypatch.setattr(time, "time", lambda: now_s + 150)
    assert told(client, "uptime") == "2"


def test_every_attribute_is_in_the_reference(client: Client) -> None:
    reference = (ROOT_DIRECTORY / "docs/reference/magic-attributes.md").read_text()
    documented = set(re.findall(r"`((?:user|xfsroot)\.[a-z0-9_]+)`", reference))
    attributes = client._attributes
    assert isinstance(attributes, MountAttributes)
    of_mount = {name.decode() for name in attributes.table()}
    assert of_mount <= documented
    assert {name.decode() for name in client.file_system().listxattr(ROOT_INODE)} <= (
        documented
    )


# Attributes of entries that need cache, catalogs or servers


def of_entry(client: Client, path: bytes, name: str) -> str | None:
    files = client.file_system()
    location = client.lookup.find(path)
    assert location is not None
    inode = location.slot.number << 32 | location.entry.row
    value = files.getxattr(inode, name.encode())
    return None if value is None else value.decode()


def test_the_hash_of_what_is_cached_is_computed_again(client: Client) -> None:
    assert of_entry(client, b"/hello", "user.lhash") == "Not in cache"
    location = client.lookup.find(b"/hello")
    assert location is not None
    (request,) = client.lookup.content_requests(location)
    os.close(client.fetcher.open(request))
    assert of_entry(client, b"/hello", "user.lhash") == str(request.content_hash)
    cached = f"{client.settings.cache.directory}/{request.content_hash.cache_path()}"
    os.chmod(cached, 0o600)
    with open(cached, "ab") as file:
        file.write(b"damage")
    assert of_entry(client, b"/hello", "user.lhash") != str(request.content_hash)


def test_the_hash_of_an_empty_file_needs_no_cache(
    tmp_path: Path,
) -> None:
    repository = publish_tree(tmp_path, {"empty": b""})
    with open_client(tmp_path, repository, f"file://{repository.output}") as client:
        assert of_entry(client, b"/empty", "user.lhash") == (
            of_entry(client, b"/empty", "user.hash")
        )


def test_chunks_are_listed(tmp_path: Path) -> None:
    content = os.urandom(20_000)
    repository = publish_tree(
        tmp_path, {"large": content}, chunk_sizes=ChunkSizes(2048, 4096, 8192)
    )
    with open_client(tmp_path, repository, f"file://{repository.output}") as client:
        text = of_entry(client, b"/large", "user.chunk_list")
        assert text is not None
        heading, *rows = text.splitlines()
        assert heading == "hash,offset,size"
        assert of_entry(client, b"/large", "user.chunks") == str(len(rows))
        end = 0
        for row in rows:
            name, offset, size = row.split(",")
            assert int(offset) == end
            end += int(size)
            path = f"data/{name[:2]}/{name[2:]}{ObjectKind.CHUNK.value}"
            assert (repository.directory / path).exists()
        assert end == len(content)


def test_a_file_that_is_not_chunked_is_its_own_chunk(client: Client) -> None:
    name = of_entry(client, b"/hello", "user.hash")
    assert of_entry(client, b"/hello", "user.chunk_list") == (
        f"hash,offset,size\n{name},0,6000\n"
    )


@pytest.mark.parametrize(
    ("path", "mountpoint"),
    [(b"", ""), (b"/hello", ""), (b"/nested", "/nested"), (b"/nested/leaf", "/nested")],
)
def test_the_catalog_of_an_entry_is_told(
    client: Client, path: bytes, mountpoint: str
) -> None:
    text = of_entry(client, path, "user.catalog_counters")
    assert text is not None
    name, place, *rows = text.splitlines()
    assert place == f"catalog_mountpoint: {mountpoint}"
    assert [row.split(",")[0] for row in rows] == list(NAMES)
    slot = client.tree.slot(1 if not mountpoint else 2)
    assert slot is not None
    assert name == f"catalog_hash: {slot.content_hash}"


def test_external_files_tell_where_they_are(
    tmp_path: Path, repository: PublishedRepository
) -> None:
    bent = BentRepository(repository, tmp_path / "bent")
    bent.execute("UPDATE catalog SET flags = flags | 128 WHERE name = 'hello'")
    with open_client(
        tmp_path,
        repository,
        f"file://{bent.output}",
        CVMFS_EXTERNAL_URL="http://external.example.org/base",
    ) as client:
        assert of_entry(client, b"/hello", "user.external_url") == (
            "http://external.example.org/base/hello"
        )
