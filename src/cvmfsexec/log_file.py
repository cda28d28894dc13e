"""The file that a file server keeps its messages in, limited in size.

File servers live for days, and several sessions may write to one file. Each line is one
``write`` to the end of it. Who finds it too long moves it aside, the others notice and
open the new one.
"""

import fcntl
import logging
import os
from contextlib import suppress


class LimitedFile(logging.Handler):
    """Writes to a file that never grows beyond a limit, nor does the one before it."""

    def __init__(self, path: str, bytes_max: int) -> None:
        """Open it.

        Args:
            path: The file; the one before it is ``path.1``.
            bytes_max: Size at which it is moved aside.

        Raises:
            OSError: It cannot be opened.
        """
        super().__init__()
        self._path = path
        self._bytes_max = bytes_max
        self._descriptor = _open(path)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one message."""
        line = self.format(record) + "\n"
        with suppress(OSError):  # of a full disk, say: the work goes on
            self._keep_short()
            os.write(self._descriptor, line.encode(errors="backslashreplace"))

    def close(self) -> None:
        """Close the file; no message may follow."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
        super().close()

    def _keep_short(self) -> None:
        if not self._is_current():
            self._open_again()
        if os.fstat(self._descriptor).st_size < self._bytes_max:
            return
        # Two who find it too long at once would move the new one aside, too.
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        if self._is_current():
            os.replace(self._path, self._path + ".1")
        self._open_again()

    def _is_current(self) -> bool:
        """Whether what is open is what is at the path."""
        try:
            there = os.stat(self._path)
        except OSError:
            return False
        return os.path.samestat(there, os.fstat(self._descriptor))

    def _open_again(self) -> None:
        former, self._descriptor = self._descriptor, _open(self._path)
        os.close(former)


def _open(path: str) -> int:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    return os.open(path, flags, 0o644)
