"""DER, written: keys and certificates part by part, so that any part can be bent."""

import base64
from typing import NamedTuple

INTEGER = 0x02
BIT_STRING = 0x03
SEQUENCE = 0x30

RSA = bytes.fromhex("06092a864886f70d010101")
NULL = b"\5\0"
SHA256_WITH_RSA = bytes.fromhex("300d06092a864886f70d01010b0500")
VERSION_3 = b"\xa0\3\2\1\2"
NO_NAME = b"\x30\0"
VALIDITY = b"\x30\x1e" + b"".join(
    b"\x17\x0d" + time for time in (b"231114221320Z", b"241113221320Z")
)

MODULUS = (1 << 2047) + 1
EXPONENT = 65537


def element(tag: int, contents: bytes) -> bytes:
    """Return one element, its length as short as it can be."""
    length = len(contents)
    if length < 0x80:
        return bytes((tag, length)) + contents
    digits = length.to_bytes((length.bit_length() + 7) // 8)
    return bytes((tag, 0x80 | len(digits))) + digits + contents


def sequence(*parts: bytes) -> bytes:
    """Return a sequence of elements."""
    return element(SEQUENCE, b"".join(parts))


def integer(number: int) -> bytes:
    """Return a natural number."""
    return element(INTEGER, number.to_bytes(number.bit_length() // 8 + 1))


def rsa_public_key(modulus: int = MODULUS, exponent: int = EXPONENT) -> bytes:
    """Return an RSA key without the name of its algorithm."""
    return sequence(integer(modulus), integer(exponent))


def public_key_info(
    key: bytes | None = None, *, algorithm: bytes = RSA + NULL, unused_bits: int = 0
) -> bytes:
    """Return a key with the name of its algorithm."""
    bits = bytes((unused_bits,)) + (rsa_public_key() if key is None else key)
    return sequence(sequence(algorithm), element(BIT_STRING, bits))


class CertificateParts(NamedTuple):
    """An X.509 certificate; nobody signed it."""

    version: bytes = VERSION_3
    serial: bytes = integer(1)
    algorithm: bytes = SHA256_WITH_RSA
    issuer: bytes = NO_NAME
    validity: bytes = VALIDITY
    subject: bytes = NO_NAME
    key: bytes = public_key_info()
    after_key: bytes = b""
    after_body: bytes = b""

    def body(self) -> bytes:
        """Return what would be signed."""
        return sequence(*self[:-1])

    def der(self) -> bytes:
        """Return the certificate."""
        signature = element(BIT_STRING, bytes(257))
        return sequence(self.body(), self.algorithm, signature, self.after_body)


def pem(label: bytes, content: bytes) -> bytes:
    """Return a PEM block."""
    text = base64.encodebytes(content)
    return b"-----BEGIN %b-----\n%b-----END %b-----\n" % (label, text, label)
