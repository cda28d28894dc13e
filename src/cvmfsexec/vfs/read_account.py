"""Account of what is read, file by file: for a report after the job.

Costs a microsecond for each read, so a file system keeps it on demand only.
"""

import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from cvmfsexec.vfs.attributes import FileSystem

INODES_MAX = 100_000


class Reading(NamedTuple):
    """What was read of one inode, all reads together."""

    size_bytes: int = 0
    reads: int = 0
    seconds: float = 0.0


_NOTHING = Reading()

Read = Callable[[int, int, int], bytes | memoryview]


class ReadAccount:
    """Counts reads by inode; any thread may call.

    Of more files than it can remember, the last ones are left out.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readings: dict[int, Reading] = {}

    def kept(self, read: Read) -> Read:
        """Return a function that reads and keeps account."""
        now_s = time.perf_counter

        def read_and_count(inode: int, offset: int, size: int) -> bytes | memoryview:
            begun_s = now_s()
            data = read(inode, offset, size)
            self._add(inode, len(data), now_s() - begun_s)
            return data

        return read_and_count

    def readings(self) -> list[tuple[int, Reading]]:
        """Return inodes and what was read of them, in the order of the first reads."""
        with self._lock:
            return list(self._readings.items())

    def _add(self, inode: int, size_bytes: int, seconds: float) -> None:
        with self._lock:
            former = self._readings.get(inode, _NOTHING)
            if former is _NOTHING and len(self._readings) >= INODES_MAX:
                return
            self._readings[inode] = Reading(
                former.size_bytes + size_bytes,
                former.reads + 1,
                former.seconds + seconds,
            )


class AccountedFileSystem:
    """A ``FileSystem`` of whose reads account is kept; all else is as it was."""

    def __init__(self, inner: FileSystem, account: ReadAccount) -> None:
        self.lookup = inner.lookup
        self.attributes = inner.attributes
        self.list_ = inner.list_
        self.is_listed_now = inner.is_listed_now
        self.parent = inner.parent
        self.readlink = inner.readlink
        self.read = account.kept(inner.read)
        self.getxattr = inner.getxattr
        self.listxattr = inner.listxattr
        self.statfs = inner.statfs
        self.describe = inner.describe
