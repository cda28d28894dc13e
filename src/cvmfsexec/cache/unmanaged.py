"""What stores have in common whose directory nobody manages: no ledger, no quota.

Each process looks now and then how much is there, and tidies up if it gets the lease
(``tidying``). A directory that refuses an object is left alone for a while.

**A directory that was removed**, or taken away by its file server, is made anew; the
one that has taken its place, if the path leads to another, is used in its stead. Either
gets the number of the old descriptor: all that use it have the new one then.
"""

import errno
import os
import threading
import time
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from cvmfsexec import log
from cvmfsexec.cache.open_files import close_quietly
from cvmfsexec.cache.refusals import Refusals
from cvmfsexec.cache.tidying import RecentUsage, Tidying
from cvmfsexec.errors import CacheError

LOOK_S = 5.0
"""So often who fetches looks whether the path leads to the directory."""

_LAST_OF_THE_OLD_S = 5.0
"""So long there may be files under way of the directory that was removed."""

_ATTEMPTS = 2
_TOLD_MAX = 10
"""Who can write the directory above could make it begin anew all the time."""

_OF_THE_OLD = frozenset({errno.ENOENT, errno.ESTALE, errno.EACCES, errno.EPERM})
"""What is said of those: the kernel links them nowhere."""

_T = TypeVar("_T")


class Upkeep(NamedTuple):
    """How a directory is kept small.

    Attributes:
        step_bytes: Look again when so much was stored; ``None`` for never.
        tidy: Looks, and removes what is too much.
        measure: Returns how much is used.
    """

    step_bytes: int | None
    tidy: Callable[[], object]
    measure: Callable[[], int]


class UnmanagedStore:
    """The part of an ``ObjectStore`` that concerns its directory as a whole.

    Args:
        kind: What messages call it.
        path: Where the directory is.
        open_directory: Opens what is there, after making it if it is missing.
        directory: Descriptor of it; becomes the store's.
        upkeep: How it is kept small.
    """

    quota = None

    def __init__(
        self,
        kind: str,
        path: str,
        open_directory: Callable[[str], int],
        directory: int,
        upkeep: Upkeep,
    ) -> None:
        self.path = path
        self._name = f"{kind} {path}"
        self._open_directory = open_directory
        self._directory = directory
        self._beginning = threading.Lock()
        self._begun_anew_s = float("-inf")
        self._begun_count = 0
        self._looked_s = time.monotonic()
        self._tidying = Tidying(upkeep.step_bytes, upkeep.tidy)
        self._usage = RecentUsage(upkeep.measure, time.monotonic)
        self._refusals = Refusals(self._name, directory)

    def used_bytes(self) -> int | None:
        """See ``ObjectStore``; an estimate."""
        return self._usage.used_bytes()

    def note_stored(self, size_bytes: int) -> None:
        """Learn that an object was stored; perhaps it is time to look."""
        self._tidying.note(size_bytes)

    def end_upkeep(self) -> None:
        """Wait until nothing is tidied up any more."""
        self._tidying.close()

    def attempt(self, write: Callable[[], _T]) -> _T | None:
        """Write to the directory, and once more if that has begun anew.

        Returns:
            What ``write`` returns; ``None`` if the directory has refused it.

        Raises:
            CacheError: The fault is not the directory's: no descriptor is left.
        """
        for _ in range(_ATTEMPTS):
            try:
                return write()
            except OSError as error:
                if not self.note_refusal(error):
                    break
        return None

    def note_refusal(self, error: OSError) -> bool:
        """Take notice that the directory does not take an object, and see why.

        Returns:
            Whether to try again: the directory was removed, and has begun anew.

        Raises:
            CacheError: The fault is not the directory's: no descriptor is left.
        """
        with self._beginning:
            if _is_removed(self._directory):
                return self._begin_again(error)
            age_s = time.monotonic() - self._begun_anew_s
            if error.errno in _OF_THE_OLD and age_s < _LAST_OF_THE_OLD_S:
                return True  # another thread was faster
            if isinstance(error, FileNotFoundError):
                log.debug("cache: a file under way is gone")
            else:
                self._refusals.note(error)
            return False

    def _begin_again(self, error: OSError) -> bool:
        """Open what the path leads to now; return whether that is another directory."""
        try:
            new = self._open_directory(self.path)
        except (CacheError, OSError) as reason:
            log.debug("cache: %s", reason)
            gone = OSError(errno.ENOENT, "the directory was removed")
            self._refusals.note(gone)
            return False
        if _is(self._directory, os.fstat(new)):  # a file system that counts no links
            close_quietly(new)
            self._refusals.note(error)
            return False
        self._go_on_in(new)
        return True

    def look_for_another(self) -> None:
        """Go on in the directory that the path leads to, if that is another one."""
        now_s = time.monotonic()
        if now_s - self._looked_s < LOOK_S:
            return
        if not self._beginning.acquire(blocking=False):
            return  # whoever looks may be waiting for a server that hangs
        try:
            self._looked_s = now_s
            if not _is(self._directory, os.stat(self.path)):
                self._go_on_in(self._open_directory(self.path))
        except (CacheError, OSError) as error:
            log.debug("cache: %s", error)  # nothing there, or not to be used
        finally:
            self._beginning.release()

    def _go_on_in(self, new: int) -> None:
        os.dup2(new, self._directory, inheritable=False)
        close_quietly(new)
        self._begun_anew_s = time.monotonic()
        self.begin_anew()
        self._begun_count += 1
        if self._begun_count <= _TOLD_MAX:
            log.warning("%s was removed, and begins anew", self._name)

    def begin_anew(self) -> None:
        """Forget what was known of the directory, which is another one now."""


def _is(directory: int, status: os.stat_result) -> bool:
    """Whether a status is that of a directory."""
    try:
        return os.path.samestat(os.fstat(directory), status)
    except OSError:
        return False  # as NFS says of what another node has removed


def _is_removed(directory: int) -> bool:
    try:
        return os.fstat(directory).st_nlink == 0
    except OSError:
        return True
