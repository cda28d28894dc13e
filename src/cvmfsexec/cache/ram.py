"""The cache in memory that the sessions of a user on a node share.

It is a directory of objects in ``/dev/shm``, one for each user, with the limit that is
configured. What lies there counts towards the memory of the job that wrote it.

Who uses the directory holds a shared lock on it, which the kernel ends with the
process. Who ends its use, and any session of the user when it ends, tries to get the
lock for itself alone; whoever gets it was the last, and removes the directory. After
all were killed at once it stays until then, and serves whoever comes before that.

A directory is renamed before it is emptied, so that nobody sees a part of it. Who has
opened it just before finds it gone when it has the lock, and makes a new one.
"""

import contextlib
import os
import stat
import time
from typing import Self

from cvmfsexec import log
from cvmfsexec.cache.directory import DirectoryStore
from cvmfsexec.cache.open_files import close_quietly
from cvmfsexec.cache.private_directory import check_privacy
from cvmfsexec.errors import CacheError

MEMORY = "/dev/shm"  # noqa: S108 -- what is in it is checked to be the user's own

_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
_ATTEMPTS = 100  # who holds the lock alone lets go of it within a millisecond
_PAUSE_S = 0.01
_REMOVED = ".removed."


class RamStore(DirectoryStore):
    """An ``ObjectStore`` in memory that ends with its last user."""

    _place = ""
    _use = -1

    @classmethod
    def open_for(cls, uid: int, limit_bytes: int, memory: str = MEMORY) -> Self:
        """Open the cache of a user, making it if needed.

        Args:
            uid: The user's number on the host.
            limit_bytes: How much it may hold.
            memory: Where the memory is seen.

        Raises:
            CacheError: There is no such memory, or somebody else has taken the name.
        """
        place = place_of(uid, memory)
        try:
            use = _begin_use(place)
        except OSError as error:
            raise CacheError(f"cannot use {place}: {error.strerror}") from error
        try:
            store = cls.on_descriptor(place, os.dup(use), limit_bytes)
        except BaseException:
            close_quietly(use)
            raise
        store.use(place, use)
        return store

    def use(self, place: str, descriptor: int) -> None:
        """Take over the descriptor whose lock says that a place is in use."""
        self._place, self._use = place, descriptor

    def close(self) -> None:
        """See ``ObjectStore``; the last one removes everything."""
        super().close()
        close_quietly(self._use)
        remove_unused(self._place)


def place_of(uid: int, memory: str = MEMORY) -> str:
    """Return where the cache of a user lies; all its sessions agree on it."""
    return f"{memory}/cvmfsexec.{uid}"


def remove_unused(place: str) -> bool:
    """Remove a cache in memory if nobody uses it; return whether there was one."""
    directory = _take_alone(place)
    if directory is not None:
        with contextlib.suppress(OSError):  # it is not ours any more
            os.rename(place, f"{place}{_REMOVED}{os.urandom(8).hex()}")
        close_quietly(directory)
    _remove_renamed(place)
    return directory is not None


def is_unused(place: str) -> bool:
    """Whether there is a cache in memory that nobody uses."""
    directory = _take_alone(place)
    if directory is None:
        return False
    close_quietly(directory)
    return True


def _take_alone(place: str) -> int | None:
    """Return a descriptor of a cache that nobody else uses until it is closed."""
    import fcntl

    try:
        directory = os.open(place, _FLAGS)
    except OSError:
        return None
    try:
        if os.fstat(directory).st_uid == os.geteuid():
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(directory, place):
                return directory
    except OSError:  # somebody uses it
        pass
    close_quietly(directory)
    return None


def _remove_renamed(place: str) -> None:
    """Remove what was renamed, also by those who were killed before they removed it."""
    import shutil

    memory, _, name = place.rpartition("/")
    try:
        with os.scandir(memory) as entries:
            for entry in entries:
                if entry.name.startswith(name + _REMOVED) and _is_own(entry):
                    shutil.rmtree(entry.path, ignore_errors=True)
    except OSError as error:
        log.debug("cannot look for what was left in %s: %s", memory, error.strerror)


def _is_own(entry: os.DirEntry[str]) -> bool:
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()


def _begin_use(place: str) -> int:
    """Return a locked descriptor of the directory, which is the one at its place.

    Raises:
        OSError: As the kernel says.
        CacheError: It is somebody else's, or others can write it.
    """
    for _ in range(_ATTEMPTS):
        directory = _open_or_make(place)
        try:
            check_privacy(place, os.fstat(directory))
            if _lock_shared(directory) and _is_at(directory, place):
                return directory
        except BaseException:
            close_quietly(directory)
            raise
        close_quietly(directory)
        time.sleep(_PAUSE_S)
    raise CacheError(f"{place} is being removed for too long")


def _open_or_make(place: str) -> int:
    try:
        return os.open(place, _FLAGS)
    except FileNotFoundError:
        with contextlib.suppress(FileExistsError):  # another session was faster
            os.mkdir(place, 0o700)
        return os.open(place, _FLAGS)


def _lock_shared(directory: int) -> bool:
    import fcntl

    try:
        fcntl.flock(directory, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(directory: int, place: str) -> bool:
    try:
        found = os.stat(place, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(found, os.fstat(directory))
