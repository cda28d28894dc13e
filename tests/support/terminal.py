"""A command at a terminal of its own, as a person would use it."""

import os
import pty
import select
import signal
import time
from typing import Self

from tests.support.sessions import PATIENCE_S


class Terminal:
    """Runs a command in a new terminal session; killed at the end."""

    def __init__(self, line: tuple[str, ...]) -> None:
        """Remember what to run."""
        self._line = line
        self._seen = ""
        self._pid = 0
        self._master = -1
        self._status: int | None = None

    def __enter__(self) -> Self:
        """Start it."""
        self._pid, self._master = pty.fork()
        if self._pid == 0:
            try:
                environment = {
                    "PATH": "/usr/bin:/bin",
                    "LC_ALL": "C.UTF-8",
                    "PS1": "$ ",
                }
                os.chdir("/")
                os.execvpe(self._line[0], self._line, environment)  # noqa: S606
            finally:
                os._exit(99)
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        if self._status is None:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
        os.close(self._master)

    def type(self, text: str) -> None:
        """Send keys."""
        os.write(self._master, text.encode())

    def expect(self, text: str) -> None:
        """Wait until a text appears that was not seen before."""
        deadline_s = time.monotonic() + PATIENCE_S
        while text not in self._seen:
            assert self._read(deadline_s), f"no {text!r} in {self._seen!r}"
        self._seen = self._seen.partition(text)[2]

    def finish(self) -> int:
        """Wait for the end, and return the exit status."""
        deadline_s = time.monotonic() + PATIENCE_S
        while self._read(deadline_s):
            pass
        assert time.monotonic() < deadline_s, f"it goes on after {self._seen!r}"
        self._status = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        return self._status

    def _read(self, deadline_s: float) -> bool:
        left_s = deadline_s - time.monotonic()
        if left_s < 0 or not select.select([self._master], [], [], left_s)[0]:
            return False
        try:
            data = os.read(self._master, 4096)
        except OSError:
            return False  # nobody has it open any more
        self._seen += data.decode(errors="replace")
        return bool(data)
