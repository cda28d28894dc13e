"""Content hashes: the names of immutable objects.

An object is named by the hash of its *stored* (usually compressed) bytes, written
as 40 hexadecimal digits and a suffix for every algorithm but SHA-1. The letter that
tells the kind of object comes last in a path and is never part of the text form.

Source: docs/reference/repository-format.md, "Hashes".
"""

import hashlib
import re
from enum import Enum, IntEnum
from typing import NamedTuple, Protocol

from cvmfsexec.errors import FormatError

DIGEST_BYTES = 20

_TEXT = re.compile(r"([0-9a-f]{40})(|-rmd160|-shake128)")


class HashAlgorithm(IntEnum):
    """Hash algorithms for content; the value is that of the entry flag bits 8-10."""

    SHA1 = 0
    RMD160 = 1
    SHAKE128 = 2

    @property
    def suffix(self) -> str:
        """Text after the hexadecimal digits; empty for SHA-1."""
        return _SUFFIXES[self]


class ObjectKind(Enum):
    """What an object holds; the value is the last letter of its path."""

    FILE = ""
    CATALOG = "C"
    HISTORY = "H"
    CERTIFICATE = "X"
    METAINFO = "M"
    CHUNK = "P"


_SUFFIXES = ("", "-rmd160", "-shake128")
_BY_SUFFIX = {suffix: HashAlgorithm(i) for i, suffix in enumerate(_SUFFIXES)}


class Hasher(Protocol):
    """A running hash over stored bytes."""

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        """Add bytes."""

    def content_hash(self) -> "ContentHash":
        """Return the hash of all bytes added so far."""


class ContentHash(NamedTuple):
    """Name of an immutable object.

    Attributes:
        digest: 20 raw bytes.
        algorithm: How the digest was computed.
    """

    digest: bytes
    algorithm: HashAlgorithm = HashAlgorithm.SHA1

    @classmethod
    def parse(cls, text: str) -> "ContentHash":
        """Read the text form.

        Raises:
            FormatError: Not 40 lower-case hexadecimal digits and a known suffix.
        """
        match = _TEXT.fullmatch(text)
        if match is None:
            raise FormatError(f"not a content hash: {text[:80]!r}")
        return cls(bytes.fromhex(match[1]), _BY_SUFFIX[match[2]])

    @classmethod
    def of(
        cls, stored: bytes, algorithm: HashAlgorithm = HashAlgorithm.SHA1
    ) -> "ContentHash":
        """Hash stored bytes."""
        hasher = new_hasher(algorithm)
        hasher.update(stored)
        return hasher.content_hash()

    @property
    def is_null(self) -> bool:
        """Whether this is the all-zero hash, which names no object."""
        return not any(self.digest)

    def __str__(self) -> str:
        """Return the text form, without the letter of the kind."""
        return self.digest.hex() + _SUFFIXES[self.algorithm]

    def object_path(self, kind: ObjectKind) -> str:
        """Return the path below a repository's base URL, e.g. ``data/4f/6f1a…C``."""
        text = self.digest.hex()
        return f"data/{text[:2]}/{text[2:]}{_SUFFIXES[self.algorithm]}{kind.value}"

    def alternative_path(self, kind: ObjectKind) -> str:
        """Return the path beside the manifest that replaces ``object_path`` for some.

        Which ones, the manifest says in field A.
        """
        return f".cvmfsalt-{self}{kind.value}"

    def cache_path(self) -> str:
        """Return the path below a cache directory, ``<2 hex>/<rest>[suffix]``."""
        text = self.digest.hex()
        return f"{text[:2]}/{text[2:]}{_SUFFIXES[self.algorithm]}"


class _RunningHash(Protocol):
    """The part of ``hashlib``'s objects that is needed here."""

    def update(self, data: bytes | bytearray | memoryview, /) -> None: ...

    def digest(self) -> bytes: ...


class _FixedHasher:
    """SHA-1 and RIPEMD-160: digests that are 160 bits by nature."""

    def __init__(self, algorithm: HashAlgorithm, running: _RunningHash) -> None:
        self._hash = running
        self._algorithm = algorithm
        self.update = running.update

    def content_hash(self) -> ContentHash:
        return ContentHash(self._hash.digest(), self._algorithm)


class _ShakeHasher:
    """SHAKE128, cut to 160 bits."""

    def __init__(self) -> None:
        self._hash = hashlib.shake_128(usedforsecurity=False)
        self.update = self._hash.update

    def content_hash(self) -> ContentHash:
        return ContentHash(self._hash.digest(DIGEST_BYTES), HashAlgorithm.SHAKE128)


def new_hasher(algorithm: HashAlgorithm) -> Hasher:
    """Return a running hash for one object."""
    # usedforsecurity=False: FIPS policies refuse the hashes this format chose.
    if algorithm is HashAlgorithm.SHA1:
        return _FixedHasher(algorithm, hashlib.sha1(usedforsecurity=False))
    if algorithm is HashAlgorithm.SHAKE128:
        return _ShakeHasher()
    return _FixedHasher(algorithm, _new_rmd160())


def _new_rmd160() -> _RunningHash:
    try:
        return hashlib.new("ripemd160", usedforsecurity=False)
    except ValueError:
        # OpenSSL 3.0.0-3.0.6 keep it in the legacy provider, which may be absent.
        from cvmfsexec.format.ripemd160 import Ripemd160

        return Ripemd160()
