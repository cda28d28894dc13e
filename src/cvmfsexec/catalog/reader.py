"""Catalogs: the part of a repository's directory tree that one SQLite file holds.

Every schema since 0.9 is read by the same statements: columns that a file lacks are
replaced by constants when the statements are put together, once per catalog. Nothing
is believed for standing in a signed catalog; what is returned was checked.

A catalog may be used from any thread.

Source: docs/reference/repository-format.md, "Catalogs" to "Statistics counters".
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from itertools import chain
from operator import le, lt
from typing import NamedTuple

from cvmfsexec.catalog.database import Database, Row
from cvmfsexec.catalog.schema import CATALOG_TABLES, COUNTER_NAMES, Property
from cvmfsexec.catalog.statements import statements_for
from cvmfsexec.errors import FormatError
from cvmfsexec.format.chunk import Chunk, check_chunks
from cvmfsexec.format.digest import DIGEST_BYTES, ContentHash, HashAlgorithm
from cvmfsexec.format.dirent import (
    EMPTY_LISTING,
    DirectoryEntry,
    Listing,
    check_entries,
    check_entry,
    check_listing,
)
from cvmfsexec.format.names import ROOT, PathHash, check_entry_name, is_below

PAGE_ROWS = 500
"""Rows read at a time: few enough that other threads get their turn at the catalog."""

_DIRECTORIES_KEPT = 8
_BEFORE_ALL_PATHS = (-(2**63), -(2**63))
_new_tuple = tuple.__new__  # half the price of DirectoryEntry._make


class NestedCatalogRef(NamedTuple):
    """Where another catalog continues this one.

    Attributes:
        mountpoint: Absolute path of the transition point.
        content_hash: Name of the catalog.
        size: Bytes of the catalog, uncompressed; 0 if unknown.
        is_bind: Whether it is another revision's root catalog, whose paths begin at
            its own root and not at the mountpoint.
    """

    mountpoint: bytes
    content_hash: ContentHash
    size: int
    is_bind: bool


class Catalog:
    """One open catalog.

    Attributes:
        root_prefix: Path of the catalog's top directory; empty for a root catalog.
        revision: Revision of the repository in which the catalog was last changed.
        ttl_s: Seconds until a root catalog should be checked for a newer one, or
            ``None`` if it does not say.
        last_modified_s: UNIX seconds.
        is_volatile: Whether the repository's content is short-lived.
        authorisation: Membership that the repository asks for, or ``None``.
        schema: Version of the tables.
        schema_revision: Its revision.
        pin: What keeps the file in the cache as long as the catalog is in use.
    """

    pin: object = None

    def __init__(self, database: Database) -> None:
        """Take over an open database.

        Raises:
            FormatError: It is no catalog, or one of an unknown schema.
        """
        self._database = database
        self._statements = statements_for(database)
        # A listing asks for one entry after the other, and some run at the same time.
        self._first_rows = lru_cache(_DIRECTORIES_KEPT)(
            partial(_first_rows, database, self._statements.hardlinks)
        )
        properties = database.properties()
        self.schema = _schema_of(database, properties)
        number = partial(_number, database, properties)
        self.schema_revision = number(Property.SCHEMA_REVISION) or 0
        self.revision = number(Property.REVISION) or 0
        self.last_modified_s = number(Property.LAST_MODIFIED) or 0
        self.ttl_s = number(Property.TTL)
        self.is_volatile = number(Property.VOLATILE) == 1
        authorisation = properties.get(Property.AUTHORISATION.encode(), b"")
        self.authorisation = authorisation.decode("utf-8", "replace") or None
        self.root_prefix = properties.get(Property.ROOT_PREFIX.encode(), ROOT)
        if self.root_prefix != ROOT:
            _check_prefix(database, self.root_prefix)

    @classmethod
    def open(cls, path: str, name: str = "") -> "Catalog":
        """Open a catalog's file; the caller closes it.

        Args:
            path: A regular file, or ``/proc/self/fd/N``.
            name: What it is, for messages; the path if empty.

        Raises:
            FormatError: It is no catalog, is damaged, or has an unknown schema.
            CacheError: The file is not there or cannot be read.
        """
        database = Database.open(path, CATALOG_TABLES, name)
        try:
            return cls(database)
        except BaseException:
            database.close()
            raise

    @classmethod
    def open_fd(cls, fd: int, name: str = "") -> "Catalog":
        """Open the catalog behind a descriptor, which stays the caller's.

        A file that has been removed from the cache meanwhile is copied into memory.

        Raises:
            FormatError: As :meth:`open`.
            CacheError: As :meth:`open`.
        """
        return cls.open(f"/proc/self/fd/{fd}", name)

    def can_renew(self, renew: "Callable[[], Catalog]") -> None:
        """Take note of who has the catalog anew, in case that it turns out damaged.

        Args:
            renew: Opens another copy of it; must not refer to this one.
        """
        self._database.can_renew(lambda: renew()._database)  # noqa: SLF001 -- of this class

    def close(self) -> None:
        """Give the descriptor back; later queries raise ``CacheError``."""
        self._database.close()

    def find(self, path: PathHash) -> DirectoryEntry | None:
        """Return the entry of a path; ``None`` if this catalog has none.

        Raises:
            FormatError: The entry is damaged.
        """
        return _checked(self._database.row(self._statements.find, path))

    def find_row(self, row: int) -> DirectoryEntry | None:
        """Return the entry with a row number; ``None`` if there is none.

        Raises:
            FormatError: The entry is damaged.
        """
        return _checked(self._database.row(self._statements.find_row, (row,)))

    def list_(
        self, parent: PathHash, *, after_row: int = 0, limit: int = -1
    ) -> list[DirectoryEntry]:
        """Return the entries of a directory in the order of their rows.

        The directory itself is never among them, not even in a damaged catalog;
        hidden entries are.

        Args:
            parent: Hash of the directory's path.
            after_row: Where the previous part of the listing ended.
            limit: How many entries at most; all if negative.

        Raises:
            FormatError: One of the entries is damaged or has a forbidden name.
        """
        entries: list[DirectoryEntry] = []
        while limit:
            wanted = PAGE_ROWS if limit < 0 else min(limit, PAGE_ROWS)
            page = self._page_of(parent, after_row, wanted)
            entries += page
            if len(page) < wanted:
                break
            after_row = page[-1].row
            limit -= wanted if limit > 0 else 0
        return entries

    def listing(self, parent: PathHash, *, after_row: int, limit: int) -> Listing:
        """Return a part of a directory as :meth:`list_` does, but in columns.

        Args:
            parent: Hash of the directory's path.
            after_row: Where the previous part ended; 0 for the beginning.
            limit: How many entries at most; few, other threads wait meanwhile.

        Raises:
            FormatError: One of the entries is damaged or has a forbidden name.
        """
        rows = self._database.page(
            self._statements.listing, (*parent, after_row, limit)
        )
        if not rows:
            return EMPTY_LISTING
        listing = _new_tuple(Listing, zip(*rows, strict=True))
        check_listing(listing)
        _check_order(listing.row, after_row)
        return listing

    def walk(self) -> Iterator[DirectoryEntry]:
        """Yield every entry in the order of the rows, with the top directory's own.

        Raises:
            FormatError: An entry is damaged or has a forbidden name.
        """
        after_row = 0
        while rows := self._database.page(
            self._statements.walk, (after_row, PAGE_ROWS)
        ):
            entries = [_new_tuple(DirectoryEntry, row) for row in rows]
            _check_page(entries, after_row)
            yield from entries
            after_row = entries[-1].row

    def by_path(self) -> Iterator[DirectoryEntry]:
        """Yield every entry in the order of the path hashes.

        Raises:
            FormatError: An entry is damaged or has a forbidden name.
        """
        after = _BEFORE_ALL_PATHS
        while rows := self._database.page(
            self._statements.by_path, (*after, PAGE_ROWS)
        ):
            entries = [_new_tuple(DirectoryEntry, row) for row in rows]
            check_entries(entries)
            hashes = [(entry.md5_1, entry.md5_2) for entry in entries]
            if hashes[0] <= after or not all(map(le, hashes, hashes[1:])):
                raise FormatError("entries are not in the order of their paths")
            yield from entries
            after = hashes[-1]

    def hardlink_row(self, entry: DirectoryEntry) -> int:
        """Return the row that stands for all names of an entry's hardlink group.

        It is the group's smallest; an entry without a group stands for itself.

        Raises:
            FormatError: The catalog is damaged.
        """
        if not entry.hardlink_group:
            return entry.row
        return self.hardlink_rows(entry.parent_hash).get(entry.hardlinks, entry.row)

    def hardlink_rows(self, parent: PathHash) -> Mapping[int, int]:
        """Return the rows that stand for the hardlink groups of a directory.

        They are found by the ``hardlinks`` of their entries; raises as
        :meth:`hardlink_row`.
        """
        return self._first_rows(parent)

    def chunks(self, entry: DirectoryEntry) -> tuple[Chunk, ...]:
        """Return the chunks of a chunked file, in order and without a gap.

        Raises:
            FormatError: They are damaged, incomplete, or of an unknown algorithm.
        """
        algorithm = entry.hash_algorithm
        rows = self._database.rows(self._statements.chunks, entry.path_hash)
        chunks = tuple(_chunk_of(row, algorithm) for row in rows)
        check_chunks(chunks, entry.size)
        return chunks

    def nested(self) -> tuple[NestedCatalogRef, ...]:
        """Return the catalogs that continue this one, bind mountpoints last.

        Raises:
            FormatError: A row is damaged or has no hash.
        """
        rows = self._database.rows(self._statements.nested)
        return tuple(self._nested_ref(*row) for row in rows)

    def find_nested(self, mountpoint: bytes) -> NestedCatalogRef | None:
        """Return the catalog that continues this one at a path; ``None`` if none.

        Raises:
            FormatError: Its row is damaged or has no hash.
        """
        row = self._database.row(self._statements.nested_at, (mountpoint,))
        return None if row is None else self._nested_ref(*row)

    def counters(self) -> dict[str, int]:
        """Return the 24 statistics counters by name; what is missing is 0.

        Raises:
            FormatError: A counter is not a number.
        """
        counters = dict.fromkeys(COUNTER_NAMES, 0)
        for name, value in self._database.rows(self._statements.counters):
            counter = name.decode("ascii", "replace") if type(name) is bytes else ""
            if counter not in counters or value is None:
                continue
            if type(value) is not int:
                raise FormatError(f"statistics counter {counter} is {value!r:.40}")
            counters[counter] = value
        return counters

    def _page_of(
        self, parent: PathHash, after_row: int, limit: int
    ) -> list[DirectoryEntry]:
        rows = self._database.page(self._statements.list_, (*parent, after_row, limit))
        entries = [_new_tuple(DirectoryEntry, row + parent) for row in rows]
        _check_page(entries, after_row)
        return entries

    def _nested_ref(
        self, path: object, text: object, size: object, is_bind: int
    ) -> NestedCatalogRef:
        if not (type(path) is type(text) is bytes and type(size) is int and size >= 0):
            raise FormatError(f"nested catalog {path!r:.80} without hash or size")
        _check_path(path)
        if path == self.root_prefix or not is_below(path, self.root_prefix):
            raise FormatError(f"nested catalog at {path!r:.80}, outside of its parent")
        content_hash = ContentHash.parse(text.decode("ascii", "replace"))
        if content_hash.is_null:
            raise FormatError(f"nested catalog {path!r:.80} without hash")
        return NestedCatalogRef(path, content_hash, size, bool(is_bind))


_SCHEMA = re.compile(rb"\d{1,3}(\.\d{1,9})?")
_NUMBER = re.compile(rb"\d{1,20}")  # 64 bits
_TOLERANCE = 0.0005
_MODERN_FROM = 2.0  # older ones are 0.9 and 1.x
_MODERN = (2.4, 2.5)


def _schema_of(database: Database, properties: dict[bytes, bytes]) -> float:
    text = properties.get(Property.SCHEMA.encode())
    if text is None:
        return 1.0 if "sha1" in database.columns("nested_catalogs") else 0.9
    schema = float(text) if _SCHEMA.fullmatch(text) else 0.0
    if not (
        0.0 < schema < _MODERN_FROM - _TOLERANCE
        or any(abs(schema - known) < _TOLERANCE for known in _MODERN)
    ):
        raise FormatError(f"{database.name}: unknown catalog schema {text!r:.40}")
    return schema


def _number(database: Database, properties: dict[bytes, bytes], key: str) -> int | None:
    text = properties.get(key.encode())
    if not text:
        return None
    if _NUMBER.fullmatch(text) is None:
        raise FormatError(f"{database.name}: property {key} is {text!r:.40}")
    return int(text)


def _check_prefix(database: Database, path: bytes) -> None:
    try:
        _check_path(path)
    except FormatError as error:
        raise FormatError(f"{database.name}: property root_prefix: {error}") from error


def _check_path(path: bytes) -> None:
    """Refuse what is not the absolute path of a directory below the root."""
    if not path.startswith(b"/"):
        raise FormatError(f"not an absolute path: {path!r:.80}")
    for name in path[1:].split(b"/"):
        check_entry_name(name)


def _checked(row: Row | None) -> DirectoryEntry | None:
    if row is None:
        return None
    entry = _new_tuple(DirectoryEntry, row)
    check_entry(entry)
    return entry


def _check_page(entries: list[DirectoryEntry], after_row: int) -> None:
    """Refuse damaged entries, and rows that do not ascend: they might never end."""
    check_entries(entries)
    _check_order([entry[0] for entry in entries], after_row)


def _check_order(rows: Sequence[int], after_row: int) -> None:
    if not all(map(lt, chain((after_row,), rows), rows)):
        raise FormatError(f"rows after {after_row} are not in order")


def _first_rows(database: Database, statement: str, parent: PathHash) -> dict[int, int]:
    """Return the first row of each hardlink group in a directory."""
    rows: dict[int, int] = {}
    for row, hardlinks in database.rows(statement, parent):
        rows.setdefault(hardlinks, row)
    return rows


def _chunk_of(row: Row, algorithm: HashAlgorithm) -> Chunk:
    offset, size, digest = row
    if not (type(offset) is type(size) is int and type(digest) is bytes):
        raise FormatError(f"chunk at {offset!r:.40} without size or hash")
    if len(digest) != DIGEST_BYTES or not any(digest):
        raise FormatError(f"chunk at {offset} without a hash")
    return Chunk(offset, size, ContentHash(digest, algorithm))
