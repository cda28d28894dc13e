"""Manifest, whitelist and certificate of a repository, signed here, and bent at will.

Keys and signatures take a tenth of a second each, so both are made once per run. Keys
go by name: the same name is the same key.
"""

import functools
import zlib
from typing import NamedTuple

from cvmfsexec.format.digest import ContentHash, HashAlgorithm
from cvmfsexec.format.manifest import ROOT_PATH_MD5, Manifest
from cvmfsexec.format.whitelist import Whitelist, format_time
from cvmfsexec.trust.chain import TrustSettings
from cvmfsexec.trust.signature import (
    fingerprint_of,
    generate_certificate,
    generate_key_pair,
    sign_manifest_letter,
    sign_whitelist_letter,
)

FQRN = "repo.example.org"
NOW_S = 1_800_000_000
MONTH_S = 30 * 86400


@functools.cache
def private_key(name: str) -> bytes:
    """Return a private key in PEM form."""
    return _key_pair(name)[0]


@functools.cache
def public_key(name: str) -> bytes:
    """Return the public key that belongs to it, in PEM form."""
    return _key_pair(name)[1]


@functools.cache
def certificate(name: str) -> bytes:
    """Return a certificate for the key of this name, in PEM form."""
    return generate_certificate(FQRN, private_key(name), NOW_S)


@functools.cache
def _key_pair(name: str) -> tuple[bytes, bytes]:
    del name  # only tells keys apart
    return generate_key_pair()


def settings() -> TrustSettings:
    """Return what a client of the repository is configured with."""
    return TrustSettings(FQRN, (public_key("master"),))


class Documents(NamedTuple):
    """What a server offers; valid as it is, and bent with ``_replace``.

    Attributes:
        manifest: Signed with the key named ``publisher``.
        whitelist: Signed with the key named ``master``.
        certificate: Given out as the publisher's.
        algorithm: Hashes both letters.
    """

    manifest: Manifest
    whitelist: Whitelist
    certificate: bytes
    algorithm: HashAlgorithm = HashAlgorithm.SHA1

    @classmethod
    def valid(cls, algorithm: HashAlgorithm = HashAlgorithm.SHA1) -> "Documents":
        """Return documents that hold at ``NOW_S``; revision 7."""
        pem = certificate("publisher")
        manifest = Manifest(
            root_catalog=ContentHash.of(b"root catalog", algorithm),
            root_catalog_size=4096,
            revision=7,
            ttl_s=240,
            root_path_md5=ROOT_PATH_MD5,
            fqrn=FQRN,
            certificate=ContentHash.of(zlib.compress(pem), algorithm),
            published_at_s=NOW_S - 60,
        )
        whitelist = Whitelist(
            created_at=format_time(NOW_S),
            expires_at=format_time(NOW_S + MONTH_S),
            fqrn=FQRN,
            fingerprints=(fingerprint_of(pem, algorithm),),
        )
        return cls(manifest, whitelist, pem, algorithm)

    def manifest_blob(self, signer: str = "publisher") -> bytes:
        """Return ``.cvmfspublished``."""
        return _manifest_blob(self.manifest, self.algorithm, signer)

    def whitelist_blob(self, signer: str = "master") -> bytes:
        """Return ``.cvmfswhitelist``."""
        return _whitelist_blob(self.whitelist, self.algorithm, signer)


@functools.cache
def _manifest_blob(manifest: Manifest, algorithm: HashAlgorithm, signer: str) -> bytes:
    return sign_manifest_letter(manifest, algorithm, private_key(signer))


@functools.cache
def _whitelist_blob(
    whitelist: Whitelist, algorithm: HashAlgorithm, signer: str
) -> bytes:
    return sign_whitelist_letter(whitelist, algorithm, private_key(signer))
