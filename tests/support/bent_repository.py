"""A published repository that is changed afterwards, and signed again.

It is what a careless or hostile publisher can make, or somebody who has stolen the
keys: all hashes and signatures are right unless a test says otherwise, and only the
reader's own checks are left.

::

    bent = BentRepository(published, tmp_path / "bent")
    bent.execute("UPDATE catalog SET name = '..' WHERE name = 'hello'")
    with serve(bent.output) as base_url: ...
"""

import shutil
import sqlite3
import zlib
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from cvmfsexec.format.digest import ContentHash, ObjectKind
from cvmfsexec.format.envelope import parse_letter
from cvmfsexec.format.manifest import Manifest
from cvmfsexec.format.names import ROOT, is_below, path_hash
from cvmfsexec.format.whitelist import Whitelist
from cvmfsexec.trust.signature import sign_manifest_letter, sign_whitelist_letter
from tests.support.published import PublishedRepository

MANIFEST = ".cvmfspublished"
WHITELIST = ".cvmfswhitelist"

Change = Callable[[bytes], bytes]


class BentRepository:
    """A copy of a repository.

    Attributes:
        output: What is to be served; holds a directory named ``fqrn``.
        directory: The repository itself.
    """

    def __init__(self, published: PublishedRepository, output: Path) -> None:
        self.fqrn = published.fqrn
        self.output = output
        self.directory = output / published.fqrn
        self._keys = published.keys_directory
        self._scratch = output / "catalog"
        shutil.copytree(published.directory, self.directory, symlinks=True)

    # Signed documents

    @property
    def manifest(self) -> Manifest:
        """The manifest as it stands."""
        return Manifest.parse(parse_letter(self._read(MANIFEST)).letter)

    @property
    def whitelist(self) -> Whitelist:
        """The whitelist as it stands."""
        return Whitelist.parse(parse_letter(self._read(WHITELIST)).letter)

    def sign_manifest(self, *, key: bytes | None = None, **fields: Any) -> None:  # noqa: ANN401
        """Change fields of the manifest, and sign it (with the publisher's key)."""
        manifest = self.manifest._replace(**fields)
        algorithm = manifest.root_catalog.algorithm
        private = key or self._key("key")
        self.write(MANIFEST, sign_manifest_letter(manifest, algorithm, private))

    def sign_whitelist(self, *, key: bytes | None = None, **fields: Any) -> None:  # noqa: ANN401
        """Change lines of the whitelist, and sign it (with the master key)."""
        whitelist = self.whitelist._replace(**fields)
        algorithm = self.manifest.root_catalog.algorithm
        private = key or self._key("masterkey")
        self.write(WHITELIST, sign_whitelist_letter(whitelist, algorithm, private))

    # Files

    def write(self, name: str, content: bytes) -> None:
        """Replace a file of the repository."""
        (self.directory / name).write_bytes(content)

    def change(self, name: str, change: Change) -> None:
        """Replace a file of the repository by what is made of it."""
        self.write(name, change(self._read(name)))

    # Objects

    def put(
        self, content: bytes, kind: ObjectKind, *, is_compressed: bool = True
    ) -> ContentHash:
        """Store an object and return its name."""
        stored = zlib.compress(content) if is_compressed else content
        return self.put_stored(stored, kind)

    def put_stored(self, stored: bytes, kind: ObjectKind) -> ContentHash:
        """Store bytes as an object, whatever they are, and return its name."""
        content_hash = ContentHash.of(stored, self.manifest.root_catalog.algorithm)
        self.write(content_hash.object_path(kind), stored)
        return content_hash

    def path_of(self, path: bytes) -> str:
        """Return the file, in the repository, of the object of an unchunked file."""
        digest, flags = self._row(path, "hash, flags")
        assert isinstance(digest, bytes)
        assert not int(flags) & 0x40
        return ContentHash(digest).object_path(ObjectKind.FILE)

    def chunk_paths(self, path: bytes) -> list[str]:
        """Return the files of the chunks of a file, in order."""
        with closing(self._opened(self._catalog_above(path))) as database:
            rows = database.execute(
                "SELECT hash FROM chunks WHERE md5path_1 = ? AND md5path_2 = ?"
                " ORDER BY offset",
                path_hash(path),
            ).fetchall()
        assert rows
        return [ContentHash(row[0]).object_path(ObjectKind.CHUNK) for row in rows]

    # Catalogs

    def catalog(self, mountpoint: bytes = ROOT) -> ContentHash:
        """Return the hash of the catalog at a mountpoint."""
        content_hash = self.manifest.root_catalog
        place = ROOT
        while place != mountpoint:
            place, content_hash = next(
                (path, nested)
                for path, nested in self._nested(content_hash).items()
                if is_below(mountpoint, path)
            )
        return content_hash

    def catalog_path(self, mountpoint: bytes = ROOT) -> str:
        """Return the file of the catalog at a mountpoint."""
        return self.catalog(mountpoint).object_path(ObjectKind.CATALOG)

    def execute(self, sql: str, parameters: Mapping[str, object] | None = None) -> None:
        """Run a statement on the root catalog, and sign what comes out."""
        self.edit(lambda database: database.execute(sql, parameters or {}))

    def edit(
        self,
        edit: Callable[[sqlite3.Connection], object],
        mountpoint: bytes = ROOT,
    ) -> None:
        """Change the catalog at a mountpoint, those above it, and sign."""
        self._scratch.write_bytes(self._content(self.catalog(mountpoint)))
        with closing(sqlite3.connect(self._scratch)) as database:
            with database:
                edit(database)
            database.execute("VACUUM")
        self.replace_catalog(self._scratch.read_bytes(), mountpoint)

    def replace_catalog(
        self,
        content: bytes,
        mountpoint: bytes = ROOT,
        *,
        size: int | None = None,
        stored: bytes | None = None,
    ) -> None:
        """Put other bytes in the place of a catalog, and sign.

        Args:
            content: The new catalog.
            mountpoint: Which one is replaced.
            size: What is announced, if not the size of ``content``.
            stored: What is stored, if not the compressed ``content``.
        """
        old = self.catalog(mountpoint)
        if stored is None:
            stored = zlib.compress(content)
        new = self.put_stored(stored, ObjectKind.CATALOG)
        announced = len(content) if size is None else size
        if mountpoint == ROOT:
            self.sign_manifest(root_catalog=new, root_catalog_size=announced)
            return
        above = self._holder_of(mountpoint)

        def refer(database: sqlite3.Connection) -> None:
            database.execute(
                "UPDATE nested_catalogs SET sha1 = ?, size = ? WHERE sha1 = ?",
                (str(new), announced, str(old)),
            )

        self.edit(refer, above)

    def _holder_of(self, mountpoint: bytes) -> bytes:
        """Return the mountpoint of the catalog that refers to this one."""
        place, content_hash = ROOT, self.manifest.root_catalog
        while mountpoint not in self._nested(content_hash):
            place, content_hash = next(
                (path, nested)
                for path, nested in self._nested(content_hash).items()
                if is_below(mountpoint, path)
            )
        return place

    def _catalog_above(self, path: bytes) -> ContentHash:
        """Return the catalog that has the entry of a path."""
        content_hash = self.manifest.root_catalog
        while True:
            for place, nested in self._nested(content_hash).items():
                if place != path and is_below(path, place):
                    content_hash = nested
                    break
            else:
                return content_hash

    def _row(self, path: bytes, columns: str) -> tuple[Any, ...]:
        with closing(self._opened(self._catalog_above(path))) as database:
            row: tuple[Any, ...] | None = database.execute(
                f"SELECT {columns} FROM catalog"  # noqa: S608
                " WHERE md5path_1 = ? AND md5path_2 = ?",
                path_hash(path),
            ).fetchone()
        assert row is not None, path
        return row

    def _nested(self, content_hash: ContentHash) -> dict[bytes, ContentHash]:
        with closing(self._opened(content_hash)) as database:
            rows = database.execute("SELECT path, sha1 FROM nested_catalogs").fetchall()
        return {path.encode(): ContentHash.parse(text) for path, text in rows}

    def _opened(self, content_hash: ContentHash) -> sqlite3.Connection:
        database = sqlite3.connect(":memory:")
        database.deserialize(self._content(content_hash))
        return database

    def _content(self, content_hash: ContentHash) -> bytes:
        return zlib.decompress(self._read(content_hash.object_path(ObjectKind.CATALOG)))

    def _read(self, name: str) -> bytes:
        return (self.directory / name).read_bytes()

    def _key(self, suffix: str) -> bytes:
        return (self._keys / f"{self.fqrn}.{suffix}").read_bytes()
