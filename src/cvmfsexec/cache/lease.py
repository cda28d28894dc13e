"""A lease: who may tidy up a directory that several nodes share.

Network file systems may have no locks, and clocks of nodes differ. A lease needs
neither: it is a file that is created exclusively. Its modification time says when its
holder renewed it last, by the clock of the file server; what time it is there, a file
tells that is made for the question. A lease that was not renewed for long is taken
over.

Two who take over the same stale lease at the same moment: each renames it to a name of
its own, and looks what it has got. One has got the stale file; the other either
nothing, or the new lease of the first, which it puts back. Between the two renames the
first may be without its lease; it finds that out when it renews.

**A lease is advice**: in the worst case two tidy up at once, which removes a little
  more.
"""

import contextlib
import os
import time

FILE_NAME = "cvmfsexec.lease"
DURATION_S = 300.0

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
_READ_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_MODE = 0o660
_TOKEN_BYTES = 8


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
            if self._read(FILE_NAME)[0] == self._token:
                os.utime(FILE_NAME, dir_fd=self._directory)
                self._is_held = True
        return self._is_held

    def release(self) -> None:
        """Let others have the lease."""
        if self.renew():
            self._unlink(FILE_NAME)
        self._is_held = False

    def now_s(self) -> float:
        """Return what time it is where modification times come from.

        Raises:
            OSError: Nothing can be written there.
        """
        descriptor = os.open(self._own_name, _FLAGS, _MODE, dir_fd=self._directory)
        try:
            return os.fstat(descriptor).st_mtime
        finally:
            os.close(descriptor)
            self._unlink(self._own_name)

    def _create(self) -> bool:
        try:
            descriptor = os.open(FILE_NAME, _FLAGS, _MODE, dir_fd=self._directory)
        except FileExistsError:
            return False
        try:
            os.write(descriptor, self._token)
        finally:
            os.close(descriptor)
        self._is_held = True
        return True

    def _take_over(self) -> bool:
        """Remove a stale lease; return whether there is none any more."""
        try:
            found = self._read(FILE_NAME)
            if abs(self.now_s() - found[1]) <= DURATION_S:
                return False
            rename_in(self._directory, FILE_NAME, self._own_name)
        except FileNotFoundError:
            return True  # released, or somebody else has just taken it over
        if self._read(self._own_name) != found:
            with contextlib.suppress(OSError):
                rename_in(self._directory, self._own_name, FILE_NAME)
            return False
        self._unlink(self._own_name)
        return True

    def _read(self, name: str) -> tuple[bytes, float]:
        """Return who wrote a lease (an inode may be used again), and when."""
        descriptor = os.open(name, _READ_FLAGS, dir_fd=self._directory)
        try:
            token = os.read(descriptor, _TOKEN_BYTES)
            return token, os.fstat(descriptor).st_mtime
        finally:
            os.close(descriptor)

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
