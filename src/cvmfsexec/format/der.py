"""RSA public keys and X.509 certificates in DER; just what it takes to find a key.

DER writes a value as tag, length and contents, in exactly one way. Only that way is
read: lengths are definite and as short as they can be, tags are one byte, and nothing
follows where a structure ends. Of a certificate only the outline and the key are
read. Who issued it, when and what for is passed over: a certificate is believed for
being on the whitelist, which names it by the hash of all its bytes.

::

    certificate     = SEQUENCE { body, algorithm, BIT STRING signature }
    body            = SEQUENCE { [0] version?, INTEGER serial, algorithm, issuer,
                                 validity, subject, public key info,
                                 [1] [2] unique ids?, [3] extensions? }
    public key info = SEQUENCE { algorithm, BIT STRING (RSA public key) }
    algorithm       = SEQUENCE { OBJECT IDENTIFIER, parameters }
    RSA public key  = SEQUENCE { INTEGER modulus, INTEGER exponent }

Source: X.690 (DER); RFC 5280 (certificates); RFC 8017, A.1.1 (RSA keys);
docs/reference/repository-format.md, "Certificate object"; docs/adr/0007.
"""

from typing import NamedTuple

from cvmfsexec.errors import FormatError

_INTEGER = 0x02
_BIT_STRING = 0x03
_SEQUENCE = 0x30
_VERSION = 0xA0
_AFTER_KEY = (0x81, 0x82, 0xA3)  # unique ids of issuer and subject, extensions

_VERSION_3 = b"\x02\1\2"  # version 1 is the default, and a default is left out
_RSA = bytes.fromhex("06092a864886f70d010101")  # rsaEncryption, 1.2.840.113549.1.1.1
_NULL = b"\x05\0"

_LENGTH_BYTES_MAX = 4


class RsaNumbers(NamedTuple):
    """The two numbers of an RSA public key; not negative, and otherwise unchecked."""

    modulus: int
    exponent: int


class Certificate(NamedTuple):
    """What counts of a certificate.

    Attributes:
        der: All of it; this is what fingerprints are made of.
        public_key_info: The part that :func:`parse_public_key_info` reads.
    """

    der: bytes
    public_key_info: bytes


class Elements:
    """The elements that some bytes consist of, to be read from first to last."""

    def __init__(self, der: bytes) -> None:
        self._der = der
        self._position = 0

    def read(self, tag: int) -> bytes:
        """Return the contents of the next element, which must have this tag.

        Raises:
            FormatError: It has another tag, is cut short, or its length is not DER.
        """
        if not self._is_next(tag):
            raise FormatError(f"not DER: no tag 0x{tag:02x} at byte {self._position}")
        start, length = self._contents()
        self._position = start + length
        if self._position > len(self._der):
            raise FormatError("not DER: an element is cut short")
        return self._der[start : self._position]

    def read_whole(self, tag: int) -> bytes:
        """Do what :meth:`read` does, but return tag and length too."""
        start = self._position
        self.read(tag)
        return self._der[start : self._position]

    def read_optional(self, tag: int) -> bytes | None:
        """Return the contents of the next element, or ``None`` if its tag differs.

        Raises:
            FormatError: It is cut short, or its length is not DER.
        """
        return self.read(tag) if self._is_next(tag) else None

    def finish(self) -> None:
        """Refuse what has not been read.

        Raises:
            FormatError: There is more.
        """
        if self._position < len(self._der):
            raise FormatError(f"not DER: more than expected at byte {self._position}")

    def _is_next(self, tag: int) -> bool:
        return self._der.startswith(bytes((tag,)), self._position)

    def _contents(self) -> tuple[int, int]:
        """Return where the next element's contents begin, and their length."""
        start = self._position + 2
        header = self._der[self._position : start + _LENGTH_BYTES_MAX]
        if len(header) < 2:
            raise FormatError("not DER: an element is cut short")
        length = header[1]
        if length < 0x80:
            return start, length
        count = length & 0x7F  # of the bytes that say the length
        digits = header[2 : 2 + count]
        length = int.from_bytes(digits)
        if len(digits) < count or digits[:1] == b"\0" or length < 0x80:
            raise FormatError("not DER: a length is not written as it must be")
        return start + count, length


def parse_certificate(content: bytes, *, may_have_remarks: bool = False) -> Certificate:
    """Take an X.509 certificate apart, version 1 or 3.

    Args:
        content: The bytes of a PEM block.
        may_have_remarks: Whether OpenSSL's own remarks (a ``TRUSTED CERTIFICATE``)
            may follow; they are no part of the certificate.

    Raises:
        FormatError: Not DER, or not the outline of a certificate.
    """
    outer = Elements(content)
    der = outer.read_whole(_SEQUENCE)
    if may_have_remarks:
        outer.read_optional(_SEQUENCE)
    outer.finish()

    certificate = _sequence(der)
    body = Elements(certificate.read(_SEQUENCE))
    certificate.read(_SEQUENCE)
    certificate.read(_BIT_STRING)
    certificate.finish()

    if body.read_optional(_VERSION) not in (None, _VERSION_3):
        raise FormatError("a certificate of neither version 1 nor 3")
    body.read(_INTEGER)
    for _ in ("algorithm", "issuer", "validity", "subject"):
        body.read(_SEQUENCE)
    public_key_info = body.read_whole(_SEQUENCE)
    for tag in _AFTER_KEY:
        body.read_optional(tag)
    body.finish()
    return Certificate(der, public_key_info)


def parse_public_key_info(der: bytes) -> RsaNumbers:
    """Read a public key that comes with the name of its algorithm.

    Raises:
        FormatError: Not DER, or not an RSA key.
    """
    info = _sequence(der)
    algorithm = info.read(_SEQUENCE)
    key = info.read(_BIT_STRING)
    info.finish()
    # RSA has no parameters; NULL says so, and some leave it out.
    if algorithm not in (_RSA + _NULL, _RSA):
        raise FormatError("not an RSA key")
    if not key.startswith(b"\0"):
        raise FormatError("not DER: a key ends within a byte")
    return parse_rsa_public_key(key[1:])


def parse_rsa_public_key(der: bytes) -> RsaNumbers:
    """Read the two numbers of an RSA key.

    Raises:
        FormatError: Not DER, or a negative number.
    """
    key = _sequence(der)
    numbers = RsaNumbers(_natural(key.read(_INTEGER)), _natural(key.read(_INTEGER)))
    key.finish()
    return numbers


def _sequence(der: bytes) -> Elements:
    """Return the elements of the one sequence that these bytes are."""
    outer = Elements(der)
    elements = Elements(outer.read(_SEQUENCE))
    outer.finish()
    return elements


def _natural(contents: bytes) -> int:
    """Read an integer; in DER it has no more bytes than it needs."""
    number = int.from_bytes(contents, signed=True)
    if number < 0 or len(contents) != number.bit_length() // 8 + 1:
        raise FormatError("not DER: a number is negative or longer than it must be")
    return number
