"""What a file server does over time, for the report after the job.

Gauges are written line by line to a file that the file servers of a session share:
often at first, so that a short job leaves something to see, and more and more rarely,
so that the recording of a job of weeks is no larger than that of one of minutes. The
last line also tells which files were read, and what failed.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from cvmfsexec import log
from cvmfsexec.client.gauges import GaugeBoard
from cvmfsexec.format.gauges import Failure, FileRead, Gauges
from cvmfsexec.vfs.attributes import FileSystem
from cvmfsexec.vfs.read_account import AccountedFileSystem, ReadAccount

INTERVAL_MIN_S = 0.1
LINES_PER_INTERVAL = 200
"""After so many lines, the interval doubles: 4,000 lines tell of three years."""

FILES_MAX = 2_000
FAILURES_MAX = 200
_PATH_MAX = 4096


class RecordedServer(Protocol):
    """The part of the server of kernel requests that this module needs."""

    def measure(self) -> None:
        """Count how long requests take."""

    def stop(self) -> None:
        """Make its ``serve`` return."""


class Recording:
    """Records one file server. Threads: one runs it, others report failures.

    Args:
        descriptor: Where lines are appended to.
        wait_for_end: Waits for so many seconds, or less if the end comes; whether it
            has.
        clock: Seconds since 1970.
    """

    def __init__(
        self,
        descriptor: int,
        wait_for_end: Callable[[float], bool],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._descriptor = descriptor
        self._wait_for_end = wait_for_end
        self._clock = clock
        self._account = ReadAccount()
        self._failures: deque[Failure] = deque(maxlen=FAILURES_MAX)
        self._finishing = threading.Lock()
        self._is_finished = False

    def observe(self, file_system: FileSystem) -> FileSystem:
        """Return the same file system, keeping account of what is read."""
        self._describe = file_system.describe
        return AccountedFileSystem(file_system, self._account)

    def note_failure(self, what: str, error: BaseException) -> None:
        """Take note of a request that failed."""
        message = log.harmless(f"{what}: {error}")[:_PATH_MAX]
        self._failures.append(Failure(self._clock(), message))

    def start(self, board: GaugeBoard, server: RecordedServer) -> None:
        """Record in a thread until the end has come, and then stop the server."""
        self._board = board
        server.measure()

        def record() -> None:
            self._run()
            server.stop()

        threading.Thread(target=record, name="recording", daemon=True).start()

    def finish(self) -> None:
        """Write the last line, once."""
        with self._finishing:
            if not self._is_finished:
                self._is_finished = True
                files, failures = self._files(), tuple(self._failures)
                self._write(self._board.look()._replace(files=files, failures=failures))

    def _run(self) -> None:
        interval_s, lines = INTERVAL_MIN_S, 0
        while not self._wait_for_end(interval_s):
            self._write(self._board.look())
            lines += 1
            if lines % LINES_PER_INTERVAL == 0:
                interval_s *= 2
        self.finish()

    def _files(self) -> tuple[FileRead, ...]:
        """Return those that took longest, if there are too many."""
        readings = self._account.readings()
        readings.sort(key=lambda one: one[1].seconds, reverse=True)
        return tuple(
            FileRead(_unquoted(self._describe(inode))[:_PATH_MAX], *reading)
            for inode, reading in readings[:FILES_MAX]
        )

    def _write(self, gauges: Gauges) -> None:
        try:
            os.write(self._descriptor, gauges.serialize() + b"\n")
        except OSError as error:
            log.debug("a line of the recording is lost: %s", error.strerror)


def _unquoted(description: str) -> str:
    """Return a path as it is; messages set it in quotation marks."""
    is_path = description[:1] in {"'", '"'}
    return description[1:-1] if is_path else description
