"""Master keys that a package brings, and the list of what a user accepts.

Whoever has one of these keys decides what is in a repository. So they are shown, and
can be pinned: hashes of keys, or of whole packages, that alone are accepted.
"""

import hashlib
import re
from typing import NamedTuple

from cvmfsexec.errors import ConfigurationError, UntrustedPackageError
from cvmfsexec.format.archive import ArchiveEntry, EntryKind

_PIN_BYTES_MAX = 1 << 20
_KEY_MARKS = (b"BEGIN PUBLIC KEY-----", b"BEGIN RSA PUBLIC KEY-----")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class TrustedKey(NamedTuple):
    """A public key in a package.

    Attributes:
        path: Below ``etc/cvmfs``.
        sha256: Of the file, as ``sha256sum`` prints it.
    """

    path: str
    sha256: str


def trusted_keys(entries: tuple[ArchiveEntry, ...]) -> tuple[TrustedKey, ...]:
    """Return the public keys among the files of a configuration."""
    return tuple(
        TrustedKey(
            entry.path.decode("utf-8", "replace"),
            hashlib.sha256(entry.content).hexdigest(),
        )
        for entry in entries
        if entry.kind is EntryKind.FILE and _is_key(entry)
    )


def read_pins(path: str) -> frozenset[str]:
    """Return the hashes in a file: the first word of each line; ``#`` for comments.

    Raises:
        ConfigurationError: It cannot be read, or has something else in it.
    """
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            text = stream.read(_PIN_BYTES_MAX)
    except OSError as error:
        raise ConfigurationError(
            f"cannot read the pins in {path}: {error.strerror}"
        ) from error
    pins = set()
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        pin = words[0].lower()
        if not _SHA256.fullmatch(pin):
            raise ConfigurationError(
                f"line {number} of {path} does not begin with a SHA-256",
                hint="write what sha256sum prints: 64 hexadecimal digits and a name",
            )
        pins.add(pin)
    return frozenset(pins)


def check_pins(
    name: str, sha256: str, keys: tuple[TrustedKey, ...], pins: frozenset[str]
) -> None:
    """Refuse a package that is not pinned itself and has a key that is not.

    Raises:
        UntrustedPackageError: It is so, or neither it nor any key is pinned.
    """
    if sha256 in pins:
        return
    for key in keys:
        if key.sha256 not in pins:
            raise UntrustedPackageError(
                f"{name} brings the key {key.path} with SHA-256 {key.sha256}, which is "
                "not pinned",
                hint="if it is the right one, add the hash to the file given by --pin",
            )
    if not keys:
        raise UntrustedPackageError(
            f"{name} with SHA-256 {sha256} is not pinned, and brings no key that is",
            hint="if it is the right one, add the hash to the file given by --pin",
        )


def _is_key(entry: ArchiveEntry) -> bool:
    return entry.path.endswith(b".pub") or any(
        mark in entry.content for mark in _KEY_MARKS
    )
