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
* **Too much rather than too little.** Where it cannot be known whether an object is
  counted already, it is counted: the dead may have been about to link it, and so may
  those who store while somebody counts. To make room begins with counting.
* **The file is a hint.** If it is missing, damaged or cut off, the next who looks makes
  it anew from an estimate, and the cache is counted in the background. Who finds his
  account gone writes it again; before each object he looks whether the file is.

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
from cvmfsexec.cache.ledger_book import ACCOUNT_LOCKS, Book, account_start, page_start
from cvmfsexec.cache.ledger_format import Account
from cvmfsexec.cache.open_files import close_quietly
from cvmfsexec.format.digest import ContentHash

if TYPE_CHECKING:
    from cvmfsexec.cache.usage import Usage

FILE_NAME = "cvmfsexec.ledger"

LOCK_PATIENCE_S = 2.0
_LOW_PATIENCE_S = 0.02
_LOW_PATIENCE_FOR_S = 10.0  # after a wait in vain: the holder may be stopped
_PAUSE_S = 0.0005

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
_LEDGER_LOCK = 1 << 62
_BROOM_LOCK = _LEDGER_LOCK + 1

_OPENINGS_MAX = 10


class Ledger:
    """One process's account in the ledger of a cache directory.

    Args:
        directory: Descriptor of the cache directory, which stays the caller's.
        limit_bytes: The limit that this process goes by; 0 for none.
        estimate: Tells how much the directory holds, if the ledger does not.
        note_lack: Called when it turns out that the directory has no locks. The account
            is kept in memory then: what others store shows in estimates only, and what
            they use not at all.
    """

    def __init__(
        self,
        directory: int,
        limit_bytes: int,
        estimate: "Callable[[], Usage]",
        note_lack: Callable[[], object] = lambda: None,
    ) -> None:
        self._directory = directory
        self._estimate = estimate
        self._note_lack = note_lack
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

    @contextlib.contextmanager
    def locked(self, *, is_lenient: bool = False) -> Iterator[Book]:
        """Have the ledger to oneself for the time of a ``with``; not for long.

        Args:
            is_lenient: See ``Book``; for who makes room.

        Raises:
            OSError: It cannot be had, or not within ``LOCK_PATIENCE_S``.
        """
        if not self._turn.acquire(timeout=LOCK_PATIENCE_S):
            raise TimeoutError(errno.ETIMEDOUT, "another thread keeps the ledger")
        try:
            file, is_new = self._lock()
            try:
                book = Book(
                    file,
                    self._number,
                    is_private=self._is_private,
                    is_lenient=is_lenient,
                )
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
            with self.locked(is_lenient=True):
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
        """Charge the account, or give back; what it has stored goes to the base.

        Raises:
            OSError: It could not be written down, and is not charged.
        """
        with self._mutex:
            before = self._account
            if before.stored_bytes:
                book.add_to_base(before.stored_bytes)
            self._add(
                charged_bytes=charged_bytes - before.stored_bytes,
                stored_bytes=-before.stored_bytes,
            )
            try:
                book.write_account(self._account)
            except OSError:
                self._account = before
                raise
            self._written = self._account

    def count(self, size_bytes: int) -> None:
        """Count an object that will be visible in a moment, and was charged.

        Raises:
            OSError: It could not be written down, and is not counted.
        """
        if not self._is_still_there():
            with self.locked():
                pass  # we have an account in the one that has taken its place
        with self._mutex:
            before = self._account
            self._add(stored_bytes=size_bytes, linking_bytes=size_bytes)
            try:
                self._write()
            except OSError:
                self._account = before
                raise

    def count_linked(self, size_bytes: int) -> None:
        """Take notice that it is visible."""
        with self._mutex, contextlib.suppress(OSError):
            self._add(linking_bytes=-size_bytes)
            self._write()

    def count_refused(self, size_bytes: int) -> None:
        """Take notice that it will not be visible; it is charged as before."""
        with self._mutex, contextlib.suppress(OSError):
            self._add(stored_bytes=-size_bytes, linking_bytes=-size_bytes)
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
        with contextlib.suppress(OSError), self.locked() as book, self._mutex:
            self._is_closed = True
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
            try:
                self._wait_for_lock(file)
            except OSError as error:
                if self._is_private or not byte_locks.means_no_locks(error):
                    raise
                self._is_private = True
                self._note_lack()
            else:
                if self._is_still_there():
                    if is_new:
                        self._register(file)
                    return file, is_new
            self._leave()  # it has no locks, or is not that of the directory any more
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
            if status.st_nlink > 1:  # a copy of the cache, made of links, has it too
                close_quietly(file)
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(FILE_NAME, dir_fd=self._directory)
                return self._open()
            self._identity = (status.st_dev, status.st_ino)
            self._file = file
        return self._file

    def _settle(self, book: Book, *, is_new: bool) -> None:
        """Read the ledger, and write into it again what is ours and was lost."""
        with self._mutex:
            self._write_released()
            is_lost = not book.has(self._written)
            book.read(self._account, self._estimate, is_new=is_new)
            self._written = self._account
            if is_lost and self._account.stored_bytes:
                book.doubt()  # who made it anew may have counted that, too
            if is_lost and not is_new and self._file is not None:
                self._write_all_pins(self._file)

    def _write_all_pins(self, file: int) -> None:
        with contextlib.suppress(OSError):  # no room: nothing is pinned then
            page = ledger_format.serialize_pins(self._pins)
            os.pwrite(file, page, page_start(self._number))

    def _register(self, file: int) -> None:
        """Take an account that belongs to none of the living."""
        for number in range(ledger_format.ACCOUNTS_MAX):
            if byte_locks.try_lock(file, ACCOUNT_LOCKS + number):
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
                close_quietly(self._file)
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
        if self._file is None or self._is_closed:
            raise OSError(errno.ESTALE, "the ledger is gone")
        account = self._account
        os.pwrite(self._file, account.serialize(), account_start(self._number))
        self._written = account

    def _write_pin(self, number: int) -> None:
        if self._file is not None:
            record = ledger_format.serialize_pin(self._pins[number])
            start = page_start(self._number) + number * ledger_format.PIN_BYTES
            os.pwrite(self._file, record, start)

    def _write_released(self) -> None:
        while self._released:
            with contextlib.suppress(OSError):  # ends with our process anyway
                self._write_pin(self._released.popleft())
