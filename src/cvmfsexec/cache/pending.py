"""Files under way: what stands in ``txn/`` until it is renamed to where it belongs.

Each file is locked (``flock``) by its writer. The kernel lets go of the lock when the
writer dies, in whatever way and in whichever pid namespace, so a file that can be
locked by somebody else is a dead one's and is removed at the next start. Nobody waits:
a lock that is held means "leave it alone". Between creation and lock lies a gap in
which a live file can be taken for a dead one; its writer finds the name gone when it
renames, and merely keeps nothing.

Where a file system has no such locks, a file that was not written for a day is dead.
Names of other programs (the original client's) are left alone.
"""

import contextlib
import itertools
import os
import time

DIRECTORY = "txn"

_PREFIX = "cvmfsexec."
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_AGE_OF_DEATH_S = 86_400  # an idle transfer is cut off within minutes


class PendingFiles:
    """The files under way below one directory; safe to use from any thread.

    Args:
        directory: Descriptor of the directory that holds ``txn/``; stays the caller's.
    """

    def __init__(self, directory: int) -> None:
        self._directory = directory
        # Random, not a pid: several pid namespaces and hosts share one directory.
        self._token = os.urandom(8).hex()
        self._numbers = itertools.count()

    def create(self) -> tuple[int, str]:
        """Return a new empty file: its descriptor, and its name below the directory.

        Raises:
            OSError: As the kernel says: no room, read-only, no descriptor left.
        """
        try:
            descriptor, name = self._create()
        except FileNotFoundError:
            self._make_directory()
            descriptor, name = self._create()
        _lock(descriptor)
        return descriptor, name

    def _create(self) -> tuple[int, str]:
        while True:
            name = f"{DIRECTORY}/{_PREFIX}{self._token}.{next(self._numbers)}"
            try:
                return os.open(name, _FLAGS, 0o600, dir_fd=self._directory), name
            except FileExistsError:  # a forked child counts from the same number
                continue

    def _make_directory(self) -> None:
        with contextlib.suppress(FileExistsError):  # another process was faster
            os.mkdir(DIRECTORY, 0o700, dir_fd=self._directory)

    def forget(self, name: str) -> None:
        """Remove a file that will not be renamed; the descriptor is the caller's."""
        with contextlib.suppress(OSError):  # the next start removes it
            os.unlink(name, dir_fd=self._directory)

    def remove_dead(self) -> int:
        """Remove the files whose writers are dead; return how many there were."""
        try:
            directory = os.open(
                DIRECTORY,
                os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC,
                dir_fd=self._directory,
            )
        except OSError:
            return 0  # not there yet
        try:
            names = [n for n in os.listdir(directory) if n.startswith(_PREFIX)]
            return sum(_remove_if_dead(directory, name) for name in names)
        finally:
            os.close(directory)


def _remove_if_dead(directory: int, name: str) -> bool:
    try:
        descriptor = os.open(name, os.O_RDWR | os.O_CLOEXEC, dir_fd=directory)
    except OSError:
        return False  # renamed meanwhile
    try:
        if not _is_dead(descriptor):
            return False
        os.unlink(name, dir_fd=directory)
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(descriptor)


def _is_dead(descriptor: int) -> bool:
    locked = _lock(descriptor)
    if locked is None:
        return time.time() - os.fstat(descriptor).st_mtime > _AGE_OF_DEATH_S
    return locked


def _lock(descriptor: int) -> bool | None:
    """Take the lock; ``False`` if somebody has it, ``None`` if there are no locks."""
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
