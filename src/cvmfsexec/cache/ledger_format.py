"""The records of the ledger: what stands in it, as bytes and as values.

::

    0        summary: what is known of the cache as a whole
    4096     accounts, 64 bytes each: what one process has stored and may yet store
    266240   pages of pins, 4096 bytes each: the objects that this process uses

Every record carries a checksum, so that one that was torn, overwritten or forged
without care is not believed; a page of pins is read as far as it makes sense, since a
pin too many does no harm. All numbers are little-endian.

The file is this user's alone, and a hint: whatever it holds, nobody reads a wrong byte.
The worst that it can do is to let the cache grow or shrink until it is counted anew.
"""

import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from cvmfsexec.errors import FormatError
from cvmfsexec.format.digest import ContentHash, HashAlgorithm

ACCOUNTS_START = 4096
ACCOUNT_BYTES = 64
ACCOUNTS_MAX = 4096
"""Processes that use one cache at a time; those of 200 sessions of 20 repositories."""

PINS_START = ACCOUNTS_START + ACCOUNTS_MAX * ACCOUNT_BYTES
PIN_BYTES = 24
PINS_MAX = 160
"""Pins of one process, which has up to 64 catalogs open."""

PIN_PAGE_BYTES = 4096
CLEANINGS_MAX = 256

BYTES_MAX = 1 << 60
"""No cache holds more; larger numbers are damage."""

_MAGIC = b"cvmfsexec ledger"
_VERSION = 3
_SUMMARY = struct.Struct("<16sIIIqqqqqQ")
_ACCOUNT = struct.Struct("<4sqqqq")
_ACCOUNT_MAGIC = b"acct"
_CHECKSUM = struct.Struct("<I")
_TIME = struct.Struct("<q")
_PIN = struct.Struct("<20sBB")
_PINNED = 1
_ALGORITHMS = len(HashAlgorithm)

SUMMARY_BYTES = _SUMMARY.size + CLEANINGS_MAX * _TIME.size + _CHECKSUM.size


class Summary(NamedTuple):
    """The cache as a whole; what its accounts hold comes on top.

    Attributes:
        base_bytes: Bytes that no account tells of; may be negative, as accounts may
            tell of objects that are gone.
        counted_at_s: When the objects were counted last, in seconds since 1970;
            0 if they were only estimated.
        hopeless_until_s: Until then, no cleaning will make room.
        account_count: Accounts from this number on are empty.
        cleaned_at_s: When the last cleanings were, the oldest first.
        removed_bytes: All that was ever counted as removed.
        begun_at_ns: When the ledger was begun, in nanoseconds since 1970; it is another
            one if this is different.
        inode: Number of the file that it was begun in. A copy has another one, and
            may have been made before or after that of the objects.
    """

    base_bytes: int
    counted_at_s: int = 0
    hopeless_until_s: int = 0
    account_count: int = 0
    cleaned_at_s: tuple[int, ...] = ()
    removed_bytes: int = 0
    begun_at_ns: int = 0
    inode: int = 0

    @classmethod
    def parse(cls, data: bytes) -> "Summary":
        """Read the start of a ledger.

        Raises:
            FormatError: It is damaged, or of another version.
        """
        body = _checked(data, SUMMARY_BYTES)
        magic, version, accounts, cleanings, *numbers = _SUMMARY.unpack_from(body)
        if magic != _MAGIC or version != _VERSION:
            raise FormatError("not a ledger")
        if accounts > ACCOUNTS_MAX or cleanings > CLEANINGS_MAX:
            raise FormatError("a ledger that is longer than one can be")
        base, counted_at_s, hopeless_until_s, removed, begun_at_ns, inode = numbers
        _check_bytes(base)
        _check_bytes(removed)
        times = body[_SUMMARY.size : _SUMMARY.size + cleanings * _TIME.size]
        cleaned_at_s = tuple(time_s for (time_s,) in _TIME.iter_unpack(times))
        return cls(
            base,
            counted_at_s,
            hopeless_until_s,
            accounts,
            cleaned_at_s,
            removed,
            begun_at_ns,
            inode,
        )

    def serialize(self) -> bytes:
        """Return the bytes; of the cleanings, only the last ones."""
        cleanings = self.cleaned_at_s[-CLEANINGS_MAX:]
        numbers = (
            *(self.base_bytes, self.counted_at_s, self.hopeless_until_s),
            *(self.removed_bytes, self.begun_at_ns, self.inode),
        )
        counts = (self.account_count, len(cleanings))
        start = _SUMMARY.pack(_MAGIC, _VERSION, *counts, *numbers)
        times = b"".join(map(_TIME.pack, cleanings))
        return _with_checksum(start + times, SUMMARY_BYTES)


class Account(NamedTuple):
    """What one process has stored and may yet store.

    Attributes:
        limit_bytes: The limit that it goes by; 0 for none.
        charged_bytes: What it has stored, is storing, and may store without asking.
        stored_bytes: What it has stored since its account was settled; negative if
            it removed more.
        linking_bytes: The part of that which may not be visible yet.
    """

    limit_bytes: int
    charged_bytes: int = 0
    stored_bytes: int = 0
    linking_bytes: int = 0

    @classmethod
    def parse(cls, data: bytes) -> "Account":
        """Read the account of one process.

        Raises:
            FormatError: It is damaged.
        """
        magic, *numbers = _ACCOUNT.unpack_from(_checked(data, ACCOUNT_BYTES))
        if magic != _ACCOUNT_MAGIC:
            raise FormatError("not an account")
        for number in numbers:
            _check_bytes(number)
        return cls(*numbers)

    def serialize(self) -> bytes:
        """Return the bytes."""
        return _with_checksum(_ACCOUNT.pack(_ACCOUNT_MAGIC, *self), ACCOUNT_BYTES)


NO_ACCOUNT = bytes(ACCOUNT_BYTES)


def parse_accounts(data: bytes) -> tuple[dict[int, Account], tuple[int, ...]]:
    """Return the accounts in a table by their number, and the numbers of damaged ones.

    One that is being written meanwhile may look damaged.
    """
    accounts: dict[int, Account] = {}
    damaged: list[int] = []
    for number in range(len(data) // ACCOUNT_BYTES):
        record = data[number * ACCOUNT_BYTES : (number + 1) * ACCOUNT_BYTES]
        if record == NO_ACCOUNT:
            continue
        try:
            accounts[number] = Account.parse(record)
        except FormatError:
            damaged.append(number)
    return accounts, tuple(damaged)


def parse_pins(page: bytes) -> Iterator[ContentHash]:
    """Yield what is pinned in a page; damage is passed over."""
    told_bytes = len(page.rstrip(b"\0"))  # of most pages little
    end = min(len(page), PINS_MAX * PIN_BYTES, told_bytes + PIN_BYTES)
    for offset in range(0, end - PIN_BYTES + 1, PIN_BYTES):
        digest, algorithm, is_pinned = _PIN.unpack_from(page, offset)
        if is_pinned == _PINNED and algorithm < _ALGORITHMS:
            yield ContentHash(digest, HashAlgorithm(algorithm))


def serialize_pin(content_hash: ContentHash | None) -> bytes:
    """Return one entry of a page of pins; ``None`` for an empty one."""
    if content_hash is None:
        return bytes(PIN_BYTES)
    packed = _PIN.pack(content_hash.digest, content_hash.algorithm, _PINNED)
    return packed.ljust(PIN_BYTES, b"\0")


def serialize_pins(pins: Iterable[ContentHash | None]) -> bytes:
    """Return a page of pins."""
    return b"".join(map(serialize_pin, pins)).ljust(PIN_PAGE_BYTES, b"\0")


def _check_bytes(number: int) -> None:
    if abs(number) > BYTES_MAX:
        raise FormatError(f"a cache of {number} bytes")


def _checked(data: bytes, size_bytes: int) -> bytes:
    """Return a record without its checksum."""
    body = data[: size_bytes - _CHECKSUM.size]
    if len(data) < size_bytes or data[len(body) : size_bytes] != _checksum(body):
        raise FormatError("damaged")
    return body


def _with_checksum(body: bytes, size_bytes: int) -> bytes:
    body = body.ljust(size_bytes - _CHECKSUM.size, b"\0")
    return body + _checksum(body)


def _checksum(body: bytes) -> bytes:
    return _CHECKSUM.pack(zlib.crc32(body))
