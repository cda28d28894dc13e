"""A real network file system, GlusterFS, mounted as several nodes mount it.

::

    with GlusterVolume(top, owner) as volume:
        first, second = volume.mount("first"), volume.mount("second")
        volume.server.kill()  # the server of files; start() brings it back
        second.kill()         # the client of one node

Server and clients run without their manager, from volume files written here. Clients
have the translators that volumes have by default: they write behind, open behind, and
remember what files are like for a second.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from typing import Self

import pytest

from tests.support.sessions import PATIENCE_S, wait_until

_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
_PORTS_TRIED_MAX = 5

_LOCKS = """
volume locks
  type features/locks
  subvolumes posix
end-volume
"""

_SERVER = """
volume posix
  type storage/posix
  option directory {top}/brick
end-volume
{locks}
volume threads
  type performance/io-threads
  subvolumes {below}
end-volume
volume server
  type protocol/server
  option transport-type tcp
  option transport.socket.bind-address 127.0.0.1
  option transport.socket.listen-port {port}
  option auth.addr.threads.allow 127.0.0.1
  subvolumes threads
end-volume
"""

_CLIENT = """
volume client
  type protocol/client
  option transport-type tcp
  option remote-host 127.0.0.1
  option remote-port {port}
  option remote-subvolume threads
  option ping-timeout 5
end-volume
volume write-behind
  type performance/write-behind
  subvolumes client
end-volume
volume open-behind
  type performance/open-behind
  subvolumes write-behind
end-volume
volume quick-read
  type performance/quick-read
  subvolumes open-behind
end-volume
volume md-cache
  type performance/md-cache
  subvolumes quick-read
end-volume
"""


class _Program:
    """One program of GlusterFS, which ends with the tests at the latest."""

    def __init__(self, *words: str) -> None:
        self._words = ("setpriv", "--pdeathsig", "KILL", *words)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it."""
        self._process = subprocess.Popen(
            self._words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PATH": _PATH},
        )

    @property
    def has_ended(self) -> bool:
        """Whether it ended by itself."""
        return self._process is not None and self._process.poll() is not None

    def kill(self) -> None:
        """Let it die at once, as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stall(self) -> None:
        """Let it stop doing anything."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)


class GlusterMount(_Program):
    """The file system as one node sees it.

    Attributes:
        path: Where.
    """

    def __init__(self, path: Path, volume_file: Path) -> None:
        log = path.with_suffix(".log")
        super().__init__(
            *("glusterfs", "--no-daemon", "-f", str(volume_file), "-l", str(log)),
            str(path),
        )
        self.path = path
        path.mkdir()

    def mount(self) -> None:
        """Mount it."""
        self.start()
        wait_until(
            lambda: os.path.ismount(self.path) or self.has_ended,
            "the file system is mounted",
        )
        if self.has_ended:
            pytest.skip(f"glusterfs cannot mount: {_tail(self.path)}")
        self.wait()

    def wait(self) -> None:
        """Wait until the server is reached (again)."""
        wait_until(self._is_connected, "it reaches its server")

    def _is_connected(self) -> bool:
        with contextlib.suppress(OSError):
            os.listdir(self.path)
            return True
        return False

    def unmount(self) -> None:
        """Unmount it, whatever became of its program."""
        umount = ("umount", "-l", str(self.path))
        subprocess.run(umount, check=False, capture_output=True)
        self.kill()


class GlusterVolume:
    """A volume, served from a directory.

    Args:
        top: Where everything lies; extended attributes of root must be possible there.
        owner: Uid and gid of the root directory.
        has_locks: Whether the server knows locks.

    Attributes:
        server: What serves it.
    """

    def __init__(self, top: Path, owner: int, *, has_locks: bool = True) -> None:
        self._top = top
        self._owner = owner
        self._has_locks = has_locks
        self._mounts: list[GlusterMount] = []
        self._port = 0
        self.server = _Program(
            *("glusterfsd", "--no-daemon", "-f", str(top / "server.vol")),
            *("-l", str(top / "server.log")),
        )

    def mount(self, name: str) -> GlusterMount:
        """Mount it once more."""
        mount = GlusterMount(self._top / name, self._top / "client.vol")
        self._mounts.append(mount)
        mount.mount()
        return mount

    def start(self) -> None:
        """Start the server, and wait until it listens."""
        self.server.start()
        wait_until(lambda: self._is_listening() or self.server.has_ended, "it listens")

    def _is_listening(self) -> bool:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self._port), PATIENCE_S).close()
            return True
        return False

    def _configure(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self._port = probe.getsockname()[1]
        server = _SERVER.format(
            top=self._top,
            port=self._port,
            locks=_LOCKS if self._has_locks else "",
            below="locks" if self._has_locks else "posix",
        )
        (self._top / "server.vol").write_text(server)
        (self._top / "client.vol").write_text(_CLIENT.format(port=self._port))

    def __enter__(self) -> Self:
        for program in ("glusterfsd", "glusterfs"):
            if shutil.which(program, path=_PATH) is None:
                pytest.skip(f"there is no {program}")
        if os.geteuid() != 0:
            pytest.skip("only root can mount a file system that others may enter")
        brick = self._top / "brick"
        brick.mkdir()
        os.chown(brick, self._owner, self._owner)
        brick.chmod(0o755)
        for _ in range(_PORTS_TRIED_MAX):
            self._configure()
            self.start()
            if not self.server.has_ended:
                return self
        pytest.skip(f"glusterfsd ends at once: {_tail(self._top / 'server')}")

    def __exit__(self, *_: object) -> None:
        for mount in self._mounts:
            mount.unmount()
        self.server.kill()


def _tail(path: Path) -> str:
    log = path.with_suffix(".log")
    return log.read_text()[-500:] if log.exists() else ""
