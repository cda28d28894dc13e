"""A lease: who may tidy up a directory that several nodes share.

Network file systems may have no locks, and clocks of nodes differ. A lease needs
neither: it is a file that is created exclusively. Its modification time says when its
holder renewed it last, by the clock of the file server; what time it is there, a file
tells that is made for the question. A lease that was not renewed for long is taken
over.

A holder that was stopped, and goes on when another one has taken its lease over, finds
that out when it renews: what it renews is the file that it has looked into, not the one
that has got its name meanwhile.

Two who take over the same stale lease at the same moment: each renames it to a name of
its own, and looks what it has got. One has got the stale file; the other either
nothing, or the new lease of the first, which it puts back. Between the two renames the
first may be without its lease; it finds that out when it renews.

**A lease is advice**: in the worst case two tidy up at once, which removes a little
  more.
"""

import contextlib
import os
import re
import time

from cvmfsexec.cache.open_files import close_quietly

FILE_NAME = "cvmfsexec.lease"
DURATION_S = 300.0

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
_READ_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_MODE = 0o660
_TOKEN_BYTES = 8
_LEFT = re.compile(re.escape(FILE_NAME) + r"\.[0-9a-f]{16}")


class Lease:
    """The lease on one directory; belongs to one thread.

    Args:
        directory: Descriptor of it, which stays the caller's.
    """

    def __init__(self, directory: int) -> None:
        self._directory = directory
        self._token = os.urandom(_TOKEN_BYTES)
        self._own_name = f"{FILE_NAME}.{self._token.hex()}"
        self._is_held = False

    def acquire(self) -> bool:
        """Take the lease; return whether nobody else has it."""
        try:
            if not self._create():
                return self._take_over() and self._create()
        except OSError:
            return False  # nobody can tidy up what cannot be written
        return True

    def renew(self) -> bool:
        """Show that the holder lives; return whether it still has the lease."""
        if not self._is_held:
            return False
        self._is_held = False
        with contextlib.suppress(OSError):
            descriptor = os.open(FILE_NAME, _READ_FLAGS, dir_fd=self._directory)
            try:
                if os.read(descriptor, _TOKEN_BYTES) == self._token:
                    os.utime(descriptor)
                    self._is_held = True
            finally:
                close_quietly(descriptor)
        return self._is_held

    def release(self) -> None:
        """Let others have the lease."""
        if self.renew():
            self._take_away(self._token)
        self._is_held = False

    def clear_abandoned(self, now_s: float) -> None:
        """Remove what others have left who were killed with a lease in their hands.

        Args:
            now_s: What :meth:`now_s` has told.

        Raises:
            OSError: The directory cannot be read.
        """
        for name in os.listdir(self._directory):
            if not _LEFT.fullmatch(name):
                continue
            with contextlib.suppress(OSError):  # removed meanwhile
                status = os.stat(name, dir_fd=self._directory, follow_symlinks=False)
                if abs(now_s - status.st_mtime) > DURATION_S:
                    os.unlink(name, dir_fd=self._directory)

    def now_s(self) -> float:
        """Return what time it is where modification times come from.

        Raises:
            OSError: Nothing can be written there.
        """
        descriptor = os.open(self._own_name, _FLAGS, _MODE, dir_fd=self._directory)
        try:
            return os.fstat(descriptor).st_mtime
        finally:
            close_quietly(descriptor)
            self._unlink(self._own_name)

    def _create(self) -> bool:
        try:
            descriptor = os.open(FILE_NAME, _FLAGS, _MODE, dir_fd=self._directory)
        except FileExistsError:
            return False
        try:
            os.write(descriptor, self._token)
        except OSError:
            self._unlink(FILE_NAME)  # a full disk; nobody shall wait for nobody
            raise
        finally:
            close_quietly(descriptor)
        self._is_held = True
        return True

    def _take_over(self) -> bool:
        """Remove a stale lease; return whether there is none any more."""
        try:
            token, renewed_s = self._read(FILE_NAME)
            if abs(self.now_s() - renewed_s) <= DURATION_S:
                return False
        except FileNotFoundError:
            return True  # released
        return self._take_away(token, renewed_s)

    def _take_away(self, token: bytes, renewed_s: float | None = None) -> bool:
        """Remove a lease; return whether it is not there any more.

        Args:
            token: Who wrote it; another's is put back.
            renewed_s: When; ``None`` for any time.
        """
        try:
            rename_in(self._directory, FILE_NAME, self._own_name)
        except FileNotFoundError:
            return True  # somebody else has just taken it over
        found = self._read(self._own_name)
        if found[0] == token and renewed_s in (None, found[1]):
            self._unlink(self._own_name)
            return True
        with contextlib.suppress(OSError):
            rename_in(self._directory, self._own_name, FILE_NAME)
        return False

    def _read(self, name: str) -> tuple[bytes, float]:
        """Return who wrote a lease (an inode may be used again), and when."""
        try:
            descriptor = os.open(name, _READ_FLAGS, dir_fd=self._directory)
        except PermissionError:  # another user's, with a strict umask
            status = os.stat(name, dir_fd=self._directory, follow_symlinks=False)
            return b"", status.st_mtime
        try:
            token = os.read(descriptor, _TOKEN_BYTES)
            return token, os.fstat(descriptor).st_mtime
        finally:
            close_quietly(descriptor)

    def _unlink(self, name: str) -> None:
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=self._directory)


class Renewal:
    """Renews a lease now and then while its holder works."""

    def __init__(self, lease: Lease) -> None:
        self._lease = lease
        self._next_s = time.monotonic() + DURATION_S / 10

    def is_held(self) -> bool:
        """Whether to go on."""
        if time.monotonic() < self._next_s:
            return True
        self._next_s = time.monotonic() + DURATION_S / 10
        return self._lease.renew()


def rename_in(directory: int, old: str, new: str) -> None:
    """Rename a file in a directory.

    Raises:
        OSError: As the kernel says.
    """
    os.rename(old, new, src_dir_fd=directory, dst_dir_fd=directory)
