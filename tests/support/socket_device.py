"""A ``FuseServer`` on a socket pair, which keeps messages apart as the device does; the
end of the stream stands for the unmount."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from cvmfsexec.fuse.crew import Ending
from cvmfsexec.fuse.negotiation import WANTED
from cvmfsexec.fuse.server import FuseServer
from tests.support import fuse_messages as messages
from tests.support.fuse_messages import Answer, answer, init_request, request
from tests.support.memory_file_system import MemoryFileSystem

PATIENT_S = 30.0


class Kernel:
    """The other end of the device."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        end.settimeout(PATIENT_S)

    def send(self, blob: bytes) -> None:
        self._end.send(blob)

    def receive(self) -> Answer:
        while not (found := answer(self._end.recv(1 << 20))).unique:
            pass  # a notification
        return found

    def ask(self, blob: bytes) -> Answer:
        self.send(blob)
        return self.receive()

    def init(self, features: int = WANTED) -> Answer:
        return self.ask(init_request(features))

    def lookup(self, name: bytes, unique: int = 7) -> None:
        self.send(request(messages.LOOKUP, 1, name + b"\0", unique))

    def unmount(self) -> None:
        self._end.close()


class Run:
    """A server at work in a thread."""

    def __init__(self, server: FuseServer, kernel: Kernel, ours: socket.socket) -> None:
        self.server = server
        self.kernel = kernel
        self.ending: Ending | None = None
        self._ours = ours
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        self.ending = self.server.serve()

    def wait(self) -> Ending | None:
        self._thread.join(PATIENT_S)
        return self.ending


@contextmanager
def serving(file_system: MemoryFileSystem, *, threads: int = 4) -> Iterator[Run]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    run = Run(
        FuseServer(ours.fileno(), file_system, threads=threads), Kernel(theirs), ours
    )
    try:
        yield run
    finally:
        theirs.close()
        run.wait()
        wait_for_threads_to_end()
        ours.close()


def fuse_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "fuse"]


def wait_for_threads_to_end() -> None:
    until_s = time.monotonic() + PATIENT_S
    while fuse_threads():
        assert time.monotonic() < until_s
        time.sleep(0.001)
