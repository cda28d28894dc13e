"""Configuration for tests: dists made of texts, and the fixture's repository."""

import sqlite3
import zlib
from collections.abc import Mapping
from pathlib import Path

from cvmfsexec.configuration.locate import ConfigurationRoot
from cvmfsexec.format.digest import ContentHash, ObjectKind
from tests.support.fixtures import fixture_repository

CONFIG_REPOSITORY = "config.example.org"


def make_dist(directory: Path, files: Mapping[str, str]) -> ConfigurationRoot:
    """Write files below ``dist/etc/cvmfs`` and return the dist."""
    dist = directory / "dist"
    write_files(dist / "etc/cvmfs", files)
    return ConfigurationRoot(str(dist), (str(directory / "own"),))


def write_files(directory: Path, files: Mapping[str, str]) -> None:
    """Write texts to files by relative path."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def extract_config_repository(directory: Path) -> Path:
    """Unpack the fixture ``config.example.org`` as files; skips without fixtures.

    Read with nothing of ours but hashes and paths, so that configuration is tested
    alone.
    """
    repository = fixture_repository(CONFIG_REPOSITORY)
    manifest = (repository / ".cvmfspublished").read_bytes().split(b"\n")
    root_catalog = ContentHash.parse(manifest[0][1:].decode())
    catalog = directory / "catalog"
    catalog.write_bytes(_object(repository, root_catalog, ObjectKind.CATALOG))
    with sqlite3.connect(catalog) as database:
        rows = database.execute(
            "SELECT md5path_1, parent_1, name, hash, flags FROM catalog ORDER BY rowid"
        ).fetchall()
    database.close()
    target = directory / CONFIG_REPOSITORY
    paths: dict[int, Path] = {}
    for key, parent, name, digest, flags in rows:
        paths[key] = paths[parent] / name if name else target
        if flags & 1:
            paths[key].mkdir()
        else:
            content = _object(repository, ContentHash(digest), ObjectKind.FILE)
            paths[key].write_bytes(content)
    return target


def _object(repository: Path, content_hash: ContentHash, kind: ObjectKind) -> bytes:
    return zlib.decompress((repository / content_hash.object_path(kind)).read_bytes())
