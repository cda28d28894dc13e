"""A server program on loopback that can be killed, stalled, and started again.

It runs as the ordinary user, from a directory of its own, on a port found free, and
ends with the tests at the latest, however they end.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

import pytest

from tests.support.commands import give_to_ordinary_user
from tests.support.sessions import PATIENCE_S, Caller, wrap

_PROGRAM_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
_PORTS_TRIED_MAX = 5


class ServerProcess:
    """One program, started by entering it and ended by leaving it.

    Attributes:
        port: Where it listens, also after a restart.
        directory: Its own, with configuration and logs.
    """

    program: str
    """What it is called; a test that needs it is skipped where it is missing."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="cvmfsexec-server-"))
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    def configure(self) -> None:
        """Write the configuration for ``self.port``."""
        raise NotImplementedError

    def command(self) -> tuple[str, ...]:
        """Return the arguments that make it stay in the foreground."""
        raise NotImplementedError

    def start(self) -> None:
        """Start it and wait until it listens."""
        with (self.directory / "output").open("ab") as output:
            self._process = subprocess.Popen(
                _as_ordinary_user((self._found_program(), *self.command())),
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        deadline_s = time.monotonic() + PATIENCE_S
        while not self._is_listening():
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                self.kill()
                raise ServerFailedError((self.directory / "output").read_text())
            time.sleep(0.01)

    def kill(self) -> None:
        """Let it die at once, as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """Start it anew, on the same port, whatever state it is in."""
        self.kill()
        self.start()

    def stall(self) -> None:
        """Let it stop doing anything; connections still come about in the kernel."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def heal(self) -> None:
        """Bring it back from whatever was done to it."""
        if self._process is None:
            self.start()
        else:
            self.resume()

    def lines(self, name: str) -> list[str]:
        """Return the whole lines of a file in its directory."""
        path = self.directory / name
        text = path.read_text() if path.exists() else ""
        return text[: text.rfind("\n") + 1].splitlines()

    def _signal(self, number: int) -> None:
        assert self._process is not None, f"{self.program} is dead"
        os.kill(self._process.pid, number)

    def _found_program(self) -> str:
        return _find(self.program)

    def _is_listening(self) -> bool:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        return False

    def _start_somewhere(self) -> None:
        for number in range(_PORTS_TRIED_MAX):
            self.port = _free_port()
            self.configure()
            give_to_ordinary_user(self.directory)
            try:
                self.start()
            except ServerFailedError:
                if number == _PORTS_TRIED_MAX - 1:
                    raise
            else:
                return

    def __enter__(self) -> Self:
        try:
            self._found_program()
            self._start_somewhere()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)


class ServerFailedError(Exception):
    """A server ended before it listened; the text is its output."""


def _find(program: str) -> str:
    found = shutil.which(program, path=_PROGRAM_PATH)
    if found is None:
        pytest.skip(f"{program} is not installed here")
    return found


def _as_ordinary_user(words: tuple[str, ...]) -> tuple[str, ...]:
    # Set last: a change of user forgets it.
    bound_to_us = (_find("setpriv"), "--pdeathsig", "KILL", *words)
    return wrap(bound_to_us, Caller.ORDINARY)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
