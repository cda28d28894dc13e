"""The manifest, ``.cvmfspublished``: which revision of a repository is current.

Lines of one letter and a value, in any order; unknown letters are ignored, and a
later line overrides an earlier one. This module reads and writes the text only: see
``trust.chain`` for why a manifest is believed.

Source: docs/reference/repository-format.md, "Manifest".
"""

import re
from typing import NamedTuple

from cvmfsexec.errors import FormatError, IncompleteManifestError
from cvmfsexec.format.digest import ContentHash, ObjectKind

MANIFEST_BYTES_MAX = 64 * 1024  # real ones have 700 bytes
ROOT_PATH_MD5 = "d41d8cd98f00b204e9800998ecf8427e"
"""What field R always is: the hash of the repository root's path, ``b""``."""

_REQUIRED = "CRDS"
_NUMBER = re.compile(r"[0-9]{1,20}")
_NUMBER_MAX = 2**64 - 1
_MD5 = re.compile(r"[0-9a-f]{32}")


class Manifest(NamedTuple):
    """The fields of a manifest; the letter of each is in parentheses.

    Attributes:
        root_catalog: Hash of the root catalog (C).
        root_catalog_size: Uncompressed size of it in bytes (B); 0 means not stated.
        revision: Counts publications (S).
        ttl_s: How long a client may go without asking again (D).
        root_path_md5: MD5 of the root path (R), 32 hexadecimal digits.
        fqrn: The repository that this manifest speaks for (N); empty if not stated.
        certificate: Certificate that signs the manifest (X).
        history: Database of tags (H).
        published_at_s: When it was published (T), Unix time; 0 if not stated.
        metainfo: JSON description of the repository (M).
        reflog: Hash of the file ``.cvmfsreflog`` (Y); for servers.
        is_garbage_collectable: Whether old revisions may vanish (G).
        has_alternative_path: Whether root catalog and certificate must be fetched
            from ``.cvmfsalt-…`` (A).
    """

    root_catalog: ContentHash
    root_catalog_size: int
    revision: int
    ttl_s: int
    root_path_md5: str
    fqrn: str
    certificate: ContentHash | None = None
    history: ContentHash | None = None
    published_at_s: int = 0
    metainfo: ContentHash | None = None
    reflog: ContentHash | None = None
    is_garbage_collectable: bool = False
    has_alternative_path: bool = False

    @classmethod
    def parse(cls, letter: bytes) -> "Manifest":
        """Read the text of a manifest, without separator and signature.

        Raises:
            IncompleteManifestError: C, R, D or S is missing.
            FormatError: A known field has a value that is none.
        """
        lines = letter.decode("latin-1").split("\n")
        fields = {line[0]: line[1:] for line in lines if line}
        missing = [field for field in _REQUIRED if field not in fields]
        if missing:
            raise IncompleteManifestError(f"the manifest lacks {', '.join(missing)}")
        return cls(
            root_catalog=_root_catalog(fields["C"]),
            root_catalog_size=_number(fields, "B"),
            revision=_number(fields, "S"),
            ttl_s=_number(fields, "D"),
            root_path_md5=_md5(fields["R"]),
            fqrn=_name(fields.get("N", "")),
            certificate=_hash(fields, "X"),
            history=_hash(fields, "H"),
            published_at_s=_number(fields, "T"),
            metainfo=_hash(fields, "M"),
            reflog=_hash(fields, "Y"),
            is_garbage_collectable=fields.get("G") == "yes",
            has_alternative_path=fields.get("A") == "yes",
        )

    def serialize(self) -> bytes:
        """Return the text in the original's order, without the separator."""
        fields: list[tuple[str, object]] = [
            ("C", self.root_catalog),
            ("B", self.root_catalog_size),
            ("R", self.root_path_md5),
            ("D", self.ttl_s),
            ("S", self.revision),
            ("G", "yes" if self.is_garbage_collectable else "no"),
            ("A", "yes" if self.has_alternative_path else "no"),
        ]
        optional: list[tuple[str, object]] = [
            ("N", self.fqrn),
            ("X", self.certificate),
            ("H", self.history),
            ("T", self.published_at_s),
            ("M", self.metainfo),
            ("Y", self.reflog),
        ]
        fields += [(letter, value) for letter, value in optional if value]
        return "".join(f"{letter}{value}\n" for letter, value in fields).encode()

    def object_path(self, content_hash: ContentHash, kind: ObjectKind) -> str:
        """Return where a root catalog or certificate lies below the base URL."""
        if self.has_alternative_path:
            return content_hash.alternative_path(kind)
        return content_hash.object_path(kind)


def _root_catalog(value: str) -> ContentHash:
    root_catalog = ContentHash.parse(value)
    if root_catalog.is_null:
        raise FormatError("the manifest names no root catalog")
    return root_catalog


def _hash(fields: dict[str, str], letter: str) -> ContentHash | None:
    value = fields.get(letter)
    if not value:
        return None
    content_hash = ContentHash.parse(value)
    return None if content_hash.is_null else content_hash


def _number(fields: dict[str, str], letter: str) -> int:
    value = fields.get(letter, "0")
    if _NUMBER.fullmatch(value) is None or int(value) > _NUMBER_MAX:
        raise FormatError(f"manifest field {letter} is no number: {value[:80]!r}")
    return int(value)


def _md5(value: str) -> str:
    if _MD5.fullmatch(value) is None:
        raise FormatError(f"manifest field R is no MD5: {value[:80]!r}")
    return value


def _name(value: str) -> str:
    if not value.isascii():
        raise FormatError(f"manifest field N is not ASCII: {value[:80]!r}")
    return value
