"""An independent check of a whole repository, after the original's ``check`` command.

Independent: it shares no code with what it checks, so it reads the formats on its
own. It reports and never stops at the first finding, and what it reports begins with
the path or document concerned.

Source: docs/reference/publisher-format.md, "Self-test list for an independent
publisher", and the MUST rules of the other sections.
"""

import hashlib
import re
import sqlite3
import stat
import struct
import tempfile
import zlib
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

DIRECTORY, NESTED_MOUNTPOINT, FILE, LINK, SPECIAL, NESTED_ROOT = 1, 2, 4, 8, 16, 32
CHUNKED, EXTERNAL, BIND, HIDDEN, DIRECT_IO = 64, 128, 0x4000, 0x8000, 0x10000

_SUFFIXES = ("", "-rmd160", "-shake128")
_SCOPED = (
    "regular", "symlink", "special", "dir", "nested", "chunked", "chunks",
    "file_size", "chunked_size", "xattr", "external", "external_file_size",
)  # fmt: skip
_TABLES = {
    "catalog",
    "chunks",
    "nested_catalogs",
    "bind_mountpoints",
    "properties",
    "statistics",
}
_HASH = re.compile(r"[0-9a-f]{40}(|-rmd160|-shake128)")
_COLUMNS = (
    "name, hash, hardlinks, size, mode, mtime, mtimens, flags, symlink, uid, gid,"
    " xattr, md5path_1, md5path_2, parent_1, parent_2"
)


class Entry(NamedTuple):
    """A row of the table ``catalog``."""

    name: bytes
    digest: bytes | None
    hardlinks: int
    size: int
    mode: int
    mtime: int
    mtimens: int | None
    flags: int
    symlink: bytes
    uid: int
    gid: int
    xattr: bytes | None
    md5path_1: int
    md5path_2: int
    parent_1: int
    parent_2: int

    @property
    def kind(self) -> str:
        """What it is, by the order in which readers test the flags."""
        if self.flags & LINK:
            return "symlink"
        if self.flags & SPECIAL:
            return "special"
        return "dir" if self.flags & DIRECTORY else "regular"

    @property
    def linkcount(self) -> int:
        return self.hardlinks & 0xFFFFFFFF

    @property
    def group(self) -> int:
        return self.hardlinks >> 32

    @property
    def suffix(self) -> str:
        return _SUFFIXES[self.flags >> 8 & 7]

    @property
    def is_compressed(self) -> bool:
        return not self.flags >> 11 & 7

    def text_hash(self, digest: bytes) -> str:
        return digest.hex() + self.suffix


def check_repository(
    directory: Path, master_key: bytes | None = None, *, recompress: bool = True
) -> list[str]:
    """Return everything that is wrong with a repository.

    Args:
        directory: What a web server serves of it.
        master_key: Public key in PEM form; without it the whitelist's signature goes
            unchecked.
        recompress: Whether to see that objects are compressed as the original does.
    """
    checker = _Checker(directory, recompress=recompress)
    manifest = checker.check_documents(master_key)
    if manifest:
        checker.check_history(manifest)
        checker.check_reflog(manifest)
        checker.check_tree(manifest)
    return checker.problems


def text_hash(data: bytes, suffix: str = "") -> str:
    """Hash stored bytes; the suffix names the algorithm."""
    if suffix == "-shake128":
        return hashlib.shake_128(data).hexdigest(20) + suffix
    name = "ripemd160" if suffix else "sha1"
    return hashlib.new(name, data).hexdigest() + suffix


def path_md5(path: bytes) -> tuple[int, int]:
    """Hash a path as catalogs do."""
    digest = hashlib.md5(path, usedforsecurity=False).digest()
    first, second = struct.unpack("<qq", digest)
    return first, second


class _Checker:
    def __init__(self, directory: Path, *, recompress: bool) -> None:
        self.problems: list[str] = []
        self._recompress = recompress
        self._directory = directory
        self._checked_objects: dict[str, int] = {}

    def report(self, where: object, problem: str) -> None:
        self.problems.append(f"{where}: {problem}")

    def expect(self, condition: object, where: object, problem: str) -> None:
        if not condition:
            self.report(where, problem)

    # Objects

    def object_bytes(self, text: str, letter: str, where: object) -> bytes | None:
        """Return an object as stored, its hash checked."""
        path = self._directory / "data" / text[:2] / (text[2:] + letter)
        if _HASH.fullmatch(text) is None or not path.is_file():
            self.report(where, f"object {text}{letter} is missing")
            return None
        stored = path.read_bytes()
        if text_hash(stored, text[40:]) != text:
            self.report(where, f"object {text}{letter} is not its hash")
            return None
        return stored

    def inflated(self, text: str, letter: str, where: object) -> bytes | None:
        """Return a compressed object's content, its stream checked."""
        stored = self.object_bytes(text, letter, where)
        if stored is None:
            return None
        inflater = zlib.decompressobj()
        data = inflater.decompress(stored)
        self.expect(
            inflater.eof and not inflater.unused_data,
            where,
            f"object {text}{letter} is no single zlib stream",
        )
        self.expect(
            not self._recompress or zlib.compress(data, 6) == stored,
            where,
            f"object {text}{letter} is not compressed as the original does",
        )
        return data

    def check_content(self, entry: Entry, text: str, letter: str, size: int) -> None:
        key = f"{text}{letter} {entry.is_compressed}"
        if key not in self._checked_objects:
            if entry.is_compressed:
                data = self.inflated(text, letter, entry.name)
            else:
                data = self.object_bytes(text, letter, entry.name)
            self._checked_objects[key] = -1 if data is None else len(data)
        found = self._checked_objects[key]
        self.expect(found in (-1, size), entry.name, f"{found} bytes and not {size}")

    # Documents

    def check_documents(self, master_key: bytes | None) -> dict[str, str]:
        for name in [f"data/{i:02x}" for i in range(256)]:
            self.expect((self._directory / name).is_dir(), name, "is missing")
        manifest = self._check_manifest()
        if manifest:
            certificate = self.inflated(manifest["X"], "X", "manifest")
            if certificate is not None:
                self._check_signature(certificate)
                self._check_whitelist(manifest["N"], certificate, master_key)
            if "M" in manifest:
                self.inflated(manifest["M"], "M", "manifest")
            if manifest.get("A") == "yes":
                for field, letter in (("C", "C"), ("X", "X")):
                    link = self._directory / f".cvmfsalt-{manifest[field]}{letter}"
                    self.expect(link.exists(), link.name, "is missing")
        return manifest

    def _letter(self, name: str) -> tuple[list[str], bytes, bytes]:
        """Return lines, hash text and signature of a signed letter."""
        blob = (self._directory / name).read_bytes()
        letter, _, rest = blob.partition(b"\n--\n")
        hash_text, _, signature = rest.partition(b"\n")
        expected = text_hash(letter + b"\n", hash_text[40:].decode())
        self.expect(hash_text == expected.encode(), name, "hash line is wrong")
        self.expect(b"\r" not in letter and b"\n\n" not in letter, name, "odd lines")
        return letter.decode().split("\n"), hash_text, signature

    def _check_manifest(self) -> dict[str, str]:
        lines, _, _ = self._letter(".cvmfspublished")
        fields = {line[0]: line[1:] for line in lines}
        missing = set("CBRDSNXT") - set(fields)
        if missing:
            self.report("manifest", f"lacks {sorted(missing)}")
            return {}
        for letter in "BDST":
            self.expect(
                fields[letter].isdecimal(), "manifest", f"{letter} is no number"
            )
        for letter in "CXHMY":
            if letter in fields:
                is_hash = _HASH.fullmatch(fields[letter])
                self.expect(is_hash, "manifest", f"{letter} is no hash")
        root = "d41d8cd98f00b204e9800998ecf8427e"  # MD5 of nothing
        self.expect(fields["R"] == root, "manifest", "R is not the root")
        return fields

    def _check_signature(self, certificate: bytes) -> None:
        _, hash_text, signature = self._letter(".cvmfspublished")
        key = x509.load_pem_x509_certificate(certificate).public_key()
        if not isinstance(key, rsa.RSAPublicKey):
            self.report("certificate", "is not RSA")
            return
        try:
            sha1 = hashes.SHA1()  # noqa: S303 -- the format chose it
            key.verify(signature, hash_text, padding.PKCS1v15(), sha1)
        except InvalidSignature:
            self.report("manifest", "was not signed by the certificate")

    def _check_whitelist(
        self, fqrn: str, certificate: bytes, master_key: bytes | None
    ) -> None:
        lines, hash_text, signature = self._letter(".cvmfswhitelist")
        self.expect(re.fullmatch(r"\d{14}", lines[0]), "whitelist", "line 1")
        self.expect(re.fullmatch(r"E\d{14}", lines[1]), "whitelist", "line 2")
        self.expect(lines[2] == f"N{fqrn}", "whitelist", "line 3")
        der = x509.load_pem_x509_certificate(certificate).public_bytes(
            serialization.Encoding.DER
        )
        listed = {re.split("[ \t#]", line)[0] for line in lines[3:]}
        prints = {text_hash(der, suffix).upper() for suffix in _SUFFIXES}
        self.expect(
            prints & {line.replace(":", "") for line in listed},
            "whitelist",
            "does not list the certificate",
        )
        if master_key is not None:
            key = serialization.load_pem_public_key(master_key)
            self.expect(
                isinstance(key, rsa.RSAPublicKey)
                and _opened(signature, key) == _raw_block(hash_text, key),
                "whitelist",
                "was not signed by the master key",
            )

    # Databases

    def _database(self, data: bytes, where: object) -> sqlite3.Connection:
        self.expect(data[18:20] == b"\1\1", where, "the journal mode is WAL")
        with tempfile.NamedTemporaryFile() as scratch:
            scratch.write(data)
            scratch.flush()
            connection = sqlite3.connect(":memory:")
            source = sqlite3.connect(f"file:{scratch.name}?immutable=1", uri=True)
            try:
                source.backup(connection)
            finally:
                source.close()
        connection.text_factory = bytes
        found = connection.execute("PRAGMA integrity_check").fetchall()
        self.expect(found == [(b"ok",)], where, f"integrity check: {found}")
        return connection

    def check_history(self, manifest: dict[str, str]) -> None:
        if "H" not in manifest:
            return
        data = self.inflated(manifest["H"], "H", "tag database")
        if data is None:
            return
        database = self._database(data, "tag database")
        try:
            properties = _table(database, "SELECT key, value FROM properties")
            tags = database.execute(
                "SELECT name, hash, revision, branch, size FROM tags"
            ).fetchall()
            branches = _table(database, "SELECT branch, initial_revision FROM branches")
            database.execute("SELECT hash, flags FROM recycle_bin").fetchall()
        finally:
            database.close()
        where = "tag database"
        self.expect(properties.get(b"schema") == b"1.0", where, "schema")
        self.expect(properties.get(b"schema_revision") == b"3", where, "revision")
        self.expect(properties.get(b"fqrn") == manifest["N"].encode(), where, "fqrn")
        self.expect(b"" in branches, where, "has no default branch")
        used = {branch for _, _, _, branch, _ in tags}
        self.expect(used == set(branches), where, "unused or unknown branches")
        for name, content_hash, revision, branch, size in tags:
            self.expect(
                re.fullmatch(rb"[A-Za-z0-9._/:-]+", name), name, "is no tag name"
            )
            self.expect(revision >= branches.get(branch, 0), name, "revision")
            catalog = self.inflated(content_hash.decode(), "C", name)
            self.expect(catalog is None or size == len(catalog), name, "size")

    def check_reflog(self, manifest: dict[str, str]) -> None:
        path = self._directory / ".cvmfsreflog"
        if not path.exists():
            self.expect("Y" not in manifest, "manifest", "Y without a reflog")
            return
        data = path.read_bytes()
        expected = manifest.get("Y", "")
        self.expect(text_hash(data, expected[40:]) == expected, "manifest", "Y")
        database = self._database(data, "reflog")
        try:
            references = _table(database, "SELECT hash, type FROM refs")
            properties = _table(database, "SELECT key, value FROM properties")
        finally:
            database.close()
        self.expect(properties.get(b"fqrn") == manifest["N"].encode(), "reflog", "fqrn")
        for type_, letter in enumerate("CXHM"):
            if letter in manifest:
                found = references.get(manifest[letter].encode())
                self.expect(found == type_, "reflog", f"does not list {letter}")

    # Catalogs

    def check_tree(self, manifest: dict[str, str]) -> None:
        root = self._check_catalog(
            b"", manifest["C"], int(manifest["B"]), transition_point=None
        )
        if root is not None:
            properties = root.properties
            self.expect(
                properties[b"revision"] == manifest["S"].encode(), "/", "revision"
            )
            self.expect(
                int(properties[b"last_modified"]) <= int(manifest["T"]), "/", "too new"
            )
            self.expect(
                int(properties.get(b"TTL", manifest["D"])) == int(manifest["D"]),
                "/",
                "TTL",
            )

    def _check_catalog(
        self, mountpoint: bytes, text: str, size: int, transition_point: Entry | None
    ) -> "_CatalogReport | None":
        where = mountpoint or b"/"
        data = self.inflated(text, "C", where)
        if data is None:
            return None
        self.expect(size in (0, len(data)), where, f"catalog has {len(data)} bytes")
        database = self._database(data, where)
        try:
            catalog = _CatalogReport(self, database, mountpoint)
            catalog.check(transition_point)
        finally:
            database.close()
        below: Counter[str] = Counter()
        for path, content_hash, nested_size in catalog.nested:
            child = self._check_catalog(
                path, content_hash, nested_size, catalog.find(path)
            )
            if child is not None:
                below.update({name: child.own[name] for name in _SCOPED})
                below.update({name: child.subtree[name] for name in _SCOPED})
        catalog.subtree = below
        catalog.check_counters()
        return catalog


class _CatalogReport:
    """One catalog, read completely."""

    def __init__(
        self, checker: _Checker, database: sqlite3.Connection, mountpoint: bytes
    ) -> None:
        self._checker = checker
        self._mountpoint = mountpoint
        self.where = mountpoint or b"/"
        self.own: Counter[str] = Counter()
        self.subtree: Counter[str] = Counter()
        tables = _table(database, "SELECT name, type FROM sqlite_master")
        missing = {name.encode() for name in _TABLES} - set(tables)
        checker.expect(not missing, self.where, f"lacks tables {missing}")
        self.properties = _table(database, "SELECT key, value FROM properties")
        self.statistics = _table(database, "SELECT counter, value FROM statistics")
        self.nested = _references(database, "nested_catalogs")
        self.bound = _references(database, "bind_mountpoints")
        self._chunks: dict[tuple[int, int], list[tuple[int, int, bytes]]]
        self._chunks = defaultdict(list)
        for md5_1, md5_2, *chunk in database.execute(
            "SELECT md5path_1, md5path_2, offset, size, hash FROM chunks"
            " ORDER BY offset"
        ):
            self._chunks[md5_1, md5_2].append(tuple(chunk))
        self._entries = {
            (entry.md5path_1, entry.md5path_2): entry
            for entry in map(
                Entry._make,
                database.execute(f"SELECT {_COLUMNS} FROM catalog"),  # noqa: S608
            )
        }
        self._listings: dict[tuple[int, int], list[Entry]] = defaultdict(list)
        for entry in self._entries.values():
            self._listings[entry.parent_1, entry.parent_2].append(entry)

    def find(self, path: bytes) -> Entry | None:
        return self._entries.get(path_md5(path))

    def expect(self, condition: object, where: object, problem: str) -> None:
        self._checker.expect(condition, where, problem)

    def check(self, transition_point: Entry | None) -> None:
        self._check_properties()
        top = self.find(self._mountpoint)
        if top is None:
            self._checker.report(self.where, "has no entry for its top directory")
            return
        self._check_top(top, transition_point)
        found = 1
        self._count(top)
        pending = [(self._mountpoint, top)]
        while pending:
            path, directory = pending.pop()
            listing = self._listing(path)
            found += len(listing)
            self._check_listing(path, directory, listing)
            for entry in listing:
                below = path + b"/" + entry.name
                self._check_entry(below, entry)
                if entry.kind == "dir" and not entry.flags & (NESTED_MOUNTPOINT | BIND):
                    pending.append((below, entry))
        self.expect(found == len(self._entries), self.where, "has unreachable entries")
        mountpoints = sum(
            bool(entry.flags & NESTED_MOUNTPOINT) for entry in self._entries.values()
        )
        self.own["nested"] = len(self.nested)
        self.expect(mountpoints == len(self.nested), self.where, "nested catalogs")

    def check_counters(self) -> None:
        for scope, counters in (("self_", self.own), ("subtree_", self.subtree)):
            for name in _SCOPED:
                stored = self.statistics.get((scope + name).encode())
                self.expect(
                    stored == counters[name],
                    self.where,
                    f"counter {scope}{name} is {stored} and not {counters[name]}",
                )

    def _listing(self, path: bytes) -> list[Entry]:
        own = path_md5(path)
        return [
            entry
            for entry in self._listings[own]
            if (entry.md5path_1, entry.md5path_2) != own
        ]

    def _check_properties(self) -> None:
        properties = self.properties
        self.expect(properties.get(b"schema") == b"2.5", self.where, "schema")
        revision = int(properties.get(b"schema_revision", 0))
        self.expect(revision >= 6, self.where, f"schema revision {revision}")
        self.expect(
            properties.get(b"root_prefix", b"") == self._mountpoint,
            self.where,
            "root prefix",
        )
        for key in (b"revision", b"last_modified"):
            self.expect(properties.get(key, b"").isdigit(), self.where, f"{key!r}")
        previous = properties.get(b"previous_revision", b"0" * 40).decode()
        self.expect(_HASH.fullmatch(previous), self.where, "previous revision")

    def _check_top(self, top: Entry, transition_point: Entry | None) -> None:
        is_nested = bool(top.flags & NESTED_ROOT)
        self.expect(is_nested == bool(self._mountpoint), self.where, "nested root flag")
        if not self._mountpoint:
            self.expect(
                (top.parent_1, top.parent_2, top.name) == (0, 0, b""),
                self.where,
                "root entry",
            )
            return
        if transition_point is None:
            self._checker.report(self.where, "has no transition point")
            return
        mask = ~(NESTED_ROOT | NESTED_MOUNTPOINT)
        self.expect(
            transition_point._replace(flags=transition_point.flags & mask)
            == top._replace(flags=top.flags & mask),
            self.where,
            "transition point and top directory differ",
        )
        markers = [e for e in self._listing(self._mountpoint) if e.name == _MARKER]
        self.expect(markers, self.where, "nested catalog without marker")

    def _check_listing(
        self, path: bytes, directory: Entry, listing: list[Entry]
    ) -> None:
        where = path or b"/"
        subdirectories = sum(entry.kind == "dir" for entry in listing)
        self.expect(
            directory.hardlinks == subdirectories + 2,
            where,
            f"link count {directory.hardlinks}",
        )
        groups: dict[int, list[Entry]] = defaultdict(list)
        for entry in listing:
            if entry.kind != "dir" and entry.linkcount > 1:
                self.expect(entry.group, where, "links without a group")
                groups[entry.group].append(entry)
            if entry.name == _MARKER:
                self.expect(path == self._mountpoint != b"", where, "abandoned marker")
        for members in groups.values():
            self.expect(
                len(members) == members[0].linkcount
                and len(set(map(_link_identity, members))) == 1,
                where,
                "hard link group",
            )

    def _check_entry(self, path: bytes, entry: Entry) -> None:
        self.expect(
            (entry.md5path_1, entry.md5path_2) == path_md5(path), path, "path hash"
        )
        self.expect(entry.name and b"/" not in entry.name, path, "name")
        self.expect(entry.linkcount >= 1, path, "link count 0")
        self.expect(entry.xattr is None or entry.xattr, path, "empty xattr blob")
        self.expect(_kind_of(entry.mode) == entry.kind, path, "mode and flags disagree")
        self.expect(0 <= (entry.mtimens or 0) < 10**9, path, "nanoseconds")
        is_regular = entry.kind == "regular"
        self.expect(
            is_regular or not entry.flags & (EXTERNAL | DIRECT_IO | CHUNKED),
            path,
            "flags of a regular file",
        )
        self._count(entry)
        if is_regular:
            self._check_file(path, entry)
        elif entry.kind == "dir":
            self._check_directory(path, entry)
        else:
            self._check_other(path, entry)

    def _check_file(self, path: bytes, entry: Entry) -> None:
        self.expect(not entry.symlink, path, "a file with a target")
        if not entry.flags & CHUNKED:
            has_hash = entry.digest is not None and len(entry.digest) == 20
            self.expect(has_hash and any(entry.digest or b""), path, "no hash")
            if entry.digest and not entry.flags & EXTERNAL:
                text = entry.text_hash(entry.digest)
                self._checker.check_content(entry, text, "", entry.size)
            return
        at = 0
        for offset, size, digest in self._chunks[entry.md5path_1, entry.md5path_2]:
            self.expect(offset == at and size > 0, path, f"chunk at {offset}")
            at += size
            if not entry.flags & EXTERNAL:
                text = entry.text_hash(digest)
                self._checker.check_content(entry, text, "P", size)
        self.expect(at == entry.size and at, path, "chunks are incomplete")

    def _check_directory(self, path: bytes, entry: Entry) -> None:
        self.expect(not entry.digest, path, "directory with a hash")
        is_nested = bool(entry.flags & NESTED_MOUNTPOINT)
        is_bound = bool(entry.flags & BIND)
        self.expect(not (is_nested and is_bound), path, "nested and bound at once")
        registered = [ref[0] for ref in (self.bound if is_bound else self.nested)]
        if is_nested or is_bound:
            self.expect(registered.count(path) == 1, path, "is not registered")
            self.expect(not self._listing(path), path, "mountpoint is not empty")

    def _check_other(self, path: bytes, entry: Entry) -> None:
        self.expect(not entry.digest, path, "link or special file with a hash")
        if entry.kind == "symlink":
            self.expect(entry.size == len(entry.symlink), path, "size of a link")
            return
        self.expect(not entry.symlink, path, "special file with a target")
        is_device = stat.S_ISCHR(entry.mode) or stat.S_ISBLK(entry.mode)
        self.expect(is_device or entry.size == 0, path, "size of a special file")

    def _count(self, entry: Entry) -> None:
        own = self.own
        own[entry.kind] += 1
        own["xattr"] += entry.xattr is not None
        if entry.kind == "regular":
            own["file_size"] += entry.size
        if entry.flags & EXTERNAL:
            own["external"] += 1
            own["external_file_size"] += entry.size
        if entry.flags & CHUNKED:
            own["chunked"] += 1
            own["chunked_size"] += entry.size
            own["chunks"] += len(self._chunks[entry.md5path_1, entry.md5path_2])


_MARKER = b".cvmfscatalog"


def _table(database: sqlite3.Connection, select: str) -> dict[Any, Any]:
    return dict(database.execute(select))


def _references(
    database: sqlite3.Connection, table: str
) -> list[tuple[bytes, str, int]]:
    rows = database.execute(f"SELECT path, sha1, size FROM {table}")  # noqa: S608
    return [(path, text.decode(), size) for path, text, size in rows]


def _link_identity(entry: Entry) -> tuple[object, ...]:
    return entry[1:12]


def _kind_of(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "dir"
    if stat.S_ISLNK(mode):
        return "symlink"
    return "regular" if stat.S_ISREG(mode) else "special"


def _opened(signature: bytes, key: rsa.RSAPublicKey) -> bytes:
    numbers = key.public_numbers()
    number = pow(int.from_bytes(signature, "big"), numbers.e, numbers.n)
    return number.to_bytes(key.key_size // 8, "big")


def _raw_block(text: bytes, key: rsa.RSAPublicKey) -> bytes:
    filler = b"\xff" * (key.key_size // 8 - len(text) - 3)
    return b"\0\1" + filler + b"\0" + text
