"""RSA signatures of signed letters, and the keys and certificates behind them.

Two kinds, both over the text of the hash line. A manifest is signed in the ordinary
way (PKCS#1 v1.5 with SHA-1) by the key of the publisher's certificate. A whitelist is
signed by the master key over the text itself, padded but not hashed again.

Either way the whole padded block is built here and compared: nothing of what the
signer sent is parsed, and a system policy that switches off SHA-1 signatures does not
matter. Verifying needs nothing but Python's ``pow``. Signing and making keys is left
to ``cryptography``, which those functions import: it takes some 50 ms and 12 MB, and
no client needs it (docs/adr/0007).

Source: docs/reference/repository-format.md, "Signed letters", "Certificate object".
"""

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from cvmfsexec.errors import (
    ConfigurationError,
    FormatError,
    MalformedCertificateError,
)
from cvmfsexec.format.der import (
    Certificate,
    RsaNumbers,
    parse_certificate,
    parse_public_key_info,
    parse_rsa_public_key,
)
from cvmfsexec.format.digest import ContentHash, HashAlgorithm
from cvmfsexec.format.envelope import compose_letter
from cvmfsexec.format.names import check_fqrn
from cvmfsexec.format.pem import parse_pem

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    from cvmfsexec.format.manifest import Manifest
    from cvmfsexec.format.whitelist import Fingerprint, Whitelist

KEY_BITS = 2048
PUBLIC_EXPONENT = 65537
CERTIFICATE_DAYS = 365  # nobody checks it

# What is worth computing with. OpenSSL has the same upper limits; less than 1024 bits
# are within reach of anybody who wants to forge.
MODULUS_BITS_MIN = 1024
MODULUS_BITS_MAX = 16384
EXPONENT_MIN = 3
EXPONENT_BITS_MAX = 64

_SHA1_DIGEST_INFO = bytes.fromhex("3021300906052b0e03021a05000414")

_TRUSTED = b"TRUSTED CERTIFICATE"
_CERTIFICATE_LABELS = (b"CERTIFICATE", b"X509 CERTIFICATE", _TRUSTED)
_KEY_PARSERS = {
    b"PUBLIC KEY": parse_public_key_info,
    b"RSA PUBLIC KEY": parse_rsa_public_key,
}


class PublicKey(NamedTuple):
    """An RSA public key, reduced to its two numbers."""

    modulus: int
    exponent: int

    @property
    def size_bytes(self) -> int:
        """Length of the modulus, and of every signature by this key."""
        return (self.modulus.bit_length() + 7) // 8


def load_public_key(pem: bytes) -> PublicKey:
    """Read a master public key, as a site configures it (``BEGIN PUBLIC KEY``).

    Raises:
        ConfigurationError: No such key, or one of unreasonable size.
    """
    try:
        block = parse_pem(pem, _KEY_PARSERS)
        return _usable(_KEY_PARSERS[block.label](block.content))
    except FormatError as error:
        raise ConfigurationError(
            f"a master key is no RSA public key in PEM form: {error}",
            hint="it should begin with -----BEGIN PUBLIC KEY-----",
        ) from error


def certificate_public_key(pem: bytes) -> PublicKey:
    """Return the key of a publisher's certificate; nothing else in it counts.

    Neither dates nor issuer nor usage are looked at: a certificate is believed for
    being on the whitelist.

    Raises:
        MalformedCertificateError: No certificate, or no RSA key of reasonable size.
    """
    info = _certificate(pem).public_key_info
    try:
        return _usable(parse_public_key_info(info))
    except FormatError as error:
        raise _malformed(error) from error


def fingerprint_of(certificate_pem: bytes, algorithm: HashAlgorithm) -> "Fingerprint":
    """Hash a certificate's DER form.

    The same bytes are read for the key, so that a certificate cannot show one face
    to the whitelist and another to the signature.

    Raises:
        MalformedCertificateError: No certificate.
    """
    return ContentHash.of(_certificate(certificate_pem).der, algorithm)


def verify_manifest_signature(
    hash_text: bytes, signature: bytes, key: PublicKey
) -> bool:
    """Whether a manifest's hash text was signed by the key of its certificate."""
    return _recovered_block(signature, key) == _manifest_block(hash_text, key)


def verify_whitelist_signature(
    hash_text: bytes, signature: bytes, key: PublicKey
) -> bool:
    """Whether a whitelist's hash text was signed by this master key."""
    return _recovered_block(signature, key) == _whitelist_block(hash_text, key)


def sign_manifest(hash_text: bytes, private_key_pem: bytes) -> bytes:
    """Sign the hash text of a manifest with the publisher's key.

    Raises:
        ConfigurationError: No unencrypted RSA private key in PEM form.
    """
    return _sign(hash_text, private_key_pem, _manifest_block)


def sign_whitelist(hash_text: bytes, master_key_pem: bytes) -> bytes:
    """Sign the hash text of a whitelist with the master key.

    Raises:
        ConfigurationError: No unencrypted RSA private key in PEM form.
    """
    return _sign(hash_text, master_key_pem, _whitelist_block)


def sign_manifest_letter(
    manifest: "Manifest", algorithm: HashAlgorithm, private_key_pem: bytes
) -> bytes:
    """Return a complete ``.cvmfspublished``, signed with the publisher's key."""
    letter = manifest.serialize()
    hash_text = str(ContentHash.of(letter, algorithm)).encode()
    return compose_letter(letter, hash_text, sign_manifest(hash_text, private_key_pem))


def sign_whitelist_letter(
    whitelist: "Whitelist", algorithm: HashAlgorithm, master_key_pem: bytes
) -> bytes:
    """Return a complete ``.cvmfswhitelist``, signed with the master key."""
    letter = whitelist.serialize()
    hash_text = str(ContentHash.of(letter, algorithm)).encode()
    return compose_letter(letter, hash_text, sign_whitelist(hash_text, master_key_pem))


def generate_key_pair() -> tuple[bytes, bytes]:
    """Make a new RSA key; return it as PEM, private (PKCS#8, plain) and public."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(PUBLIC_EXPONENT, KEY_BITS)
    private_pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public_pem = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return private_pem, public_pem


def generate_certificate(fqrn: str, private_pem: bytes, not_before_s: float) -> bytes:
    """Make the self-signed certificate that carries a publisher's public key.

    Args:
        fqrn: Becomes the common name.
        private_pem: The publisher's key.
        not_before_s: Begin of its year of validity, Unix time.

    Returns:
        X.509 v3 in PEM form.

    Raises:
        ConfigurationError: Not a repository name, or no RSA private key.
    """
    import datetime as dt

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization

    key = _load_private_key(private_pem)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, check_fqrn(fqrn))])
    not_before = dt.datetime.fromtimestamp(not_before_s, dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_before + dt.timedelta(days=CERTIFICATE_DAYS))
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM)


def _usable(numbers: RsaNumbers) -> PublicKey:
    """Refuse what is no key, is too weak, or takes too long to compute with."""
    modulus, exponent = numbers
    bits = modulus.bit_length()
    if not MODULUS_BITS_MIN <= bits <= MODULUS_BITS_MAX:
        raise FormatError(f"an RSA key of {bits} bits")
    if exponent < EXPONENT_MIN or exponent.bit_length() > EXPONENT_BITS_MAX:
        raise FormatError("an RSA key with an exponent out of range")
    if not modulus & exponent & 1:
        raise FormatError("an RSA key with an even number")
    return PublicKey(modulus, exponent)


def _certificate(pem: bytes) -> Certificate:
    """Take the first certificate of a PEM text apart."""
    try:
        block = parse_pem(pem, _CERTIFICATE_LABELS)
        return parse_certificate(
            block.content, may_have_remarks=block.label == _TRUSTED
        )
    except FormatError as error:
        raise _malformed(error) from error


def _malformed(error: FormatError) -> MalformedCertificateError:
    return MalformedCertificateError(
        f"the publisher's certificate cannot be used: {error}"
    )


def _manifest_block(hash_text: bytes, key: PublicKey) -> bytes:
    digest = hashlib.sha1(hash_text, usedforsecurity=False).digest()
    return _padded(_SHA1_DIGEST_INFO + digest, key)


def _whitelist_block(hash_text: bytes, key: PublicKey) -> bytes:
    return _padded(hash_text, key)


def _padded(text: bytes, key: PublicKey) -> bytes:
    """Build the PKCS#1 type 1 block that a right signature opens to."""
    filler = b"\xff" * (key.size_bytes - len(text) - 3)
    return b"\0\1" + filler + b"\0" + text


def _recovered_block(signature: bytes, key: PublicKey) -> bytes | None:
    """Open a signature; ``None`` if this key cannot have made it."""
    number = int.from_bytes(signature)
    if len(signature) != key.size_bytes or number >= key.modulus:
        return None
    return pow(number, key.exponent, key.modulus).to_bytes(key.size_bytes)


def _sign(
    hash_text: bytes,
    private_pem: bytes,
    block: Callable[[bytes, PublicKey], bytes],
) -> bytes:
    numbers = _load_private_key(private_pem).private_numbers()
    key = PublicKey(numbers.public_numbers.n, numbers.public_numbers.e)
    wanted = block(hash_text, key)
    number = pow(int.from_bytes(wanted), numbers.d, key.modulus)
    signature = number.to_bytes(key.size_bytes)
    if _recovered_block(signature, key) != wanted:
        raise ConfigurationError("a signing key's numbers do not belong together")
    return signature


def _load_private_key(pem: bytes) -> "RSAPrivateKey":
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    refusal = "a signing key is no unencrypted RSA private key in PEM form"
    try:
        # Testing the numbers takes four times as long as using them; _sign looks
        # at the result instead.
        key = serialization.load_pem_private_key(
            pem, password=None, unsafe_skip_rsa_key_validation=True
        )
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigurationError(refusal) from error
    if not isinstance(key, RSAPrivateKey):
        raise ConfigurationError(refusal)
    return key
