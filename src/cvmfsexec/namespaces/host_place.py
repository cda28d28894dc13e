"""A private directory of one session, in which the host mounts its repositories.

Each session has its own, so that two sessions of one installation never meet. It is
locked as long as a process of its session lives; a directory that nobody has locked was
left behind, and the next session clears it away. No process numbers are compared: they
mean nothing to another container, or node, that sees the same directory.
"""

import errno
import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress

from cvmfsexec import log
from cvmfsexec.errors import CvmfsError, FusermountError, NamespaceError
from cvmfsexec.namespaces.fusermount import Fusermount
from cvmfsexec.namespaces.mount_table import mount_of, read_mount_table

_PREFIX = "session-"
_LOCK = "lock"


class HostPlace:
    """The directory of one session.

    Attributes:
        path: Where it is; links are resolved, as in the kernel's table of mounts.
    """

    def __init__(self, base: str) -> None:
        """Make it.

        Args:
            base: Directory that only this user can write to.

        Raises:
            FusermountError: It cannot be made.
        """
        base = os.path.realpath(base)
        self._lock = -1
        while self._lock < 0:  # somebody took it for one that was left behind
            self.path = os.path.join(base, _PREFIX + os.urandom(6).hex())
            try:
                os.makedirs(base, mode=0o700, exist_ok=True)
                os.mkdir(self.path, mode=0o700)
            except FileNotFoundError:
                continue  # the last session that ended has removed the base
            except OSError as error:
                raise FusermountError(
                    f"cannot create {self.path}: {error.strerror}"
                ) from error
            self._lock = _take_lock(self.path)

    @property
    def is_shared(self) -> bool:
        """Whether what is mounted here later arrives in copies of our namespace."""
        mount = mount_of(self.path)
        return mount is not None and mount.is_shared

    def mountpoint(self, name: str) -> str:
        """Return where a repository is mounted; ``make_mountpoints`` makes it."""
        return os.path.join(self.path, name)

    def make_mountpoints(self, names: Iterable[str]) -> None:
        """Make the directories to mount on.

        Raises:
            FusermountError: One cannot be made.
        """
        for name in names:
            path = self.mountpoint(name)
            try:
                os.mkdir(path, mode=0o755)
            except OSError as error:
                raise FusermountError(
                    f"cannot create {path}: {error.strerror}"
                ) from error

    def clear_away(self, helper: Fusermount) -> None:
        """Unmount all that is mounted here, the latest first, and remove it.

        What cannot be unmounted stays, with a warning.
        """
        _clear_away(self.path, helper)
        with suppress(OSError):
            os.rmdir(os.path.dirname(self.path))


class HostPoints:
    """Mount points in the place of a session, as its side on the host has them."""

    descriptors = ()

    def __init__(self, helper: Fusermount) -> None:
        """Remember who mounts."""
        self._helper = helper

    def open(self) -> None:
        """Nothing is needed."""

    def make(self, mountpoint: str) -> None:
        """Make one; it may be there already.

        Raises:
            OSError: It cannot be made.
        """
        with suppress(FileExistsError):
            os.mkdir(mountpoint, mode=0o755)

    def unmount(self, mountpoint: str) -> None:
        """Take a mount away, also if somebody looks at it just now.

        Raises:
            NamespaceError: It is still there.
        """
        try:
            self._helper.unmount(mountpoint, is_lazy=True)
        except FusermountError as error:
            raise NamespaceError(str(error), errno=errno.EIO) from error
        with suppress(OSError):
            os.rmdir(mountpoint)

    def clear(self, mountpoint: str) -> None:
        """Take away whatever a file server that failed has left."""
        if any(one.mountpoint == mountpoint for one in read_mount_table()):
            with suppress(CvmfsError):
                self._helper.unmount(mountpoint, is_lazy=True)
        with suppress(OSError):
            os.rmdir(mountpoint)


def clear_away_dead(base: str, helper: Fusermount) -> None:
    """Clear away what sessions that were killed have left in a directory."""
    for path, lock in _lock_dead(base):
        log.detail("clearing away %s, left behind", path)
        _clear_away(path, helper)
        os.close(lock)


def list_dead(base: str) -> list[str]:
    """Return the directories that sessions that were killed have left behind."""
    dead = []
    for path, lock in _lock_dead(base):
        dead.append(path)
        os.close(lock)
    return dead


def _lock_dead(base: str) -> Iterator[tuple[str, int]]:
    """Yield what nobody has locked; it is locked now, and the caller lets go of it."""
    with suppress(FileNotFoundError):
        for name in os.listdir(base):
            path = os.path.join(os.path.realpath(base), name)
            if name.startswith(_PREFIX) and (lock := _take_lock(path)) >= 0:
                yield path, lock


def _take_lock(place: str) -> int:
    """Return a descriptor that holds the lock; -1 if it is another's, or gone."""
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        descriptor = os.open(os.path.join(place, _LOCK), flags, 0o600)
    except OSError:
        return -1
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return -1
    if not os.fstat(descriptor).st_nlink:  # removed by who had the lock before
        os.close(descriptor)
        return -1
    return descriptor


def _clear_away(path: str, helper: Fusermount) -> None:
    is_clear = True
    for one in reversed(read_mount_table()):
        if one.is_below(path):
            try:
                helper.unmount(one.mountpoint, is_lazy=True)
            except CvmfsError as error:
                is_clear = False
                log.warning("%s", error)
    if not is_clear:
        return  # what is a mount point somewhere must not be removed
    with suppress(OSError):
        for name in os.listdir(path):
            if name != _LOCK:
                os.rmdir(os.path.join(path, name))
        os.unlink(os.path.join(path, _LOCK))
        os.rmdir(path)
