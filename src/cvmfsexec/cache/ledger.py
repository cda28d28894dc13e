"""The ledger of a cache directory: how much all processes together have stored.

There is no manager process. Each process that uses the cache has an *account* in one
file, and keeps it alone; whoever needs the sum adds them up.

* **An account is its process's as long as that holds a lock** on it, which ends with
  the process, however it dies. What a dead one had stored goes to the common base, what
  it might have stored is free again; whoever comes by does that.
* **Counted before it is visible.** A process writes the size of an object into its
  account before it links the object to its name. A death in between counts too much,
  never too little.
* **Charged before it is written.** Bytes are only written to the directory if they were
  charged to the account, under the lock of the whole ledger, and all charges together
  stay below the limit. An account is charged in advance for some small objects, so that
  most of them cost one write of 64 bytes and no lock.
* **The file is a hint.** If it is missing, damaged or cut off, the next who looks makes
  it anew from an estimate, and the cache is counted in the background. Who finds his
  account gone writes it again.

Locks are those of :mod:`cvmfsexec.cache.byte_locks`, on bytes far behind the end of
the file. The lock of the ledger is held for some microseconds; who does not get it
within seconds (its holder may be stopped) does without the cache for a while.

Threads: any. ``_turn`` is held by the thread that has the lock of the ledger;
``_mutex`` guards the account and is held within the other or alone.
"""

import contextlib
import errno
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from cvmfsexec.cache import byte_locks, ledger_format
from cvmfsexec.cache.ledger_format import Account, Summary
from cvmfsexec.errors import FormatError
from cvmfsexec.format.digest import ContentHash

if TYPE_CHECKING:
    from cvmfsexec.cache.usage import Usage

FILE_NAME = "cvmfsexec.ledger"

LOCK_PATIENCE_S = 2.0
_LOW_PATIENCE_S = 0.02
_LOW_PATIENCE_FOR_S = 10.0  # after a wait in vain: the holder may be stopped
_PAUSE_S = 0.0005
_ESTIMATE_VALID_S = 60.0  # where nobody knows what others store

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
_ACCOUNT_LOCKS = 1 << 61
_LEDGER_LOCK = 1 << 62
_BROOM_LOCK = _LEDGER_LOCK + 1

_FIRST_READ_ACCOUNTS = 64
_FIRST_READ_BYTES = (
    ledger_format.ACCOUNTS_START + _FIRST_READ_ACCOUNTS * ledger_format.ACCOUNT_BYTES
)
_OPENINGS_MAX = 10


class Book:
    """What stands in a ledger, while its lock is held.

    Attributes:
        summary: The whole.
        accounts: Those of the living, and of the dead that were not settled yet.
    """

    def __init__(self, file: int, number: int, *, is_private: bool) -> None:
        self._file = file
        self._is_private = is_private
        self._number = number  # of our own account
        self.accounts: dict[int, Account] = {}
        self.summary = Summary(0)

    def has(self, own: Account) -> bool:
        """Whether our account stands in the file as it ought to."""
        record = os.pread(
            self._file, ledger_format.ACCOUNT_BYTES, _account_start(self._number)
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
        try:
            summary = Summary.parse(data)
        except FormatError:
            summary = None
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

    @property
    def used_bytes(self) -> int:
        """How much is stored."""
        return max(0, self._sum_bytes)

    def visible_bytes(self, before: dict[int, Account]) -> int:
        """How much of that can be seen in the directory for certain.

        Args:
            before: The accounts, a while ago. Who has written nothing since then has
                made visible what was written down before; of ours we know.
        """
        linking = sum(
            account.linking_bytes
            for number, account in self.accounts.items()
            if number == self._number or account != before.get(number)
        )
        return self._sum_bytes - linking

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
        used_bytes = self.used_bytes
        if not self.summary.counted_at_s:
            used_bytes += used_bytes // 8  # an estimate may be too low
        return limit_bytes - used_bytes - promised_bytes

    @property
    def _sum_bytes(self) -> int:
        stored = sum(account.stored_bytes for account in self.accounts.values())
        return self.summary.base_bytes + stored

    def settle_dead(self) -> None:
        """Close the accounts of those who have died."""
        for number, account in list(self.accounts.items()):
            lock = _ACCOUNT_LOCKS + number
            if number != self._number and not byte_locks.is_locked(self._file, lock):
                # In this order: a death in between counts too much, not too little.
                self.add_to_base(account.stored_bytes)
                self.clear_account(number)

    def in_use(self) -> frozenset[ContentHash]:
        """Return what the living have pinned."""
        self.settle_dead()
        return frozenset(
            content_hash
            for number in self.accounts
            for content_hash in ledger_format.parse_pins(
                os.pread(self._file, ledger_format.PIN_PAGE_BYTES, _page_start(number))
            )
        )

    def write_summary(self, summary: Summary) -> None:
        """Change the summary."""
        self.summary = summary
        os.pwrite(self._file, summary.serialize(), 0)

    def add_to_base(self, added_bytes: int) -> None:
        """Count more, or less, than the accounts tell of."""
        base_bytes = self.summary.base_bytes + added_bytes
        self.write_summary(self.summary._replace(base_bytes=base_bytes))

    def write_account(self, account: Account) -> None:
        """Write our own account."""
        self.accounts[self._number] = account
        os.pwrite(self._file, account.serialize(), _account_start(self._number))

    def clear_account(self, number: int) -> None:
        """Forget an account."""
        self.accounts.pop(number, None)
        os.pwrite(self._file, ledger_format.NO_ACCOUNT, _account_start(number))

    def _read_accounts(self, table: bytes, count: int) -> None:
        if count > _FIRST_READ_ACCOUNTS:
            rest_bytes = (count - _FIRST_READ_ACCOUNTS) * ledger_format.ACCOUNT_BYTES
            table += os.pread(self._file, rest_bytes, _FIRST_READ_BYTES)
        self.accounts = ledger_format.parse_accounts(table)

    def _begin_anew(self, estimate: "Usage") -> None:
        with contextlib.suppress(OSError):  # so that a full disk does not matter later
            os.posix_fallocate(self._file, 0, _FIRST_READ_BYTES)
        stored = sum(account.stored_bytes for account in self.accounts.values())
        is_exact = estimate.is_exact or self._is_private  # which has nobody to count
        counted_at_s = int(time.time()) if is_exact else 0
        self.write_summary(
            self.summary._replace(
                base_bytes=estimate.used_bytes - stored,
                counted_at_s=counted_at_s,
                account_count=max(self.accounts) + 1,
            )
        )


class Ledger:
    """One process's account in the ledger of a cache directory.

    Args:
        directory: Descriptor of the cache directory, which stays the caller's.
        limit_bytes: The limit that this process goes by; 0 for none.
        estimate: Tells how much the directory holds, if the ledger does not.
    """

    def __init__(
        self, directory: int, limit_bytes: int, estimate: "Callable[[], Usage]"
    ) -> None:
        self._directory = directory
        self._estimate = estimate
        self._turn = threading.Lock()
        self._mutex = threading.Lock()
        self._brooming = threading.Lock()
        self._low_patience_until_s = float("-inf")
        self._file: int | None = None
        self._number = 0
        self._account = self._written = Account(limit_bytes)
        self._identity = (0, 0)
        self._is_private = False
        self._pins: list[ContentHash | None] = []
        self._released: deque[int] = deque()
        self._is_closed = False

    @property
    def limit_bytes(self) -> int:
        """The limit that this process goes by; 0 for none."""
        return self._account.limit_bytes

    @limit_bytes.setter
    def limit_bytes(self, limit_bytes: int) -> None:
        with self._mutex:
            self._account = self._account._replace(limit_bytes=limit_bytes)
            with contextlib.suppress(OSError):  # written with the next object
                self._write()

    def go_private(self) -> None:
        """Keep the account in memory, as the directory has no locks.

        What others store shows in estimates only, and what they use not at all.
        """
        with self._turn:
            self._leave()
            self._is_private = True

    @contextlib.contextmanager
    def locked(self) -> Iterator[Book]:
        """Have the ledger to oneself for the time of a ``with``; not for long.

        Raises:
            OSError: It cannot be had, or not within ``LOCK_PATIENCE_S``.
        """
        if not self._turn.acquire(timeout=LOCK_PATIENCE_S):
            raise TimeoutError(errno.ETIMEDOUT, "another thread keeps the ledger")
        try:
            file, is_new = self._lock()
            try:
                book = Book(file, self._number, is_private=self._is_private)
                self._settle(book, is_new=is_new)
                yield book
            finally:
                byte_locks.unlock(file, _LEDGER_LOCK)
        finally:
            self._turn.release()

    @contextlib.contextmanager
    def broom(self) -> Iterator[bool]:
        """Be the one who cleans, for the time of a ``with``, unless another is.

        Yields:
            Whether nobody else is.

        Raises:
            OSError: As :meth:`locked`.
        """
        if not self._brooming.acquire(blocking=False):
            yield False  # another thread of ours is
            return
        try:
            with self.locked():
                file = self._open()
                is_ours = byte_locks.try_lock(file, _BROOM_LOCK)
            try:
                yield is_ours
            finally:
                if is_ours:
                    self._put_broom_away(file)
        finally:
            self._brooming.release()

    def charge(self, book: Book, charged_bytes: int) -> None:
        """Charge the account, or give back; what it has stored goes to the base."""
        with self._mutex:
            stored_bytes = self._account.stored_bytes
            if stored_bytes:
                book.add_to_base(stored_bytes)
            self._add(
                charged_bytes=charged_bytes - stored_bytes, stored_bytes=-stored_bytes
            )
            book.write_account(self._account)
            self._written = self._account

    def count(self, size_bytes: int) -> None:
        """Count an object that will be visible in a moment, and was charged.

        Raises:
            OSError: It could not be written down.
        """
        with self._mutex:
            self._add(stored_bytes=size_bytes, linking_bytes=size_bytes)
            self._write()

    def count_linked(self, size_bytes: int) -> None:
        """Take notice that it is visible; that is written down with the next one."""
        with self._mutex:
            self._add(linking_bytes=-size_bytes)

    def count_refused(self, size_bytes: int) -> None:
        """Take notice that it will not be visible; it is charged as before."""
        # What cannot be written now will be counted anew.
        with self._mutex, contextlib.suppress(OSError):
            self._add(stored_bytes=-size_bytes, linking_bytes=-size_bytes)
            self._write()

    def count_removed(self, size_bytes: int) -> None:
        """Count an object that was there and is not any more."""
        with self._mutex, contextlib.suppress(OSError):
            self._add(stored_bytes=-size_bytes, charged_bytes=-size_bytes)
            self._write()

    def pin(self, content_hash: ContentHash) -> int | None:
        """Let all others know that an object is in use; return the pin's number.

        Returns:
            ``None`` if we have too many.

        Raises:
            OSError: It could not be written down.
        """
        with self.locked(), self._mutex:
            if None in self._pins:
                number = self._pins.index(None)
            elif len(self._pins) < ledger_format.PINS_MAX:
                number = len(self._pins)
                self._pins.append(None)
            else:
                return None
            self._pins[number] = content_hash
            self._write_pin(number)
        return number

    def unpin(self, number: int) -> None:
        """Take that back; may be called anywhere, also where memory is freed."""
        self._pins[number] = None
        self._released.append(number)
        if self._mutex.acquire(blocking=False):  # or whoever has it does it
            try:
                self._write_released()
            finally:
                self._mutex.release()

    def close(self) -> None:
        """Close the account."""
        with contextlib.suppress(OSError), self.locked() as book:
            book.add_to_base(self._account.stored_bytes)
            book.clear_account(self._number)
        with self._turn:
            self._is_closed = True
            self._leave()

    def _lock(self) -> tuple[int, bool]:
        """Take the lock of the ledger that the directory has now.

        Returns:
            The file, and whether our account in it is a new one.
        """
        for _ in range(_OPENINGS_MAX):
            is_new = self._file is None
            file = self._open()
            self._wait_for_lock(file)
            if self._is_still_there():
                if is_new:
                    self._register(file)
                return file, is_new
            self._leave()  # it was deleted, or another one took its place
        raise OSError(errno.ESTALE, "the ledger does not stay")

    def _wait_for_lock(self, file: int) -> None:
        now_s = time.monotonic()
        is_patient = now_s >= self._low_patience_until_s
        deadline_s = now_s + (LOCK_PATIENCE_S if is_patient else _LOW_PATIENCE_S)
        while not byte_locks.try_lock(file, _LEDGER_LOCK):
            now_s = time.monotonic()
            if now_s > deadline_s:
                self._low_patience_until_s = now_s + _LOW_PATIENCE_FOR_S
                raise TimeoutError(errno.ETIMEDOUT, "another process keeps the ledger")
            time.sleep(_PAUSE_S)

    def _is_still_there(self) -> bool:
        if self._is_private:
            return True
        try:
            status = os.stat(FILE_NAME, dir_fd=self._directory, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return (status.st_dev, status.st_ino) == self._identity

    def _put_broom_away(self, file: int) -> None:
        with self._mutex, contextlib.suppress(OSError):
            if file == self._file:  # else closed meanwhile, and let go of by that
                byte_locks.unlock(file, _BROOM_LOCK)

    def _open(self) -> int:
        if self._file is None:
            if self._is_closed:
                raise OSError(errno.EBADF, "the cache is closed")
            if self._is_private:
                file = os.memfd_create(FILE_NAME, os.MFD_CLOEXEC)
            else:
                file = os.open(FILE_NAME, _FLAGS, 0o600, dir_fd=self._directory)
            status = os.fstat(file)
            self._identity = (status.st_dev, status.st_ino)
            self._file = file
        return self._file

    def _settle(self, book: Book, *, is_new: bool) -> None:
        """Read the ledger, and write into it again what is ours and was lost."""
        with self._mutex:
            self._write_released()
            is_lost = not book.has(self._written)
            if is_lost:
                # Whoever made the ledger anew has counted what we had stored.
                stored_bytes = self._account.stored_bytes
                self._add(charged_bytes=-stored_bytes, stored_bytes=-stored_bytes)
            book.read(self._account, self._estimate, is_new=is_new)
            self._written = self._account
            if is_lost and not is_new and self._file is not None:
                self._write_all_pins(self._file)

    def _write_all_pins(self, file: int) -> None:
        with contextlib.suppress(OSError):  # no room: nothing is pinned then
            page = ledger_format.serialize_pins(self._pins)
            os.pwrite(file, page, _page_start(self._number))

    def _register(self, file: int) -> None:
        """Take an account that belongs to none of the living."""
        for number in range(ledger_format.ACCOUNTS_MAX):
            if byte_locks.try_lock(file, _ACCOUNT_LOCKS + number):
                break
        else:
            self._leave()
            count = ledger_format.ACCOUNTS_MAX
            raise OSError(errno.EUSERS, f"the cache has {count} users already")
        with self._mutex:
            self._number = number
            self._write_all_pins(file)

    def _leave(self) -> None:
        with self._mutex:
            if self._file is not None:
                os.close(self._file)
                self._file = None

    def _add(
        self, *, charged_bytes: int = 0, stored_bytes: int = 0, linking_bytes: int = 0
    ) -> None:
        limit_bytes, charged, stored, linking = self._account
        self._account = Account(
            limit_bytes,
            charged + charged_bytes,
            stored + stored_bytes,
            linking + linking_bytes,
        )

    def _write(self) -> None:
        """Write the account down; the caller has the mutex."""
        if self._file is not None:  # else it is written when there is one again
            account = self._account
            os.pwrite(self._file, account.serialize(), _account_start(self._number))
            self._written = account

    def _write_pin(self, number: int) -> None:
        if self._file is not None:
            record = ledger_format.serialize_pin(self._pins[number])
            start = _page_start(self._number) + number * ledger_format.PIN_BYTES
            os.pwrite(self._file, record, start)

    def _write_released(self) -> None:
        while self._released:
            with contextlib.suppress(OSError):  # ends with our process anyway
                self._write_pin(self._released.popleft())


def _is_stale(summary: Summary) -> bool:
    return not 0 <= time.time() - summary.counted_at_s < _ESTIMATE_VALID_S


def _account_start(number: int) -> int:
    return ledger_format.ACCOUNTS_START + number * ledger_format.ACCOUNT_BYTES


def _page_start(number: int) -> int:
    return ledger_format.PINS_START + number * ledger_format.PIN_PAGE_BYTES
