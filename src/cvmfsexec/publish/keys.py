"""The keys of a publisher, as files beside, never in, what is served.

======================  ==================================================
``<fqrn>.masterkey``    signs whitelists; needed every few weeks only, and may be
                        kept elsewhere in between
``<fqrn>.pub``          its public half, for clients
``<fqrn>.key``          signs manifests
``<fqrn>.crt``          certificate with its public half
======================  ==================================================

Source: docs/reference/publisher-format.md, "Keys and certificate", "Whitelist".
"""

import os
from pathlib import Path
from typing import NamedTuple

from cvmfsexec.errors import FormatError, PublishError, TrustError
from cvmfsexec.format.digest import HashAlgorithm
from cvmfsexec.format.whitelist import Whitelist, format_time
from cvmfsexec.trust.chain import TrustSettings, check_whitelist
from cvmfsexec.trust.signature import (
    fingerprint_of,
    generate_certificate,
    generate_key_pair,
    sign_whitelist_letter,
)

_DAY_S = 24 * 3600
WHITELIST_VALID_S = 30 * _DAY_S  # as the original's
_RENEW_BEFORE_S = 15 * _DAY_S


class PublisherKeys(NamedTuple):
    """Keys in PEM form.

    Attributes:
        master_private: None if it is kept elsewhere.
        master_public: What clients configure.
        private: Of the publisher.
        certificate: Of the publisher.
    """

    master_private: bytes | None
    master_public: bytes
    private: bytes
    certificate: bytes


def create_keys(directory: Path, fqrn: str, now_s: int) -> None:
    """Make the keys of a new repository; those that are there already are kept.

    Raises:
        PublishError: The directory cannot be written, or half a pair is there.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if _is_pair_missing(directory, f"{fqrn}.masterkey", f"{fqrn}.pub"):
            private, public = generate_key_pair()
            _write_key(directory / f"{fqrn}.masterkey", private, mode=0o600)
            _write_key(directory / f"{fqrn}.pub", public, mode=0o644)
        if _is_pair_missing(directory, f"{fqrn}.key", f"{fqrn}.crt"):
            private, _ = generate_key_pair()
            certificate = generate_certificate(fqrn, private, now_s)
            _write_key(directory / f"{fqrn}.key", private, mode=0o600)
            _write_key(directory / f"{fqrn}.crt", certificate, mode=0o644)
    except OSError as error:
        raise PublishError(
            f"cannot write keys to {str(directory)!r}: {error.strerror}"
        ) from error


def load_keys(directory: Path, fqrn: str) -> PublisherKeys:
    """Read the keys of a repository.

    Raises:
        PublishError: One that is always needed is not there.
    """
    return PublisherKeys(
        master_private=_read(directory / f"{fqrn}.masterkey"),
        master_public=_read_needed(directory / f"{fqrn}.pub"),
        private=_read_needed(directory / f"{fqrn}.key"),
        certificate=_read_needed(directory / f"{fqrn}.crt"),
    )


def renewed_whitelist(
    current: bytes | None,
    keys: PublisherKeys,
    fqrn: str,
    algorithm: HashAlgorithm,
    now_s: int,
) -> bytes | None:
    """Return a new whitelist, or None if the present one will do for two weeks.

    Raises:
        PublishError: A new one is needed now, and the master key is not here.
    """
    if current is not None and _is_accepted(
        current, keys, fqrn, now_s + _RENEW_BEFORE_S
    ):
        return None
    if keys.master_private is None:
        if current is not None and _is_accepted(current, keys, fqrn, now_s):
            return None
        raise PublishError(
            f"the whitelist of {fqrn} must be renewed, and its master key is not here",
            hint=f"put {fqrn}.masterkey into the keys directory for one publication",
        )
    whitelist = Whitelist(
        created_at=format_time(now_s),
        expires_at=format_time(now_s + WHITELIST_VALID_S),
        fqrn=fqrn,
        fingerprints=(fingerprint_of(keys.certificate, algorithm),),
    )
    return sign_whitelist_letter(whitelist, algorithm, keys.master_private)


def _is_accepted(whitelist: bytes, keys: PublisherKeys, fqrn: str, at_s: int) -> bool:
    settings = TrustSettings(fqrn, (keys.master_public,))
    try:
        check_whitelist(whitelist, settings, keys.certificate, at_s)
    except (FormatError, TrustError):
        return False
    return True


def _is_pair_missing(directory: Path, first: str, second: str) -> bool:
    found = [name for name in (first, second) if (directory / name).exists()]
    if len(found) == 1:
        raise PublishError(
            f"{str(directory)!r} holds {found[0]} without its other half",
            hint="restore the missing file, or move this one away",
        )
    return not found


def _write_key(path: Path, content: bytes, *, mode: int) -> None:
    """Write a file that is there whole or not at all, and never readable by others."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(fd, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    aside.rename(path)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise PublishError(
            f"cannot read the key {str(path)!r}: {error.strerror}"
        ) from error


def _read_needed(path: Path) -> bytes:
    content = _read(path)
    if content is None:
        raise PublishError(
            f"there is no key {str(path)!r}",
            hint="--keys names the directory with the repository's keys",
        )
    return content
