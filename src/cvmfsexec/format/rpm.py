"""RPM packages: a lead, a signature header, a header, and a compressed cpio archive.

The digests that the package has of itself are checked here: they tell damage, and tie
the payload to a header that somebody signed. They do not tell who made the package.

Source: rpm's "Package format" (lead, headers, tags of signature and header).
"""

import hashlib
import struct
from typing import NamedTuple

from cvmfsexec.errors import FormatError, IntegrityError
from cvmfsexec.format.archive import UNPACKED_BYTES_MAX, ArchiveEntry
from cvmfsexec.format.compression import decompress
from cvmfsexec.format.cpio import parse_cpio

MAGIC = b"\xed\xab\xee\xdb"

_LEAD_BYTES = 96
_HEADER_MAGIC = b"\x8e\xad\xe8\x01"
_HEADER_START = struct.Struct(">4sIII")
_TAG = struct.Struct(">IIII")
_TAG_COUNT_MAX = 10_000
_STORE_BYTES_MAX = 64 << 20

_TYPE_INT32 = 4
_TYPES_OF_TEXT = (6, 8, 9)
_TYPE_BINARY = 7

# Tags of the signature header.
_HEADER_DSA, _HEADER_RSA = 267, 268
_HEADER_SHA1, _HEADER_SHA256 = 269, 273
_WHOLE_PGP, _WHOLE_MD5, _WHOLE_GPG = 1002, 1004, 1005
# Tags of the header.
_NAME, _VERSION, _RELEASE, _EPOCH = 1000, 1001, 1002, 1003
_PAYLOAD_FORMAT = 1124
_PAYLOAD_DIGEST, _PAYLOAD_DIGEST_ALGORITHM = 5092, 5093

_ALGORITHMS = {1: "md5", 2: "sha1", 8: "sha256", 9: "sha384", 10: "sha512"}


class RpmSignature(NamedTuple):
    """An OpenPGP signature, and what it is over.

    Attributes:
        signature: The packet.
        signed: The bytes that it speaks for: the header, or that and the payload.
    """

    signature: bytes
    signed: bytes


class Rpm(NamedTuple):
    """A package.

    Attributes:
        name: Of the package.
        version: ``VERSION-RELEASE``, after ``EPOCH:`` if there is one.
        entries: What it would install.
        signatures: Those that, by its digests, speak for the whole package.
    """

    name: str
    version: str
    entries: tuple[ArchiveEntry, ...]
    signatures: tuple[RpmSignature, ...]


class _Tag(NamedTuple):
    """Where a value is."""

    type: int
    offset: int
    length: int


class _Header(NamedTuple):
    """One of the two headers.

    Attributes:
        tags: By number.
        store: Where the values are.
        raw: All of it.
    """

    tags: dict[int, _Tag]
    store: bytes
    raw: bytes

    def text(self, number: int) -> str:
        """Return a text, the first one of several; empty without such a tag."""
        tag = self.tags.get(number)
        if tag is None:
            return ""
        end = self.store.find(b"\0", tag.offset)
        if tag.type not in _TYPES_OF_TEXT or end < 0:
            raise FormatError(f"an RPM package has a malformed tag {number}")
        return self.store[tag.offset : end].decode("utf-8", "replace")

    def binary(self, number: int) -> bytes:
        """Return bytes; none without such a tag."""
        tag = self.tags.get(number)
        if tag is None:
            return b""
        value = self.store[tag.offset : tag.offset + tag.length]
        if tag.type != _TYPE_BINARY or len(value) < tag.length or not value:
            raise FormatError(f"an RPM package has a malformed tag {number}")
        return value

    def number(self, number: int) -> int | None:
        """Return a number, the first one of several; None without such a tag."""
        tag = self.tags.get(number)
        if tag is None:
            return None
        value = self.store[tag.offset : tag.offset + 4]
        if tag.type != _TYPE_INT32 or len(value) < 4:
            raise FormatError(f"an RPM package has a malformed tag {number}")
        return int.from_bytes(value, "big")


def parse_rpm(data: bytes) -> Rpm:
    """Read a whole package, and check its digests.

    Raises:
        FormatError: It is malformed, or too much, or has no digest.
        IntegrityError: It is damaged.
        ConfigurationError: A library for its compression is missing.
    """
    if not data.startswith(MAGIC):
        raise FormatError("this is no RPM package")
    first, offset = _parse_header(data, _LEAD_BYTES)
    offset += -offset % 8
    header, offset = _parse_header(data, offset)
    payload = data[offset:]
    is_tied = _check_payload(header, payload)
    _check_header(first, header, payload, is_tied=is_tied)
    if header.text(_PAYLOAD_FORMAT) not in {"", "cpio"}:
        raise FormatError("an RPM package holds something else than a cpio archive")
    name, version = header.text(_NAME), header.text(_VERSION)
    if not name or not version:
        raise FormatError("an RPM package does not say its name and version")
    entries = parse_cpio(decompress(payload, UNPACKED_BYTES_MAX))
    return Rpm(
        name,
        _full_version(header, version),
        entries,
        tuple(_signatures(first, header, payload, is_tied=is_tied)),
    )


def _full_version(header: _Header, version: str) -> str:
    epoch, release = header.number(_EPOCH), header.text(_RELEASE)
    return (f"{epoch}:" if epoch else "") + version + (f"-{release}" if release else "")


def _parse_header(data: bytes, offset: int) -> tuple[_Header, int]:
    """Return the header at an offset, and where it ends."""
    try:
        magic, _, tag_count, store_bytes = _HEADER_START.unpack_from(data, offset)
    except struct.error as error:
        raise FormatError("an RPM package is cut short") from error
    if magic != _HEADER_MAGIC:
        raise FormatError("an RPM package has no header where it should be")
    if tag_count > _TAG_COUNT_MAX or store_bytes > _STORE_BYTES_MAX:
        raise FormatError("an RPM package has an unreasonable header")
    index = offset + _HEADER_START.size
    begin = index + tag_count * _TAG.size
    end = begin + store_bytes
    if end > len(data):
        raise FormatError("an RPM package is cut short")
    tags: dict[int, _Tag] = {}
    for number, kind, at, count in _TAG.iter_unpack(data[index:begin]):
        if number in tags or at >= store_bytes:
            raise FormatError(f"an RPM package has a malformed tag {number}")
        tags[number] = _Tag(kind, at, count)
    return _Header(tags, data[begin:end], data[offset:end]), end


def _check_payload(header: _Header, payload: bytes) -> bool:
    """Check the header's digest of the payload; return whether there is one."""
    expected = header.text(_PAYLOAD_DIGEST)
    if not expected:
        return False
    number = header.number(_PAYLOAD_DIGEST_ALGORITHM) or 8
    if number not in _ALGORITHMS:
        raise FormatError(f"an RPM package has digests of unknown kind {number}")
    name = _ALGORITHMS[number]
    digest = hashlib.new(name, payload, usedforsecurity=False).hexdigest()
    _compare(digest, expected, f"{name} of its payload")
    return True


def _check_header(
    first: _Header, header: _Header, payload: bytes, *, is_tied: bool
) -> None:
    """Check the digests of the signature header; demand one of everything."""
    for number, name in ((_HEADER_SHA1, "sha1"), (_HEADER_SHA256, "sha256")):
        expected = first.text(number)
        if expected:
            digest = hashlib.new(name, header.raw, usedforsecurity=False).hexdigest()
            _compare(digest, expected, f"{name} of its header")
    whole = first.binary(_WHOLE_MD5)
    if whole:
        digest = hashlib.md5(header.raw + payload, usedforsecurity=False).hexdigest()
        _compare(digest, whole.hex(), "md5")
    if not whole and not is_tied:
        raise FormatError("an RPM package has no digest of its payload")


def _compare(digest: str, expected: str, what: str) -> None:
    if digest != expected.lower():
        raise IntegrityError(
            f"an RPM package is damaged: {what} is {digest}, and should be "
            f"{expected[:128]}"
        )


def _signatures(
    first: _Header, header: _Header, payload: bytes, *, is_tied: bool
) -> list[RpmSignature]:
    header_packets = map(first.binary, (_HEADER_RSA, _HEADER_DSA) if is_tied else ())
    whole_packets = map(first.binary, (_WHOLE_PGP, _WHOLE_GPG))
    return [
        *(RpmSignature(packet, header.raw) for packet in header_packets if packet),
        *(
            RpmSignature(packet, header.raw + payload)
            for packet in whole_packets
            if packet
        ),
    ]
