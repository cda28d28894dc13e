"""Who fetches an object that several processes lack: the one that has the claim.

Jobs on a node often start in the same second and want the same objects. A claim is a
lock on one byte of the file ``cvmfsexec.claims`` in the cache directory, at an offset
that the object's hash gives. Who has it fetches; the others look for the object until
it is there, or until the claim is free again because its holder failed or died.

The locks are those of :mod:`cvmfsexec.cache.byte_locks`: they end with their process,
however it dies. The file stays empty. The threads of a process do not exclude each
other, and need not: ``cvmfsexec.fetch.flights`` lets one of them come here.

**A claim is advice.** Nobody waits for longer than ``patience_s``: a holder may be
stopped, or be stuck in a network that is better for others. Two who fetch the same
object do no harm. Where there are no such locks (some network file systems, read-only
directories), everybody fetches.

Any thread may call. It costs two system calls where nobody else wants the object.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator

from cvmfsexec import callers, log
from cvmfsexec.cache import byte_locks
from cvmfsexec.cache.open_files import close_quietly
from cvmfsexec.format.digest import ContentHash

FILE_NAME = "cvmfsexec.claims"

PAUSE_MIN_S = 0.001  # a small object from a near proxy takes about so long
PAUSE_MAX_S = 0.05
_PAUSE_GROWTH = 1.5

LOW_PATIENCE_S = 1.0
LOW_PATIENCE_FOR_S = 60.0
"""For so long after a wait in vain: the holder is likely to have more claims."""

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


class Claims:
    """The claims of one process on objects of one cache directory.

    Args:
        directory: Descriptor of the cache directory, which stays the caller's.
        clock: Seconds that do not jump.
        sleep: Waits for so many seconds.
    """

    def __init__(
        self,
        directory: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = callers.pause,
    ) -> None:
        self._directory = directory
        self._clock = clock
        self._sleep = sleep
        self._opening = threading.Lock()
        self._file: int | None = None
        self._are_possible = True  # until it turns out otherwise
        self._low_patience_until_s = float("-inf")

    @contextlib.contextmanager
    def claim(
        self,
        content_hash: ContentHash,
        *,
        patience_s: float,
        is_there: Callable[[], bool],
    ) -> Iterator[bool]:
        """Have the claim on an object for the time of a ``with``.

        Args:
            content_hash: Names the object.
            patience_s: Wait no longer than this for somebody else; 0 for not at all.
            is_there: Whether that one has stored the object.

        Yields:
            Whether nobody else is fetching the object, as far as can be known. If not,
            another process still has the claim, or has stored the object.
        """
        offset = int.from_bytes(content_hash.digest[:8]) >> 2  # within a signed long
        is_locked = self._take(offset, patience_s, is_there)
        try:
            yield is_locked or not self._are_possible
        finally:
            if is_locked:
                self._release(offset)

    def begin_anew(self) -> None:
        """Go on in the directory that has taken the place of ours."""
        with self._opening:
            if self._file is None:
                return
            try:
                file = _open(self._directory)
            except OSError as error:
                self._do_without(error)
                return
            os.dup2(file, self._file, inheritable=False)
            close_quietly(file)

    def close(self) -> None:
        """Let go of everything."""
        self._are_possible = False
        if self._file is not None:
            close_quietly(self._file)
            self._file = None

    def _take(
        self, offset: int, patience_s: float, is_there: Callable[[], bool]
    ) -> bool:
        if self._try(offset):
            return True
        if not self._are_possible or patience_s <= 0:
            return False
        return self._wait(offset, patience_s, is_there)

    def _wait(
        self, offset: int, patience_s: float, is_there: Callable[[], bool]
    ) -> bool:
        now_s = self._clock()
        if now_s < self._low_patience_until_s:
            patience_s = min(patience_s, LOW_PATIENCE_S)
        deadline_s = now_s + patience_s
        pause_s = PAUSE_MIN_S
        while now_s < deadline_s and self._are_possible:
            self._sleep(min(pause_s, deadline_s - now_s))
            pause_s = min(pause_s * _PAUSE_GROWTH, PAUSE_MAX_S)
            if is_there():
                return False
            if self._try(offset):
                return True
            now_s = self._clock()
        self._low_patience_until_s = now_s + LOW_PATIENCE_FOR_S
        log.debug("cache: another process takes long to fetch an object; so do we")
        return False

    def _try(self, offset: int) -> bool:
        """Take the lock, unless somebody has it or there are none."""
        if not self._are_possible:
            return False
        try:
            return byte_locks.try_lock(self._open_file(), offset)
        except OSError as error:
            self._do_without(error)
            return False

    def _release(self, offset: int) -> None:
        if self._file is None:
            return  # closed meanwhile, and released by that
        try:
            byte_locks.unlock(self._file, offset)
        except OSError as error:  # a network file system that lost its server
            self._do_without(error)

    def _open_file(self) -> int:
        if self._file is not None:
            return self._file
        with self._opening:
            if self._file is None:
                self._file = _open(self._directory)
            return self._file

    def _do_without(self, error: OSError) -> None:
        self._are_possible = False
        log.debug("cache: no locks here: %s", error.strerror)


def _open(directory: int) -> int:
    return os.open(FILE_NAME, _FLAGS, 0o600, dir_fd=directory)
