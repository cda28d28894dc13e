"""Master keys: which public keys may sign the whitelist of a repository.

``CVMFS_PUBLIC_KEY`` wins; else every ``*.pub`` directly in ``CVMFS_KEYS_DIR``; else
those in ``etc/cvmfs/keys``. Directories below are not looked into: keys of one domain
lie in one, and must not speak for another.

Source: docs/reference/client-behaviour.md, parameters "Repository, servers, trust".
"""

import os
from typing import TYPE_CHECKING

from cvmfsexec.errors import ConfigurationError, NoMasterKeyError

if TYPE_CHECKING:
    from cvmfsexec.configuration.evaluate import Configuration

KEY_BYTES_MAX = 16384
"""A PEM file with an RSA key of 8192 bits has 1,500 bytes."""

_DEFAULT_DIRECTORY = "/etc/cvmfs/keys"


def master_keys(configuration: "Configuration") -> tuple[bytes, ...]:
    """Return the content of each master key file, not yet parsed.

    Raises:
        ConfigurationError: A configured key or directory cannot be read.
        NoMasterKeyError: There is no key. A repository that is pinned by
            ``CVMFS_ROOT_HASH`` needs none, so do not ask then.
    """
    paths = key_paths(configuration)
    if not paths:
        directory = _directory(configuration)
        if directory == _DEFAULT_DIRECTORY:  # as the dist has none, where it should be
            directory = os.path.join(configuration.root.etc, "keys")
        raise NoMasterKeyError(
            f"no master key for {configuration.fqrn}: no *.pub in {directory}",
            hint="put the public key of the repository there, or name it with "
            "CVMFS_PUBLIC_KEY",
        )
    return tuple(_read_key(path) for path in paths)


def key_paths(configuration: "Configuration") -> tuple[str, ...]:
    """Return the local paths of the master keys, in a fixed order."""
    listed = configuration.get("CVMFS_PUBLIC_KEY")
    if listed:
        return tuple(
            configuration.resolve_path(path) for path in listed.split(":") if path
        )
    directory = _directory(configuration)
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise ConfigurationError(
            f"cannot read the master keys in {directory}: {error.strerror}"
        ) from error
    return tuple(
        os.path.join(directory, name) for name in sorted(names) if name.endswith(".pub")
    )


def _directory(configuration: "Configuration") -> str:
    return configuration.path("CVMFS_KEYS_DIR", _DEFAULT_DIRECTORY)


def _read_key(path: str) -> bytes:
    try:
        with open(path, "rb") as stream:
            data = stream.read(KEY_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigurationError(
            f"cannot read master key {path}: {error.strerror}",
            hint="check CVMFS_PUBLIC_KEY or CVMFS_KEYS_DIR",
        ) from error
    if len(data) > KEY_BYTES_MAX:
        raise ConfigurationError(f"{path} is too long for a public key")
    return data
