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
import tempfile
import zlib
from collections import Counter
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tests.support.check_catalog import (
    COUNTERS,
    SUFFIXES,
    TABLES,
    CatalogCheck,
    Entry,
    table,
)

_HASH = re.compile(r"[0-9a-f]{40}(|-rmd160|-shake128)")


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
        prints = {text_hash(der, suffix).upper() for suffix in SUFFIXES}
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
            properties = table(database, "SELECT key, value FROM properties")
            tags = database.execute(
                "SELECT name, hash, revision, branch, size FROM tags"
            ).fetchall()
            branches = table(database, "SELECT branch, initial_revision FROM branches")
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
            references = table(database, "SELECT hash, type FROM refs")
            properties = table(database, "SELECT key, value FROM properties")
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
                properties.get(b"TTL") == manifest["D"].encode(),
                "/",
                "TTL",
            )

    def _check_catalog(
        self, mountpoint: bytes, text: str, size: int, transition_point: Entry | None
    ) -> "CatalogCheck | None":
        where = mountpoint or b"/"
        data = self.inflated(text, "C", where)
        if data is None:
            return None
        self.expect(size in (0, len(data)), where, f"catalog has {len(data)} bytes")
        database = self._database(data, where)
        try:
            missing = TABLES - set(
                table(database, "SELECT name, type FROM sqlite_master")
            )
            if missing:
                self.report(where, f"lacks tables {sorted(missing)}")
                return None
            catalog = CatalogCheck(self, database, mountpoint)
            catalog.check(transition_point)
        finally:
            database.close()
        below: Counter[str] = Counter()
        for path, content_hash, nested_size in catalog.nested:
            child = self._check_catalog(
                path, content_hash, nested_size, catalog.find(path)
            )
            if child is not None:
                below.update({name: child.own[name] for name in COUNTERS})
                below.update({name: child.subtree[name] for name in COUNTERS})
        catalog.subtree = below
        catalog.check_counters()
        return catalog


def _opened(signature: bytes, key: rsa.RSAPublicKey) -> bytes:
    numbers = key.public_numbers()
    number = pow(int.from_bytes(signature, "big"), numbers.e, numbers.n)
    return number.to_bytes(key.key_size // 8, "big")


def _raw_block(text: bytes, key: rsa.RSAPublicKey) -> bytes:
    filler = b"\xff" * (key.key_size // 8 - len(text) - 3)
    return b"\0\1" + filler + b"\0" + text
