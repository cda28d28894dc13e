"""The server and its crew on a socket pair, which keeps messages apart as the device
does; the end of the stream stands for the unmount."""

import errno
import os
import signal
import socket
import struct
import threading
import time

import pytest

from cvmfsexec.errors import FormatError, NamespaceError
from cvmfsexec.fuse import crew
from cvmfsexec.fuse.crew import Ending
from cvmfsexec.fuse.negotiation import WANTED
from cvmfsexec.fuse.server import FuseServer
from cvmfsexec.vfs.attributes import Attributes
from tests.support import fuse_messages as messages
from tests.support.fuse_messages import answer, init_request, request
from tests.support.memory_file_system import MemoryFileSystem
from tests.support.socket_device import (
    PATIENT_S,
    fuse_threads,
    serving,
    wait_for_threads_to_end,
)


class Slow(MemoryFileSystem):
    """Answers names that begin with "slow" when it is told to."""

    def __init__(self) -> None:
        super().__init__({b"file": b"x"})
        self.may_go_on = threading.Event()
        self.waiting = threading.Semaphore(0)

    def lookup(self, parent: int, name: bytes) -> Attributes | None:
        if name.startswith(b"slow"):
            self.waiting.release()
            self.may_go_on.wait(PATIENT_S)
        return super().lookup(parent, name)


def test_init_then_requests_then_unmount() -> None:
    with serving(MemoryFileSystem({b"file": b"x"})) as run:
        assert run.kernel.init().errno == 0
        run.kernel.lookup(b"file")
        assert run.kernel.receive().errno == 0
        assert run.server.requests == {"INIT": 1, "LOOKUP": 1}
        assert run.server.terms is not None
        run.kernel.unmount()
        assert run.wait() is Ending.UNMOUNTED


def test_requests_before_init_fail() -> None:
    with serving(MemoryFileSystem({})) as run:
        run.kernel.send(b"short")
        assert run.kernel.ask(request(messages.STATFS)).errno == errno.EIO
        assert run.kernel.init().errno == 0


def test_a_newer_kernel_is_asked_to_come_again() -> None:
    with serving(MemoryFileSystem({})) as run:
        reply = run.kernel.ask(init_request(0, major=8))
        assert struct.unpack_from("=II", reply.body) == (7, 45)
        assert run.kernel.init().errno == 0


def test_too_old_a_kernel_is_refused_in_words() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        theirs.send(init_request(0, minor=5))

        with pytest.raises(FormatError, match=r"7\.5"):
            FuseServer(ours.fileno(), MemoryFileSystem({})).serve()

        assert answer(theirs.recv(100)).errno == errno.EPROTO


def test_a_device_that_cannot_be_read_ends_it(caplog: pytest.LogCaptureFixture) -> None:
    reader, writer = os.pipe()
    try:
        assert FuseServer(writer, MemoryFileSystem({})).serve() is Ending.ABORTED
    finally:
        os.close(reader)
        os.close(writer)
    assert "cannot read" in caplog.text


def test_stop_ends_serve_while_a_thread_waits_for_requests() -> None:
    with serving(MemoryFileSystem({})) as run:
        run.kernel.init()
        run.server.stop()
        run.server.stop()
        assert run.wait() is Ending.STOPPED


def test_a_signal_handler_can_stop_the_server() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    server = FuseServer(ours.fileno(), MemoryFileSystem({}))
    before = signal.signal(signal.SIGUSR1, lambda _number, _frame: server.stop())
    killer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1))
    with ours:
        with theirs:
            theirs.send(init_request(WANTED))
            killer.start()
            assert server.serve() is Ending.STOPPED
            signal.signal(signal.SIGUSR1, before)
        wait_for_threads_to_end()


def test_stop_before_serve() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        theirs.send(init_request(WANTED))
        server = FuseServer(ours.fileno(), MemoryFileSystem({}))
        server.stop()

        assert server.serve() is Ending.STOPPED


def test_a_slow_request_does_not_keep_others_waiting() -> None:
    file_system = Slow()
    with serving(file_system) as run:
        run.kernel.init()
        run.kernel.lookup(b"slow", unique=1)
        file_system.waiting.acquire()
        for unique in range(10, 60):
            run.kernel.lookup(b"file", unique=unique)
            assert run.kernel.receive().unique == unique
        file_system.may_go_on.set()
        assert run.kernel.receive().unique == 1


def test_as_many_requests_at_once_as_there_are_threads() -> None:
    file_system = Slow()
    with serving(file_system, threads=6) as run:
        run.kernel.init()
        for unique in range(1, 8):
            run.kernel.lookup(b"slow%d" % unique, unique=unique)
        for _ in range(6):
            assert file_system.waiting.acquire(timeout=PATIENT_S)
        assert len(fuse_threads()) == 6
        assert not file_system.waiting.acquire(timeout=0.02)
        file_system.may_go_on.set()
        assert sorted(run.kernel.receive().unique for _ in range(7)) == [*range(1, 8)]


def test_fast_requests_need_two_threads_only() -> None:
    with serving(MemoryFileSystem({b"file": b"x"}), threads=16) as run:
        run.kernel.init()
        for unique in range(1, 200):
            run.kernel.lookup(b"file", unique=unique)
            run.kernel.receive()
        # One more may have been started while the machine was busy elsewhere.
        assert len(run.server._crew.workers if run.server._crew else ()) <= 4


def test_one_thread_is_enough() -> None:
    with serving(MemoryFileSystem({b"file": b"x"}), threads=1) as run:
        run.kernel.init()
        for unique in range(1, 50):
            run.kernel.lookup(b"file", unique=unique)
            assert run.kernel.receive().unique == unique
        assert len(fuse_threads()) == 1


def test_a_request_after_a_long_pause_wakes_the_deputy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(crew, "_QUIET_WATCHES", 2)
    file_system = Slow()
    with serving(file_system) as run:
        run.kernel.init()
        run.kernel.lookup(b"file")
        run.kernel.receive()
        _wait_until_deputy_sleeps(run.server)
        run.kernel.lookup(b"slow", unique=1)
        run.kernel.lookup(b"file", unique=2)
        assert run.kernel.receive().unique == 2
        file_system.may_go_on.set()
        assert run.kernel.receive().unique == 1


def _wait_until_deputy_sleeps(server: FuseServer) -> None:
    until_s = time.monotonic() + PATIENT_S
    while not (server._crew and server._crew._is_deputy_asleep):
        assert time.monotonic() < until_s
        time.sleep(0.001)


def test_counts_are_exact_over_all_threads() -> None:
    file_system = Slow()
    file_system.may_go_on.set()
    with serving(file_system, threads=8) as run:
        run.kernel.init()
        for unique in range(1, 2001):
            run.kernel.lookup(b"slow" if unique % 3 else b"file", unique=unique)
            if unique > 20:
                run.kernel.receive()
        for _ in range(20):
            run.kernel.receive()
        assert run.server.requests["LOOKUP"] == 2000


def test_a_reply_that_nobody_waits_for_does_no_harm() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        of_nobody = crew.Crew(ours.fileno(), lambda _request, _counts: None, 1)
        theirs.close()
        of_nobody._send(b"reply")
        of_nobody._send((b"header", b"data"))


def test_no_thread_at_all_is_an_error_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    of_nobody = crew.Crew(0, lambda _request, _counts: None, 1)
    monkeypatch.setattr(threading.Thread, "start", fail)

    with pytest.raises(NamespaceError, match="cannot start a thread"):
        of_nobody.run()
