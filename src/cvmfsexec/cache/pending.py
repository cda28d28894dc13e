"""Files under way: what bytes are written to until they may be seen under a name.

Wherever possible such a file has no name at all (``O_TMPFILE``). It is linked to its
place when it is whole; if its writer dies before, in whatever way, the kernel frees
it, and nothing is left. This costs no more than to create and rename.

Facts about unnamed files:

* They are linked through ``/proc/self/fd``; to link a bare descriptor is a privilege.
* A link never replaces. For objects that is right: the one that is there is equal.
* The descriptor does not learn of its name: ``/proc/self/fd/N`` still points to
  ``/path/#123 (deleted)``. Whoever needs a path must open the file by its name.
* NFS, Lustre, overlayfs before Linux 6.1 and others do not have them. That shows when
  the first is made or linked, and is remembered.

There, a file has a name in ``txn/`` until it has its own, and is locked (``flock``) by
its writer. The kernel lets go of the lock when the writer dies, in whichever pid
namespace, so a file that can be locked by somebody else is a dead one's and is removed
at the next start. Nobody waits: a lock that is held means "leave it alone". Between
creation and lock lies a gap in which a live file can be taken for a dead one; its
writer finds the name gone when it is done, and merely keeps nothing.

Where a file system has no such locks, a file that was not written for an hour is dead.
Names of other programs (the original client's) are left alone.
"""

import contextlib
import errno
import itertools
import os
import stat
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeVar

from cvmfsexec.cache import scratch
from cvmfsexec.cache.open_files import close_quietly

DIRECTORY = "txn"

PREFIX = "cvmfsexec."
"""How the names of our files begin."""

AGE_OF_DEATH_S = 3600.0
"""An idle transfer is cut off within minutes; who was stopped for longer, and finds the
name of a file gone, keeps nothing. On a directory of many nodes, what thousands of
jobs leave in a day would take room that nobody counts."""

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_SHARED_FILE = 0o660  # as the original makes alien caches
_SHARED_DIRECTORY = 0o770
_DIRECTORIES_MADE_MAX = 3  # who makes room removes empty ones

# Kernels that do not know O_TMPFILE see an attempt to write to a directory.
_NO_UNNAMED_FILES = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL})
# No /proc, one that is masked, or a file system or security module without links.
_NO_LINKS = _NO_UNNAMED_FILES | {
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EACCES,
    errno.EPERM,
    errno.EXDEV,
}

# Of files with names: sshfs, file systems of cameras, AFS between directories.
_NO_HARD_LINKS = frozenset(
    {
        errno.EPERM,
        errno.EOPNOTSUPP,
        errno.ENOSYS,
        errno.EINVAL,
        errno.EMLINK,
        errno.EXDEV,
    }
)

_T = TypeVar("_T")


class PendingFile(NamedTuple):
    """A file under way.

    Attributes:
        descriptor: Open for reading and writing.
        is_in_cache: Whether it can become visible in the cache directory.
        name: What it is called for now, below that directory; ``None`` for nothing.
        room_bytes: How much it may hold; ``None``: until the kernel refuses.
    """

    descriptor: int
    is_in_cache: bool
    name: str | None = None
    room_bytes: int | None = None

    def has_room(self, size_bytes: int) -> bool:
        """Whether the file may grow to a size."""
        return self.room_bytes is None or size_bytes <= self.room_bytes


class PendingFiles:
    """The files under way below one directory; safe to use from any thread.

    Args:
        directory: Descriptor of the directory, which stays the caller's.
        is_shared: Whether the group may read and write what becomes visible.
    """

    def __init__(self, directory: int, *, is_shared: bool = False) -> None:
        self._directory = directory
        self._is_shared = is_shared
        self._has_unnamed = True  # until it turns out otherwise
        self._has_hard_links = True  # likewise
        # Random, not a pid: several pid namespaces and hosts share one directory.
        self._token = os.urandom(8).hex()
        self._numbers = itertools.count()

    def create(self) -> PendingFile:
        """Return a new empty file, to be given to ``discard`` unless it is kept.

        Raises:
            OSError: As the kernel says: no room, read-only, no descriptor left.
        """
        if self._has_unnamed:
            try:
                descriptor = scratch.open_unnamed(".", dir_fd=self._directory)
            except OSError as error:
                if error.errno not in _NO_UNNAMED_FILES:
                    raise
                self._has_unnamed = False
            else:
                return PendingFile(descriptor, is_in_cache=True)
        descriptor, name = self._create_named()
        return PendingFile(descriptor, is_in_cache=True, name=name)

    def keep(self, file: PendingFile, path: str) -> bool:
        """Make a file visible, unless an equal one is; the descriptor stays open.

        Args:
            file: What ``create`` returned, whole.
            path: Its place below the directory; one directory on the way is made.

        Returns:
            Whether it is; else an equal one was there.

        Raises:
            OSError: As the kernel says; the file is as it was.
        """
        if self._is_shared:
            os.fchmod(file.descriptor, _SHARED_FILE)
        try:
            if file.name is None:
                self._place(file, path)
            else:
                self._place_beside(file.name, path)
        except FileExistsError:
            self.forget(file)
            return False
        return True

    def replace(self, file: PendingFile, path: str) -> None:
        """Make a file visible in place of what is there; else as ``keep``.

        Only a rename replaces, and it needs a name. Whoever dies between giving one
        and the rename, two system calls, leaves it to the next start or replacement.
        """
        try:
            self._place(file, path)
        except FileExistsError:
            self.remove_dead()
            name = self._new_name()
            _lock(file.descriptor)
            self._place(file, name)
            try:
                self._rename(name, path)
            except OSError:
                self._unlink(name)
                raise

    def discard(self, file: PendingFile) -> None:
        """Close and remove a file that is not wanted any more."""
        self.forget(file)
        close_quietly(file.descriptor)

    def forget(self, file: PendingFile) -> None:
        """Remove a file that will not be kept; the descriptor stays open."""
        if file.name is not None:
            self._unlink(file.name)

    def remove_dead(self) -> int:
        """Remove the files whose writers are dead; return how many there were."""
        return self._visit(_remove_if_dead)

    def count_dead(self) -> int:
        """Return how many files there are whose writers are dead."""
        return self._visit(_is_dead_file)

    def _visit(self, act: Callable[[int, str], bool]) -> int:
        """Call a function for each file that has a name; count where it said yes."""
        try:
            directory = os.open(
                DIRECTORY,
                os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC,
                dir_fd=self._directory,
            )
        except OSError:
            return 0  # not there yet
        try:
            names = [n for n in os.listdir(directory) if n.startswith(PREFIX)]
            return sum(act(directory, name) for name in names)
        finally:
            close_quietly(directory)

    def _place(self, file: PendingFile, path: str) -> None:
        """Rename or link a file; only a link can raise ``FileExistsError``."""
        if file.name is not None:
            self._rename(file.name, path)
            return
        try:
            self._link(file.descriptor, path)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            self._has_unnamed = False
            self._place_copy(file.descriptor, path)

    def _place_beside(self, name: str, path: str) -> None:
        """Give a file with a name its place, where no other is.

        On a network file system, who has the other open on another node would lose it
        if that were replaced, equal or not.
        """
        directory = self._directory
        if self._has_hard_links:
            link = partial(os.link, src_dir_fd=directory, dst_dir_fd=directory)
            try:
                self._make(path, partial(link, name, path, follow_symlinks=False))
            except OSError as error:
                if error.errno not in _NO_HARD_LINKS:
                    raise
                self._has_hard_links = False
            else:
                self._unlink(name)
                return
        if os.access(path, os.F_OK, dir_fd=directory):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        self._rename(name, path)

    def _link(self, descriptor: int, path: str) -> None:
        # Python follows the link in /proc only if a directory is given, too.
        link = partial(os.link, dst_dir_fd=self._directory, follow_symlinks=True)
        self._make(path, partial(link, f"/proc/self/fd/{descriptor}", path))

    def _rename(self, name: str, path: str) -> None:
        directory = self._directory
        rename = partial(os.rename, src_dir_fd=directory, dst_dir_fd=directory)
        self._make(path, partial(rename, name, path))

    def _place_copy(self, source: int, path: str) -> None:
        """Do with a copy that has a name what cannot be done with one that has none."""
        descriptor, name = self._create_named()
        try:
            scratch.copy_start(source, descriptor, os.fstat(source).st_size)
            scratch.flush(descriptor)
            if self._is_shared:
                os.fchmod(descriptor, _SHARED_FILE)
            self._rename(name, path)
        except OSError:
            self._unlink(name)
            raise
        finally:
            close_quietly(descriptor)

    def _create_named(self) -> tuple[int, str]:
        while True:
            name = self._new_name()
            create = partial(os.open, name, _FLAGS, 0o600, dir_fd=self._directory)
            try:
                descriptor = self._make(name, create)
            except FileExistsError:  # a forked child counts from the same number
                continue
            _lock(descriptor)
            return descriptor, name

    def _new_name(self) -> str:
        return f"{DIRECTORY}/{PREFIX}{self._token}.{next(self._numbers)}"

    def _make(self, path: str, make: Callable[[], _T]) -> _T:
        """Make something, after the directory that it lies in if that is missing."""
        for _ in range(_DIRECTORIES_MADE_MAX):
            try:
                return make()
            except FileNotFoundError:
                with contextlib.suppress(FileExistsError):  # another process was faster
                    self._make_directory(os.path.dirname(path))
        return make()

    def _make_directory(self, path: str) -> None:
        os.mkdir(path, 0o700, dir_fd=self._directory)
        if self._is_shared:  # whatever the umask; a setgid bit is inherited, and stays
            mode = os.stat(path, dir_fd=self._directory).st_mode & stat.S_ISGID
            os.chmod(path, mode | _SHARED_DIRECTORY, dir_fd=self._directory)

    def _unlink(self, name: str) -> None:
        with contextlib.suppress(OSError):  # the next start removes it
            os.unlink(name, dir_fd=self._directory)


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
        close_quietly(descriptor)


def _is_dead_file(directory: int, name: str) -> bool:
    try:
        descriptor = os.open(name, os.O_RDWR | os.O_CLOEXEC, dir_fd=directory)
    except OSError:
        return False  # renamed meanwhile
    try:
        return _is_dead(descriptor)
    finally:
        close_quietly(descriptor)


def _is_dead(descriptor: int) -> bool:
    locked = _lock(descriptor)
    if locked is None:
        return time.time() - os.fstat(descriptor).st_mtime > AGE_OF_DEATH_S
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
