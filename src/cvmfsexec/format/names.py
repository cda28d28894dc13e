"""Names and paths: repositories, paths inside them, and the hashes of those paths.

Paths inside a repository are ``bytes``: absolute, no trailing slash, and the
repository root is the empty string.

Source: docs/reference/repository-format.md, "Path hashing".
"""

import hashlib
import re
import struct
from typing import NamedTuple

from cvmfsexec.errors import ConfigurationError, FormatError

ROOT = b""

FQRN_LENGTH_MAX = 60  # the original's sanitiser cuts there
NAME_BYTES_MAX = 255  # NAME_MAX of Linux

_FQRN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
_HALVES = struct.Struct("<qq")


class PathHash(NamedTuple):
    """MD5 of a path as a catalog stores it: two little-endian signed halves."""

    md5_1: int
    md5_2: int


NO_PARENT = PathHash(0, 0)
"""What the repository root's entry has for a parent."""


def path_hash(path: bytes) -> PathHash:
    """Hash an absolute path inside a repository; the root is ``b""``."""
    digest = hashlib.md5(path, usedforsecurity=False).digest()
    return PathHash(*_HALVES.unpack(digest))


def parent_path(path: bytes) -> bytes:
    """Return the directory that a path lies in; the root's is the root."""
    return path.rpartition(b"/")[0]


def base_name(path: bytes) -> bytes:
    """Return the last component; empty for the root."""
    return path.rpartition(b"/")[2]


def is_below(path: bytes, directory: bytes) -> bool:
    """Whether ``path`` equals ``directory`` or lies below it, by whole components."""
    return path == directory or path.startswith(directory + b"/")


def normalize_path(path: bytes) -> bytes:
    """Return the form that catalogs use of a path typed by a person.

    Raises:
        ConfigurationError: A component is ``..``, or a NUL is in it.
    """
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    if b".." in parts or b"\0" in path:
        raise ConfigurationError(f"not a path inside a repository: {path!r}")
    return b"".join(b"/" + part for part in parts)


def check_entry_name(name: bytes) -> None:
    """Refuse a name that a catalog must not give to an entry below a directory.

    Raises:
        FormatError: Empty, ``.``, ``..``, longer than 255 bytes, or holding ``/`` or
            NUL: it would leave its directory when copied to a real file system.
    """
    if (
        not name
        or b"/" in name
        or b"\0" in name
        or name in (b".", b"..")
        or len(name) > NAME_BYTES_MAX
    ):
        raise FormatError(f"forbidden entry name {name[:80]!r}")


def check_fqrn(fqrn: str) -> str:
    """Return a repository name that is safe to build file names from.

    Raises:
        ConfigurationError: Other characters than letters, digits, ``.``, ``-``,
            ``_``; a leading dot; ``..``; or longer than 60 characters.
    """
    if (
        len(fqrn) > FQRN_LENGTH_MAX
        or ".." in fqrn
        or _FQRN.fullmatch(fqrn) is None
        or fqrn.startswith("-")
    ):
        raise ConfigurationError(
            f"{fqrn[:80]!r} is not a repository name",
            hint="a name looks like atlas.cern.ch",
        )
    return fqrn


def domain_of(fqrn: str) -> str:
    """Return the repository name without its first label; empty without a dot."""
    return fqrn.partition(".")[2]
