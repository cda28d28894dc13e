"""The judge of our publisher: it accepts the original's work, and it finds faults."""

import hashlib
import shutil
import sqlite3
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from cvmfsexec.format.digest import ObjectKind
from cvmfsexec.format.envelope import parse_letter
from cvmfsexec.format.manifest import Manifest
from cvmfsexec.trust.signature import sign_manifest_letter
from tests.support.check_repository import check_repository
from tests.support.fixtures import REPOSITORIES, fixture_key, fixture_repository
from tests.support.published import PublishedRepository, Tree, publish_tree

TREE: Tree = {
    "file": b"content",
    "link": "file",
    "dir": {"x": b"x"},
    "nested": {".cvmfscatalog": b"", "y": b"y"},
}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> PublishedRepository:
    return publish_tree(tmp_path_factory.mktemp("published"), TREE)


@pytest.fixture
def repository(published: PublishedRepository, tmp_path: Path) -> PublishedRepository:
    """A copy, to be damaged."""
    directory = shutil.copytree(published.directory, tmp_path / published.fqrn)
    return published._replace(output=tmp_path, directory=directory)


@pytest.mark.parametrize("fqrn", REPOSITORIES)
def test_repositories_of_the_original_are_sound(fqrn: str) -> None:
    directory = fixture_repository(fqrn)
    assert check_repository(directory, fixture_key(), recompress=False) == []


def test_the_original_compresses_as_we_do() -> None:
    assert check_repository(fixture_repository("config"), fixture_key()) == []


@pytest.mark.parametrize(
    ("statement", "finding"),
    [
        ("UPDATE catalog SET hardlinks = 9 WHERE name = 'dir'", "link count 9"),
        ("UPDATE catalog SET hardlinks = 0 WHERE name = 'file'", "link count 0"),
        ("UPDATE catalog SET hardlinks = 2 WHERE name = 'file'", "without a group"),
        ("UPDATE catalog SET hash = NULL WHERE name = 'file'", "no hash"),
        ("UPDATE catalog SET hash = zeroblob(20) WHERE name = 'file'", "no hash"),
        ("UPDATE catalog SET size = 1 WHERE name = 'file'", "7 bytes and not 1"),
        ("UPDATE catalog SET flags = 68 WHERE name = 'file'", "incomplete"),
        ("UPDATE catalog SET flags = 3 WHERE name = 'dir'", "is not registered"),
        ("UPDATE catalog SET flags = 1 WHERE name = 'nested'", "nested catalogs"),
        ("UPDATE catalog SET mode = 16877 WHERE name = 'link'", "disagree"),
        ("UPDATE catalog SET size = 1 WHERE name = 'link'", "size of a link"),
        ("UPDATE catalog SET hash = zeroblob(20) WHERE name = 'link'", "with a hash"),
        ("UPDATE catalog SET xattr = x'' WHERE name = 'file'", "empty xattr"),
        ("UPDATE catalog SET name = 'other' WHERE name = 'file'", "path hash"),
        ("UPDATE catalog SET mtime = 5 WHERE name = 'nested'", "differ"),
        ("UPDATE catalog SET mtimens = -1 WHERE name = 'file'", "nanoseconds"),
        ("DELETE FROM catalog WHERE name = 'dir'", "unreachable"),
        ("DELETE FROM catalog WHERE name = ''", "no entry for its top"),
        ("DELETE FROM nested_catalogs", "not registered"),
        ("UPDATE nested_catalogs SET size = 1", "catalog has"),
        ("DELETE FROM statistics WHERE counter = 'self_dir'", "counter self_dir"),
        ("UPDATE statistics SET value = 9", "counter subtree_regular is 9"),
        ("DELETE FROM properties WHERE key = 'schema'", "schema"),
        ("UPDATE properties SET value = '9' WHERE key = 'revision'", "revision"),
        ("UPDATE properties SET value = '/x' WHERE key = 'TTL'", "TTL"),
        ("INSERT INTO properties VALUES ('root_prefix', '/x')", "root prefix"),
        ("UPDATE properties SET value='9999999999' WHERE key='last_modified'", "new"),
        ("DROP TABLE bind_mountpoints; VACUUM", "bind_mountpoints"),
        ("PRAGMA journal_mode = WAL", "WAL"),
    ],
)
def test_a_fault_in_the_root_catalog_is_found(
    repository: PublishedRepository, statement: str, finding: str
) -> None:
    replace_root_catalog(repository, statement)
    problems = check_repository(repository.directory, repository.master_key_pem)
    assert any(finding in problem for problem in problems), problems


def replace_root_catalog(repository: PublishedRepository, statement: str) -> None:
    """Change the root catalog, and sign again."""
    directory = repository.directory
    manifest = repository.manifest
    root = directory / manifest.root_catalog.object_path(ObjectKind.CATALOG)
    scratch = directory.parent / "scratch"
    scratch.write_bytes(zlib.decompress(root.read_bytes()))
    connection = sqlite3.connect(scratch)
    connection.executescript(statement)
    connection.close()
    changed = scratch.read_bytes()
    digest = hashlib.sha1(zlib.compress(changed), usedforsecurity=False).digest()
    manifest = manifest._replace(
        root_catalog=manifest.root_catalog._replace(digest=digest),
        root_catalog_size=len(changed),
    )
    path = directory / manifest.root_catalog.object_path(ObjectKind.CATALOG)
    path.write_bytes(zlib.compress(changed))
    write_manifest(repository, manifest)


def write_manifest(repository: PublishedRepository, manifest: Manifest) -> None:
    key = repository.keys_directory / f"{repository.fqrn}.key"
    algorithm = manifest.root_catalog.algorithm
    signed = sign_manifest_letter(manifest, algorithm, key.read_bytes())
    (repository.directory / ".cvmfspublished").write_bytes(signed)


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (lambda manifest: manifest._replace(published_at_s=1), "too new"),
        (lambda manifest: manifest._replace(revision=5), "revision"),
        (lambda manifest: manifest._replace(root_catalog_size=5), "catalog has"),
        (lambda manifest: manifest._replace(root_path_md5="0" * 32), "R is not"),
        (lambda manifest: manifest._replace(fqrn="x.org"), "whitelist: line 3"),
        (lambda manifest: manifest._replace(has_alternative_path=True), "cvmfsalt"),
        (lambda manifest: manifest._replace(reflog=None), "manifest: Y"),
        (lambda manifest: manifest._replace(history=manifest.reflog), "is missing"),
        (lambda manifest: manifest._replace(certificate=None), "lacks"),
    ],
)
def test_a_fault_in_the_manifest_is_found(
    repository: PublishedRepository,
    change: Callable[[Manifest], Manifest],
    finding: str,
) -> None:
    write_manifest(repository, change(repository.manifest))
    problems = check_repository(repository.directory, repository.master_key_pem)
    assert any(finding in problem for problem in problems), problems


@pytest.mark.parametrize(
    ("name", "finding"),
    [
        (".cvmfspublished", "not signed by the certificate"),
        (".cvmfswhitelist", "not signed by the master key"),
    ],
)
def test_a_wrong_signature_is_found(
    repository: PublishedRepository, name: str, finding: str
) -> None:
    path = repository.directory / name
    signature = parse_letter(path.read_bytes()).signature
    forged = bytes([signature[0] ^ 1]) + signature[1:]
    path.write_bytes(path.read_bytes().replace(signature, forged))
    problems = check_repository(repository.directory, repository.master_key_pem)
    assert any(finding in problem for problem in problems), problems


@pytest.mark.parametrize(
    ("damage", "finding"),
    [
        (lambda path: path.unlink(), "is missing"),
        (lambda path: path.write_bytes(b""), "not its hash"),
    ],
)
def test_a_damaged_object_is_found(
    repository: PublishedRepository, damage: Callable[[Path], object], finding: str
) -> None:
    objects = sorted((repository.directory / "data").glob("??/*"))
    for path in objects:
        saved = path.read_bytes()
        damage(path)
        problems = check_repository(repository.directory, repository.master_key_pem)
        assert any(finding in problem for problem in problems), path
        path.write_bytes(saved)
