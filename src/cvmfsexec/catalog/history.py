"""Tag databases: the named revisions of a repository.

Source: docs/reference/repository-format.md, "History (tag) database".
"""

from typing import NamedTuple

from cvmfsexec.catalog.database import Database, Row
from cvmfsexec.catalog.schema import HISTORY_TABLES, Property
from cvmfsexec.errors import FormatError, FqrnMismatchError
from cvmfsexec.format.digest import ContentHash

_SCHEMA_PREFIX = b"1."
_ESSENTIAL_COLUMNS = frozenset({"name", "hash", "revision", "timestamp"})
_SUBSTITUTES = {"size": "0", "description": "''", "branch": "''"}


class Tag(NamedTuple):
    """One named revision.

    Attributes:
        name: Such as ``trunk``, ``v1.2`` or ``generic-2024-10-18T09:30:12Z``.
        root_catalog: Name of the root catalog.
        root_catalog_size: Bytes of it, uncompressed; 0 if unknown.
        revision: Number of the revision.
        timestamp_s: UNIX seconds of its publication.
        description: Free text of the publisher.
        branch: Name of the branch; empty for the default one.
    """

    name: str
    root_catalog: ContentHash
    root_catalog_size: int
    revision: int
    timestamp_s: int
    description: str
    branch: str


class History:
    """One open tag database; it may be used from any thread.

    Attributes:
        fqrn: Repository that it belongs to; empty if it does not say.
        previous_revision: Name of the tag database before this one, or ``None``.
    """

    def __init__(self, database: Database, *, fqrn: str = "") -> None:
        """Take over an open database; arguments and errors are those of ``open``."""
        self._database = database
        columns = database.columns("tags")
        missing = _ESSENTIAL_COLUMNS - columns
        if missing:
            raise FormatError(
                f"{database.name} is not a tag database: no column {min(missing)}"
            )
        size, description, branch = (
            f"ifnull({column}, {substitute})" if column in columns else substitute
            for column, substitute in _SUBSTITUTES.items()
        )
        self._select = (
            f"SELECT name, hash, {size}, revision, timestamp, {description}, {branch}"  # noqa: S608
            " FROM tags"
        )
        self._branch = branch
        properties = database.properties()
        schema = properties.get(Property.SCHEMA.encode(), _SCHEMA_PREFIX)
        if not schema.startswith(_SCHEMA_PREFIX):
            raise FormatError(f"unknown schema {schema!r:.40} of a tag database")
        self.fqrn = _readable(properties.get(Property.FQRN.encode(), b""))
        if fqrn and self.fqrn != fqrn:
            raise FqrnMismatchError(f"tags of {self.fqrn:.80}, not of {fqrn}")
        self.previous_revision = _hash_of(
            properties.get(Property.PREVIOUS_REVISION.encode(), b"")
        )

    @classmethod
    def open(cls, path: str, *, fqrn: str = "", name: str = "") -> "History":
        """Open a tag database's file; the caller closes it.

        Args:
            path: A regular file, or ``/proc/self/fd/N``.
            fqrn: Repository that it must belong to, if known.
            name: What it is, for messages; the path if empty.

        Raises:
            FormatError: It is no tag database, is damaged, or has an unknown schema.
            FqrnMismatchError: It belongs to another repository.
            CacheError: The file is not there or cannot be read.
        """
        database = Database.open(path, HISTORY_TABLES, name)
        try:
            return cls(database, fqrn=fqrn)
        except BaseException:
            database.close()
            raise

    def close(self) -> None:
        """Give the descriptor back; later queries raise ``CacheError``."""
        self._database.close()

    def tags(self) -> list[Tag]:
        """Return all tags, newest revision first.

        Raises:
            FormatError: A tag is damaged.
        """
        rows = self._database.rows(f"{self._select} ORDER BY revision DESC, name")
        return [_tag_of(row) for row in rows]

    def find_tag(self, name: str) -> Tag | None:
        """Return the tag of a name; ``None`` if there is none.

        Raises:
            FormatError: The tag is damaged.
        """
        wanted = name.encode("utf-8", "replace")
        return _found(
            self._database.row(
                f"{self._select} WHERE name = CAST(? AS TEXT)", (wanted,)
            )
        )

    def find_date(self, timestamp_s: int) -> Tag | None:
        """Return the newest tag of the default branch made by a date.

        Args:
            timestamp_s: UNIX seconds.

        Raises:
            FormatError: The tag is damaged.
        """
        return _found(
            self._database.row(
                f"{self._select} WHERE {self._branch} = '' AND timestamp <= ?"
                " ORDER BY revision DESC LIMIT 1",
                (timestamp_s,),
            )
        )


def _found(row: Row | None) -> Tag | None:
    return None if row is None else _tag_of(row)


def _tag_of(row: Row) -> Tag:
    name, content_hash, size, revision, timestamp_s, description, branch = row
    if not all(
        type(text) is bytes for text in (name, content_hash, description, branch)
    ):
        raise FormatError(f"tag {name!r:.80}: a column has the wrong type")
    for number in (size, revision, timestamp_s):
        if type(number) is not int or number < 0:
            raise FormatError(f"tag {name!r:.80}: {number!r:.40} is no size or time")
    root_catalog = _hash_of(content_hash)
    if not name or root_catalog is None:
        raise FormatError(f"tag {name!r:.80} has no name or no hash")
    return Tag(
        _readable(name),
        root_catalog,
        size,
        revision,
        timestamp_s,
        _readable(description),
        _readable(branch),
    )


def _hash_of(text: bytes) -> ContentHash | None:
    content_hash = ContentHash.parse(text.decode("ascii", "replace")) if text else None
    return None if content_hash is None or content_hash.is_null else content_hash


def _readable(text: bytes) -> str:
    return text.decode("utf-8", "backslashreplace")
