"""Every entry of the original's catalogs, against what its own client says of it."""

import os
import stat
from collections.abc import Iterator
from contextlib import closing
from typing import Any, NamedTuple

import pytest

from cvmfsexec.catalog.reader import Catalog, NestedCatalogRef
from cvmfsexec.format.chunk import check_chunks
from cvmfsexec.format.dirent import Compression, DirectoryEntry
from cvmfsexec.format.envelope import parse_letter
from cvmfsexec.format.manifest import Manifest
from cvmfsexec.format.names import ROOT, path_hash
from cvmfsexec.format.variant_symlink import expand
from cvmfsexec.format.xattr import parse_xattrs
from tests.support.fixtures import fixture_repository, fixture_truth
from tests.support.original_databases import original_database, original_databases

REPOSITORIES = ["conformance", "shake", "config"]
VARIABLES = {"HOME": "/root"}
CONFIGURED = {"conformance": {"CONFVAR": "value-from-config"}}
KINDS = {
    stat.S_IFDIR: "dir",
    stat.S_IFREG: "file",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "sock",
    stat.S_IFCHR: "chr",
    stat.S_IFBLK: "blk",
}
FACTS = {
    "type",
    "mode",
    "uid",
    "gid",
    "size",
    "mtime",
    "mtime_ns",
    "nlink",
    "target",
    "rdev",
}
MAGIC = ("user.hash", "user.chunks", "user.compression", "user.external_file")


class Found(NamedTuple):
    """An entry, and what its catalog knows about it."""

    entry: DirectoryEntry
    facts: dict[str, Any]
    inode: tuple[str, int]


def root_of(repository: str) -> NestedCatalogRef:
    blob = (fixture_repository(repository) / ".cvmfspublished").read_bytes()
    manifest = Manifest.parse(parse_letter(blob).letter)
    return NestedCatalogRef(
        ROOT, manifest.root_catalog, manifest.root_catalog_size, is_bind=False
    )


def facts_of(
    catalog: Catalog, entry: DirectoryEntry, repository: str
) -> dict[str, Any]:
    """Return what the original's client tells, in the words of the truth files."""
    is_device = stat.S_IFMT(entry.mode) in (stat.S_IFCHR, stat.S_IFBLK)
    variables = VARIABLES | CONFIGURED.get(repository, {})
    target = expand(entry.symlink, variables)
    size = 0 if is_device else len(target) if entry.is_symlink else entry.size
    facts: dict[str, Any] = {
        "type": KINDS[stat.S_IFMT(entry.mode)],
        "mode": f"{stat.S_IMODE(entry.mode):04o}",
        "uid": entry.uid,
        "gid": entry.gid,
        "size": size,
        "mtime": entry.mtime_s,
        "mtime_ns": entry.mtime_ns,
        "nlink": entry.linkcount,
        "target": os.fsdecode(target),
        "rdev": [os.major(entry.size), os.minor(entry.size)] if is_device else None,
        "xattrs": {
            os.fsdecode(name): value.hex()
            for name, value in parse_xattrs(entry.xattr).items()
        },
    }
    if entry.is_regular:
        if entry.content_hash is not None:
            facts["user.hash"] = str(entry.content_hash)
        facts["user.compression"] = Compression(entry.compression).name.lower()
        facts["user.external_file"] = str(int(entry.is_external))
        facts["user.chunks"] = "1"
    if entry.is_chunked:
        chunks = catalog.chunks(entry)
        check_chunks(chunks, entry.size)
        facts["user.chunks"] = str(len(chunks))
    return facts


def truth_of(told: dict[str, Any]) -> dict[str, Any]:
    magic = told.get("magic", {})
    return {
        "target": "",
        "rdev": None,
        **{key: told[key] for key in told if key in FACTS},
        "xattrs": {
            name: value
            for name, value in told.get("xattrs_hex", {}).items()
            if name != "user.hitrate"
        },
        **{name: magic[name] for name in MAGIC if name in magic},
    }


def walk(repository: str, ref: NestedCatalogRef) -> Iterator[tuple[bytes, Found]]:
    """Yield every path with its entry, nested catalogs included."""
    path = original_database(repository, str(ref.content_hash), "C")
    assert os.stat(path).st_size == ref.size
    with closing(Catalog.open(path)) as catalog:
        assert catalog.root_prefix == ref.mountpoint
        assert catalog.schema == 2.5
        top = catalog.find(path_hash(ref.mountpoint))
        assert top is not None
        refs = {ref.mountpoint: ref for ref in catalog.nested()}
        if ref.mountpoint == ROOT:
            yield ROOT, found(catalog, top, repository)
        pending = [ref.mountpoint]
        while pending:
            directory = pending.pop()
            for entry in catalog.list_(path_hash(directory)):
                child = directory + b"/" + entry.name
                assert entry.path_hash == path_hash(child)
                assert catalog.find(entry.path_hash) == entry
                yield child, found(catalog, entry, repository)
                if entry.is_nested_mountpoint:
                    assert catalog.find_nested(child) == refs[child]
                    assert catalog.list_(entry.path_hash) == []
                    yield from walk(repository, refs.pop(child))
                elif entry.is_directory:
                    pending.append(child)
        assert refs == {}


def found(catalog: Catalog, entry: DirectoryEntry, repository: str) -> Found:
    inode = (catalog._database.name, catalog.hardlink_row(entry))
    return Found(entry, facts_of(catalog, entry, repository), inode)


@pytest.mark.parametrize("repository", REPOSITORIES)
def test_every_entry_is_what_the_original_client_says(repository: str) -> None:
    truth = fixture_truth(repository)["entries"]
    seen = {
        os.fsdecode(path): item for path, item in walk(repository, root_of(repository))
    }
    assert seen.keys() == truth.keys()
    for path, item in seen.items():
        assert item.facts == truth_of(truth[path]), path


@pytest.mark.parametrize("repository", ["conformance", "shake"])
def test_hardlink_groups_are_those_of_the_original_client(repository: str) -> None:
    truth = fixture_truth(repository)["entries"]
    ours: dict[tuple[str, int], set[str]] = {}
    theirs: dict[int, set[str]] = {}
    for path, item in walk(repository, root_of(repository)):
        ours.setdefault(item.inode, set()).add(os.fsdecode(path))
    for path, told in truth.items():
        theirs.setdefault(told["ino"], set()).add(path)
    assert sorted(map(sorted, ours.values())) == sorted(map(sorted, theirs.values()))


@pytest.mark.parametrize("repository", ["conformance", "shake"])
def test_counters_are_those_of_the_original_client(repository: str) -> None:
    ref = root_of(repository)
    with closing(
        Catalog.open(original_database(repository, str(ref.content_hash), "C"))
    ) as catalog:
        counters = catalog.counters()
        told = fixture_truth(repository)["root_magic"]["user.repo_counters"]
        for line in told.splitlines():
            name, value = line.split(",")
            assert counters[f"self_{name}"] + counters[f"subtree_{name}"] == int(value)


@pytest.mark.parametrize("repository", REPOSITORIES)
def test_catalogs_of_every_revision_are_read(repository: str) -> None:
    for path in original_databases(repository, "C"):
        with closing(Catalog.open(path)) as catalog:
            rows = [entry.row for entry in catalog.walk()]
            assert rows == sorted(set(rows))
            for entry in catalog.walk():
                if entry.is_chunked:
                    catalog.chunks(entry)
