"""Catalogs and tag databases by the original tools, decompressed when a test asks."""

import functools
import zlib
from pathlib import Path

from tests.support.fixtures import fixture_repository


def original_database(name: str, text_hash: str, kind: str) -> str:
    """Return the path of one decompressed database.

    Args:
        name: The repository's fqrn, or its first label.
        text_hash: Hash of the object in text form.
        kind: ``C`` for a catalog, ``H`` for a tag database.
    """
    objects = fixture_repository(name) / "data"
    return _decompressed(objects / text_hash[:2] / f"{text_hash[2:]}{kind}")


def original_databases(name: str, kind: str) -> list[str]:
    """Return the paths of all databases of one kind in a repository, decompressed."""
    objects = sorted(fixture_repository(name).glob(f"data/??/*{kind}"))
    return [_decompressed(stored) for stored in objects]


@functools.cache
def _decompressed(stored: Path) -> str:
    # Beside the repository, in the directory that fixtures.py removes at exit.
    target = stored.parents[3] / f"{stored.parent.name}{stored.name}.sqlite"
    target.write_bytes(zlib.decompress(stored.read_bytes()))
    return str(target)
