"""The master keys: who may say which certificates a repository's manifests have.

A site configures one or several for a repository; a whitelist signed by any of them
is believed. This is where trust begins, so an empty keyring is refused.

Source: docs/reference/repository-format.md, "Whitelist".
"""

from collections.abc import Iterable
from typing import NamedTuple

from cvmfsexec.errors import NoMasterKeyError
from cvmfsexec.trust.signature import (
    PublicKey,
    load_public_key,
    verify_whitelist_signature,
)


class Keyring(NamedTuple):
    """Master public keys; one at least when loaded."""

    keys: tuple[PublicKey, ...]

    @classmethod
    def load(cls, pems: Iterable[bytes]) -> "Keyring":
        """Read the configured key files' contents.

        Raises:
            NoMasterKeyError: There are none.
            ConfigurationError: One is no RSA public key.
        """
        keys = tuple(map(load_public_key, pems))
        if not keys:
            raise NoMasterKeyError(
                "no master key is configured for the repository",
                hint="set CVMFS_PUBLIC_KEY or CVMFS_KEYS_DIR",
            )
        return cls(keys)

    def find_signer(self, hash_text: bytes, signature: bytes) -> PublicKey | None:
        """Return the key that signed a whitelist's hash text, if one of these did."""
        for key in self.keys:
            if verify_whitelist_signature(hash_text, signature, key):
                return key
        return None
