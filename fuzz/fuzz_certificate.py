"""Any bytes are a certificate or a key with sane numbers, or our own error.

Each input is tried as it is, and as the DER inside a PEM frame: few mutations of a
PEM text get past the base64.
"""

import base64
import contextlib

from cvmfsexec.errors import ConfigurationError, MalformedCertificateError
from cvmfsexec.format.digest import HashAlgorithm
from cvmfsexec.trust.signature import (
    MODULUS_BITS_MAX,
    certificate_public_key,
    fingerprint_of,
    load_public_key,
)


def target(data: bytes) -> None:
    """Raise only on a finding."""
    framed = base64.encodebytes(data)
    for kind in (b"CERTIFICATE", b"TRUSTED CERTIFICATE"):
        _read_certificate(_frame(kind, framed))
    _read_certificate(data)
    forms = (b"PUBLIC KEY", b"RSA PUBLIC KEY")
    for pem in (data, *(_frame(kind, framed) for kind in forms)):
        with contextlib.suppress(ConfigurationError):
            assert load_public_key(pem).modulus.bit_length() <= MODULUS_BITS_MAX


def _read_certificate(pem: bytes) -> None:
    with contextlib.suppress(MalformedCertificateError):
        fingerprint_of(pem, HashAlgorithm.SHAKE128)
        assert certificate_public_key(pem).modulus.bit_length() <= MODULUS_BITS_MAX


def _frame(kind: bytes, framed: bytes) -> bytes:
    return b"-----BEGIN %b-----\n%b-----END %b-----\n" % (kind, framed, kind)
