"""What stands in the ledger of a cache directory, read and changed under its lock.

Accounts are written by their owners whenever they like, lock or not. So whatever was
read may be old by now, and nobody's account is closed before it was read again.
"""

import contextlib
import os
import time
from typing import TYPE_CHECKING, NamedTuple

from cvmfsexec.cache import byte_locks, ledger_format
from cvmfsexec.cache.ledger_format import Account, Summary
from cvmfsexec.errors import FormatError
from cvmfsexec.format.digest import ContentHash

if TYPE_CHECKING:
    from collections.abc import Callable

    from cvmfsexec.cache.usage import Usage

ACCOUNT_LOCKS = 1 << 61
"""The byte whose lock is that of the first account; the others follow."""

_ESTIMATE_VALID_S = 60.0  # where nobody knows what others store
_MARGIN_PART = 8  # by so much of it, an estimate may be too low

_FIRST_READ_ACCOUNTS = 64
_FIRST_READ_BYTES = (
    ledger_format.ACCOUNTS_START + _FIRST_READ_ACCOUNTS * ledger_format.ACCOUNT_BYTES
)


class Tally(NamedTuple):
    """What the ledger told at one moment, to be compared with what is found.

    Attributes:
        begun_at_ns: Which ledger it was; see ``Summary``.
        ever_bytes: The sum of all that has ever been visible, gone or not.
    """

    begun_at_ns: int
    ever_bytes: int


class Book:
    """What stands in a ledger, while its lock is held.

    Some file systems (btrfs) write nothing in place: where the disk is full, nor can a
    byte of the ledger be changed. Who makes room there goes on all the same: the ledger
    then tells of too much, until somebody counts again.

    Args:
        file: Descriptor of the ledger.
        number: Of our own account.
        is_private: Whether nobody else writes it.
        is_lenient: Whether what cannot be written down is left out.

    Attributes:
        summary: The whole.
        accounts: Those of the living, and of the dead that were not settled yet.
    """

    def __init__(
        self, file: int, number: int, *, is_private: bool, is_lenient: bool = False
    ) -> None:
        self._file = file
        self._is_private = is_private
        self._is_lenient = is_lenient
        self._number = number
        self._damaged: list[int] = []
        self.accounts: dict[int, Account] = {}
        self.summary = Summary(0)

    def has(self, own: Account) -> bool:
        """Whether our account stands in the file as it ought to."""
        record = os.pread(
            self._file, ledger_format.ACCOUNT_BYTES, account_start(self._number)
        )
        return record == own.serialize()

    def read(
        self, own: Account, estimate: "Callable[[], Usage]", *, is_new: bool
    ) -> None:
        """Read everything; what is damaged is replaced.

        Args:
            own: What our account ought to be; it is written if it is not.
            estimate: Tells how much there is, if the ledger does not.
            is_new: Whether the account may still be that of a dead one.
        """
        data = os.pread(self._file, _FIRST_READ_BYTES, 0)
        summary = self._summary_in(data)
        count = ledger_format.ACCOUNTS_MAX if summary is None else summary.account_count
        self._read_accounts(data[ledger_format.ACCOUNTS_START :], count)
        if summary is not None:
            self.summary = summary
        found = self.accounts.get(self._number)
        if found is not None and is_new and summary is not None:
            self.add_to_base(found.stored_bytes)
        if found != own:
            self.write_account(own)
        if summary is None or (self._is_private and _is_stale(summary)):
            self._begin_anew(estimate())
        if self._number >= self.summary.account_count:
            count = self._number + 1
            self.write_summary(self.summary._replace(account_count=count))

    def _summary_in(self, data: bytes) -> Summary | None:
        """Return what is known; ``None`` if it is damaged, or about another cache."""
        try:
            summary = Summary.parse(data)
        except FormatError:
            return None
        return summary if summary.inode == os.fstat(self._file).st_ino else None

    @property
    def used_bytes(self) -> int:
        """How much is stored."""
        return max(0, self._sum_bytes)

    def tally(self) -> Tally:
        """Return what is to be compared with a look at all objects, before that."""
        linking = sum(account.linking_bytes for account in self.accounts.values())
        ever_bytes = self._sum_bytes - linking + self.summary.removed_bytes
        return Tally(self.summary.begun_at_ns, ever_bytes)

    def correct(self, before: Tally, total_bytes: int) -> None:
        """Set the sum right after a look at all objects.

        What was stored since the tally is counted even if it was seen, too.

        Args:
            before: The tally.
            total_bytes: What was found.
        """
        summary = self.summary
        if before.begun_at_ns != summary.begun_at_ns:
            return  # made anew meanwhile, so this says nothing about it
        wrong_bytes = before.ever_bytes - summary.removed_bytes - total_bytes
        self.write_summary(
            summary._replace(
                base_bytes=summary.base_bytes - wrong_bytes,
                counted_at_s=int(time.time()),
            )
        )

    def doubt(self) -> None:
        """Let the objects be counted again."""
        if self.summary.counted_at_s:
            self.write_summary(self.summary._replace(counted_at_s=0))

    @property
    def limit_bytes(self) -> int:
        """The lowest limit of all; 0 for none."""
        limits = (account.limit_bytes for account in self.accounts.values())
        return min(filter(None, limits), default=0)

    @property
    def free_bytes(self) -> int:
        """How much may still be charged; negative if there is too much already."""
        limit_bytes = self.limit_bytes or ledger_format.BYTES_MAX
        promised_bytes = sum(
            account.charged_bytes - account.stored_bytes
            for account in self.accounts.values()
        )
        return limit_bytes - self.used_bytes - promised_bytes

    @property
    def _sum_bytes(self) -> int:
        stored = sum(account.stored_bytes for account in self.accounts.values())
        return self.summary.base_bytes + stored

    def settle_dead(self) -> None:
        """Close the accounts of those who have died."""
        for number in list(self.accounts):
            if not self._is_of_dead(number):
                continue
            account = self._read_again(number)  # it may have written until it died
            if account is not None:
                # In this order: a death in between counts too much, not too little.
                self.add_to_base(account.stored_bytes)
            self.clear_account(number)

    def _is_of_dead(self, number: int) -> bool:
        lock = ACCOUNT_LOCKS + number
        return number != self._number and not byte_locks.is_locked(self._file, lock)

    def in_use(self) -> frozenset[ContentHash]:
        """Return what the living have pinned."""
        self.settle_dead()
        return frozenset(
            content_hash
            for number in self.accounts
            for content_hash in ledger_format.parse_pins(
                os.pread(self._file, ledger_format.PIN_PAGE_BYTES, page_start(number))
            )
        )

    def write_summary(self, summary: Summary) -> None:
        """Change the summary."""
        self.summary = summary
        self._write(summary.serialize(), 0)

    def add_to_base(self, added_bytes: int) -> None:
        """Count more, or less, than the accounts tell of."""
        base_bytes = self.summary.base_bytes + added_bytes
        self.write_summary(self.summary._replace(base_bytes=base_bytes))

    def count_removed(self, removed_bytes: int) -> None:
        """Count objects that were removed since the lock was taken."""
        summary = self.summary
        self.write_summary(
            summary._replace(
                base_bytes=summary.base_bytes - removed_bytes,
                removed_bytes=summary.removed_bytes + removed_bytes,
            )
        )

    def write_account(self, account: Account) -> None:
        """Write our own account."""
        self.accounts[self._number] = account
        self._write(account.serialize(), account_start(self._number))

    def clear_account(self, number: int) -> None:
        """Forget an account."""
        self.accounts.pop(number, None)
        self._write(ledger_format.NO_ACCOUNT, account_start(number))

    def _write(self, data: bytes, offset: int) -> None:
        try:
            os.pwrite(self._file, data, offset)
        except OSError:
            if not self._is_lenient:
                raise

    def _read_accounts(self, table: bytes, count: int) -> None:
        if count > _FIRST_READ_ACCOUNTS:
            rest_bytes = (count - _FIRST_READ_ACCOUNTS) * ledger_format.ACCOUNT_BYTES
            table += os.pread(self._file, rest_bytes, _FIRST_READ_BYTES)
        self.accounts, damaged = ledger_format.parse_accounts(table)
        self._damaged = [n for n in damaged if self._read_again(n) is None]

    def _read_again(self, number: int) -> Account | None:
        """Read an account that may have been written meanwhile."""
        self.accounts.pop(number, None)
        start, size = account_start(number), ledger_format.ACCOUNT_BYTES
        found, _ = ledger_format.parse_accounts(os.pread(self._file, size, start))
        for account in found.values():
            self.accounts[number] = account
        return self.accounts.get(number)

    def _begin_anew(self, estimate: "Usage") -> None:
        with contextlib.suppress(OSError):  # so that a full disk does not matter later
            os.posix_fallocate(self._file, 0, _FIRST_READ_BYTES)
        for number in self._damaged:
            if self._is_of_dead(number):
                self.clear_account(number)
        # The living write their accounts again, and know their numbers.
        held = byte_locks.last_locked(
            self._file, ACCOUNT_LOCKS, ACCOUNT_LOCKS + ledger_format.ACCOUNTS_MAX
        )
        last_held = 0 if held is None else held - ACCOUNT_LOCKS
        # What they are about to link was not seen, or is counted twice.
        visible = sum(
            account.stored_bytes - account.linking_bytes
            for account in self.accounts.values()
        )
        margin = 0 if estimate.is_exact else estimate.used_bytes // _MARGIN_PART
        self.write_summary(
            self.summary._replace(
                base_bytes=estimate.used_bytes + margin - visible,
                # Others may be storing, with accounts in a file that was deleted.
                counted_at_s=int(time.time()) if self._is_private else 0,
                account_count=max(last_held, *self.accounts) + 1,
                begun_at_ns=time.time_ns(),
                inode=os.fstat(self._file).st_ino,
            )
        )


def account_start(number: int) -> int:
    """Return where an account stands."""
    return ledger_format.ACCOUNTS_START + number * ledger_format.ACCOUNT_BYTES


def page_start(number: int) -> int:
    """Return where the pins of an account stand."""
    return ledger_format.PINS_START + number * ledger_format.PIN_PAGE_BYTES


def _is_stale(summary: Summary) -> bool:
    return not 0 <= time.time() - summary.counted_at_s < _ESTIMATE_VALID_S
