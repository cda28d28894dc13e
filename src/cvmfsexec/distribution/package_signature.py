"""Whether an RPM package is signed by a key that the user has given.

OpenPGP is left to ``gpgv``. It sees a keyring of its own and nothing of the user's.
"""

import binascii
import os
import re
from typing import TYPE_CHECKING

from cvmfsexec.errors import ConfigurationError, UntrustedPackageError

if TYPE_CHECKING:
    from cvmfsexec.format.package import Package
    from cvmfsexec.format.rpm import RpmSignature

_SEARCH_PATH = "/usr/local/bin:/usr/bin:/bin"
_KEY_BYTES_MAX = 1 << 20
_PATIENCE_S = 60
_ARMOR = re.compile(
    rb"-----BEGIN PGP PUBLIC KEY BLOCK-----[ \t]*\r?\n(?:[^\r\n]+:[^\r\n]*\r?\n)*"
    rb"([A-Za-z0-9+/=\s]+?)(?:^=[A-Za-z0-9+/]{4}\s*)?"
    rb"-----END PGP PUBLIC KEY BLOCK-----",
    re.MULTILINE,
)


def check_signature(package: "Package", key_file: str) -> None:
    """Refuse a package that is not signed by a key in a file.

    Args:
        package: Whose digests were checked.
        key_file: OpenPGP public keys, in ASCII or binary.

    Raises:
        UntrustedPackageError: It is not signed, by somebody else, or cannot be.
        ConfigurationError: The file has no key, or there is no ``gpgv``.
    """
    keyring = _read_keyring(key_file)
    if not package.is_rpm:
        raise UntrustedPackageError(
            f"{package.name} is a Debian package, which has no signature in it",
            hint="use an RPM package, or --pin with its SHA-256 instead of --gpg-key",
        )
    if not package.signatures:
        raise UntrustedPackageError(
            f"{package.name} {package.version} has no signature",
            hint="use --pin with its SHA-256 instead of --gpg-key, if you know it",
        )
    reasons = [_complaint(signature, keyring) for signature in package.signatures]
    if all(reasons):
        raise UntrustedPackageError(
            f"{package.name} {package.version} is not signed by a key in {key_file}: "
            f"{reasons[0]}"
        )


def _read_keyring(path: str) -> bytes:
    try:
        with open(path, "rb") as stream:
            data = stream.read(_KEY_BYTES_MAX)
    except OSError as error:
        raise ConfigurationError(
            f"cannot read the key {path}: {error.strerror}"
        ) from error
    try:
        blocks = [binascii.a2b_base64(block) for block in _ARMOR.findall(data)]
    except binascii.Error as error:
        raise ConfigurationError(f"{path} has a damaged OpenPGP key") from error
    keyring = b"".join(blocks) if blocks else data
    if not keyring or not keyring[0] & 0x80:  # the first bit of every packet
        raise ConfigurationError(f"{path} has no OpenPGP public key")
    return keyring


def _complaint(signature: "RpmSignature", keyring: bytes) -> str:
    """Return why a signature does not count; nothing if it does."""
    import shutil
    import subprocess
    import tempfile

    program = shutil.which("gpgv", path=_SEARCH_PATH)
    if program is None:
        raise ConfigurationError(
            "signatures of packages are checked by gpgv, which is not here",
            hint="install it (part of GnuPG), or use --pin instead of --gpg-key",
        )
    with tempfile.TemporaryDirectory(prefix="makedist-") as home:
        for name, content in (
            ("keyring", keyring),
            ("signature", signature.signature),
            ("signed", signature.signed),
        ):
            with open(os.path.join(home, name), "wb") as stream:
                stream.write(content)
        done = subprocess.run(
            (
                *(program, "--homedir", home, "--keyring", "./keyring"),
                *("--", "signature", "signed"),
            ),
            cwd=home,
            env={"PATH": _SEARCH_PATH, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=_PATIENCE_S,
        )
    if done.returncode == 0:
        return ""
    lines = [line.removeprefix("gpgv: ") for line in done.stderr.splitlines()]
    return lines[-1] if lines else f"gpgv ended with status {done.returncode}"
