"""Keeping a directory that nobody manages below a limit.

Whoever stores objects in it looks now and then how much it holds; who finds too much
and gets the lease removes what was used least recently. All this happens in a thread of
its own, while others go on to read and write. Between two looks the directory may grow,
by a thirty-second part of the limit for each process.

What is removed stays readable for those who have it open on this node. On others, a
network file system may take it away; our clients read copies of theirs.

When an object was used last is the later one of its times of access and modification;
clients that know of the limit set the latter, others may set the former. A time that is
ahead of all clocks tells nothing: who sets such a one keeps nothing for ever.
"""

import os
import threading
from collections.abc import Callable

from cvmfsexec import log
from cvmfsexec.cache import contents, pending
from cvmfsexec.cache.lease import Lease, Renewal
from cvmfsexec.cache.open_files import close_quietly
from cvmfsexec.cache.usage import estimate_used_bytes

ROOM_PART = 4
"""This part of the limit is free afterwards, so that the next look finds nothing."""

LOOKS_PER_LIMIT = 32
"""So often, at least, each process looks while it stores as much as the limit is."""

_USAGE_VALID_S = 60.0
_CLOCKS_DIFFER_S = 86_400.0
"""By less than that, a clock may be ahead of the one of the file system."""

_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW


class Tidying:
    """One process's part in keeping a directory small; safe to call from any thread.

    Args:
        step_bytes: Look again when so much was stored; ``None`` for never.
        tidy: Looks, and removes what is too much.
    """

    def __init__(self, step_bytes: int | None, tidy: Callable[[], object]) -> None:
        self._step_bytes = step_bytes
        self._tidy = tidy
        self._lock = threading.Lock()
        self._unseen_bytes = self._step_bytes or 0  # look after the first object
        self._thread: threading.Thread | None = None
        self._is_over = False

    def note(self, size_bytes: int) -> None:
        """Learn that an object was stored; perhaps it is time to look."""
        if self._step_bytes is None:
            return
        with self._lock:
            self._unseen_bytes += size_bytes
            if self._unseen_bytes < self._step_bytes or self._is_busy():
                return
            self._unseen_bytes = 0
            thread = threading.Thread(target=self._work, name="tidying", daemon=True)
            self._thread = thread
            try:
                thread.start()
            except RuntimeError as error:
                self._thread = None
                log.debug("cache: %s; tidying up later", error)

    def close(self) -> None:
        """Wait for the thread, and start no more."""
        with self._lock:
            thread = self._thread
            self._step_bytes = None
        if thread is not None:
            thread.join()

    def _is_busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _work(self) -> None:
        try:
            self._tidy()
        except OSError as error:
            log.debug("cache: cannot tidy up: %s", error.strerror)


class RecentUsage:
    """How much is used, counted anew once a minute: for ``df``, which asks often.

    Args:
        count: Counts it.
        clock: Seconds that do not jump.
    """

    def __init__(self, count: Callable[[], int], clock: Callable[[], float]) -> None:
        self._count = count
        self._clock = clock
        self._counted_s = float("-inf")
        self._used_bytes = 0

    def used_bytes(self) -> int:
        """Return the number; at most a minute old."""
        now_s = self._clock()
        if now_s - self._counted_s >= _USAGE_VALID_S:
            self._used_bytes = self._count()
            self._counted_s = now_s
        return self._used_bytes


def tidy_directory(directory: int, limit_bytes: int) -> bool:
    """Remove objects of a directory that holds too much.

    Args:
        directory: Descriptor of it.
        limit_bytes: How much it may hold.

    Returns:
        Whether it was this process's task.

    Raises:
        OSError: The directory cannot be read or written.
    """
    if estimate_used_bytes(directory) <= limit_bytes:
        return False
    lease = Lease(directory)
    if not lease.acquire():
        return False
    try:
        now_s = lease.now_s()
        lease.clear_abandoned(now_s)
        _remove_abandoned(directory, now_s)
        _shrink(directory, limit_bytes, Renewal(lease), now_s)
    finally:
        lease.release()
    return True


def _shrink(directory: int, limit_bytes: int, renewal: Renewal, now_s: float) -> None:
    found: list[tuple[float, int, str, str]] = []
    for prefix in contents.PREFIXES:
        if not renewal.is_held():
            return
        for name, status in contents.object_files(directory, prefix):
            found.append((_last_used_s(status, now_s), status.st_size, prefix, name))
    used_bytes = sum(size_bytes for _, size_bytes, _, _ in found)
    if used_bytes <= limit_bytes:
        return
    found.sort()
    removed = 0
    for _, size_bytes, prefix, name in found:
        if used_bytes <= limit_bytes - limit_bytes // ROOM_PART:
            break
        if not renewal.is_held():
            return
        if _remove_object(directory, prefix, name):
            used_bytes -= size_bytes
            removed += 1
    log.info("cache: removed %d objects that were used least recently", removed)


def _last_used_s(status: os.stat_result, now_s: float) -> float:
    times_s = (status.st_atime, status.st_mtime)
    known_s = (time_s for time_s in times_s if time_s - now_s < _CLOCKS_DIFFER_S)
    return max(known_s, default=0.0)


def _remove_object(directory: int, prefix: str, name: str) -> bool:
    """Remove a file that was found, wherever others let its directory's name lead.

    Returns:
        Whether it is gone; others may own it, and not let us.
    """
    try:
        parent = os.open(prefix, _DIRECTORY_FLAGS, dir_fd=directory)
    except OSError:
        return False
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return True  # somebody else removed it
    except OSError as error:
        log.debug("cache: cannot remove %s%s: %s", prefix, name, error.strerror)
        return False
    else:
        return True
    finally:
        close_quietly(parent)


def _remove_abandoned(directory: int, now_s: float) -> None:
    """Remove our files under way that nobody has written to for long."""
    try:
        descriptor = os.open(pending.DIRECTORY, _DIRECTORY_FLAGS, dir_fd=directory)
    except OSError:
        return
    try:
        with os.scandir(descriptor) as entries:
            for entry in entries:
                if not entry.name.startswith(pending.PREFIX):
                    continue
                age_s = now_s - entry.stat(follow_symlinks=False).st_mtime
                if age_s > pending.AGE_OF_DEATH_S:
                    os.unlink(entry.name, dir_fd=descriptor)
    except OSError as error:
        log.debug("cache: cannot clear %s: %s", pending.DIRECTORY, error.strerror)
    finally:
        close_quietly(descriptor)
