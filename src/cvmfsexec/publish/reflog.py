"""The reflog: every top-level object that the repository ever referred to.

Clients do not read it; the original's garbage collection and check do. It lies
uncompressed beside the manifest, which states its hash.

Source: docs/reference/publisher-format.md, "Reflog".
"""

from collections.abc import Iterable
from contextlib import closing
from enum import IntEnum
from typing import NamedTuple

from cvmfsexec.catalog.database import Database
from cvmfsexec.catalog.new_database import insert_into, new_database
from cvmfsexec.catalog.schema import CREATE_PROPERTIES, PROPERTY_COLUMNS
from cvmfsexec.errors import CacheError, FormatError, PublishError
from cvmfsexec.format.digest import ContentHash
from cvmfsexec.format.manifest import Manifest

_CREATE = (
    CREATE_PROPERTIES,
    "CREATE TABLE refs (hash TEXT, type INTEGER, timestamp INTEGER,"
    " CONSTRAINT pk_refs PRIMARY KEY (hash))",
)
_SCHEMA = "1.0"
_SCHEMA_REVISION = "0"


class ReferenceType(IntEnum):
    """Kinds of objects that a reflog lists."""

    CATALOG = 0
    CERTIFICATE = 1
    HISTORY = 2
    METAINFO = 3


class Reference(NamedTuple):
    """One object, and when it was first referred to."""

    content_hash: ContentHash
    type_: ReferenceType
    timestamp_s: int


def references_of(manifest: Manifest) -> list[Reference]:
    """Return what a manifest refers to."""
    types = {
        ReferenceType.CATALOG: manifest.root_catalog,
        ReferenceType.CERTIFICATE: manifest.certificate,
        ReferenceType.HISTORY: manifest.history,
        ReferenceType.METAINFO: manifest.metainfo,
    }
    return [
        Reference(content_hash, type_, manifest.published_at_s)
        for type_, content_hash in types.items()
        if content_hash is not None
    ]


def read_reflog(path: str) -> list[Reference]:
    """Return what a reflog lists, oldest first.

    Raises:
        PublishError: It cannot be read, or is damaged.
    """
    try:
        with closing(Database.open(path, ("refs",))) as database:
            rows = database.rows(
                "SELECT hash, type, timestamp FROM refs ORDER BY rowid"
            )
        return [_reference_of(*row) for row in rows]
    except CacheError as error:
        raise PublishError(f"cannot read the reflog {path!r}: {error}") from error
    except FormatError as error:
        raise PublishError(f"the reflog {path!r} is damaged: {error}") from error


def _reference_of(text: object, type_: object, timestamp_s: object) -> Reference:
    if not (
        isinstance(text, bytes)
        and isinstance(type_, int)
        and type_ in frozenset(ReferenceType)
        and isinstance(timestamp_s, int)
    ):
        raise FormatError(f"a reference to {text!r:.80}")
    content_hash = ContentHash.parse(text.decode("ascii", "replace"))
    return Reference(content_hash, ReferenceType(type_), timestamp_s)


def write_reflog(path: str, fqrn: str, references: Iterable[Reference]) -> None:
    """Write a reflog into a new file; of an object listed twice the first counts.

    Raises:
        PublishError: The file could not be written.
    """
    with new_database(path, _CREATE) as connection:
        connection.executemany(
            insert_into("properties", PROPERTY_COLUMNS),
            [
                ("schema", _SCHEMA),
                ("schema_revision", _SCHEMA_REVISION),
                ("fqrn", fqrn),
            ],
        )
        connection.executemany(
            "INSERT OR IGNORE INTO refs (hash, type, timestamp) VALUES (?, ?, ?)",
            (
                (str(ref.content_hash), int(ref.type_), ref.timestamp_s)
                for ref in references
            ),
        )
