"""Requests that wait: who is interrupted, who waits for a thread, and who never does.

The requests come from a process that cannot be seen, so each INTERRUPT counts; whose
count and whose do not is ``test_requesters``' business.
"""

import errno
import socket
import threading
import time

from hypothesis import given, settings
from hypothesis import strategies as st

from cvmfsexec import callers
from cvmfsexec.fuse import crew
from cvmfsexec.fuse.crew import Alarm, Ending
from cvmfsexec.fuse.protocol import REQUEST_HEADER
from cvmfsexec.fuse.server import FuseServer
from cvmfsexec.vfs.attributes import Attributes
from tests.support import fuse_messages as messages
from tests.support.fuse_messages import (
    Answer,
    init_request,
    interrupt_request,
    read_request,
    request,
)
from tests.support.memory_file_system import MemoryFileSystem
from tests.support.socket_device import (
    PATIENT_S,
    Kernel,
    Run,
    fuse_threads,
    serving,
    wait_for_threads_to_end,
)

INTERRUPTED = errno.EINTR
ABSENT = 0  # a name that does not exist is an answer like others


class Network(MemoryFileSystem):
    """Names that begin with "slow" wait until they are let go, as for a download."""

    def __init__(self) -> None:
        super().__init__({b"file": b"x"})
        self.may_go_on: set[bytes] = set()
        self.waiting: list[bytes] = []
        self.given_up: list[bytes] = []

    def lookup(self, parent: int, name: bytes) -> Attributes | None:
        if name.startswith(b"slow"):
            self._wait(name)
        return super().lookup(parent, name)

    def read(self, inode: int, offset: int, size: int) -> bytes | memoryview:
        self._wait(b"read")
        return super().read(inode, offset, size)

    def _wait(self, name: bytes) -> None:
        callers.before_waiting()
        self.waiting.append(name)
        until_s = time.monotonic() + PATIENT_S
        while name not in self.may_go_on and time.monotonic() < until_s:
            time.sleep(0.001)
            if callers.is_lost():
                self.given_up.append(name)
                raise callers.CannotWait

    def wait_for(self, *names: bytes) -> None:
        until_s = time.monotonic() + PATIENT_S
        while not set(names) <= set(self.waiting):
            assert time.monotonic() < until_s, f"{names} of {self.waiting}"
            time.sleep(0.001)


def interrupt(run: Run, unique: int) -> None:
    run.kernel.send(interrupt_request(unique))


def expect_answers_at_once(run: Run, unique: int = 1000) -> None:
    for number in range(unique, unique + 20, 2):
        run.kernel.lookup(b"file", unique=number)
        assert run.kernel.receive()[1] == number


def test_who_is_interrupted_gets_an_answer_at_once() -> None:
    network = Network()
    with serving(network) as run:
        run.kernel.init()
        run.kernel.lookup(b"slow", unique=2)
        network.wait_for(b"slow")
        interrupt(run, 2)
        assert run.kernel.receive() == Answer(INTERRUPTED, 2, b"")
        # What the worker says later is for nobody: the kernel answers it with ENOENT.
        assert run.kernel.receive() == Answer(INTERRUPTED, 2, b"")
        assert network.given_up == [b"slow"]
        assert run.server.faults.io_errors == 0
        expect_answers_at_once(run)


def test_it_need_not_be_the_network_that_holds_it_up() -> None:
    class Disk(MemoryFileSystem):
        may_go_on = threading.Event()
        waits = threading.Event()

        def lookup(self, parent: int, name: bytes) -> Attributes | None:
            if name == b"slow":
                self.waits.set()
                self.may_go_on.wait(PATIENT_S)
            return super().lookup(parent, name)

    disk = Disk({})
    with serving(disk) as run:
        run.kernel.init()
        run.kernel.lookup(b"slow", unique=2)
        assert disk.waits.wait(PATIENT_S)
        interrupt(run, 2)
        assert run.kernel.receive() == Answer(INTERRUPTED, 2, b"")
        disk.may_go_on.set()
        late = run.kernel.receive()
        assert (late.unique, late.errno) == (2, ABSENT)


def test_an_interrupt_of_what_is_not_there_comes_again() -> None:
    with serving(Network()) as run:
        run.kernel.init()
        interrupt(run, 40)  # it has overtaken its request
        assert run.kernel.receive() == Answer(errno.EAGAIN, 41, b"")
        run.kernel.lookup(b"file", unique=40)
        assert run.kernel.receive().unique == 40
        interrupt(run, 40)  # it comes too late
        assert run.kernel.receive() == Answer(errno.EAGAIN, 41, b"")
        run.kernel.send(request(messages.INTERRUPT, 0, b"short", unique=43))
        assert run.kernel.receive() == Answer(errno.EIO, 43, b"")
        expect_answers_at_once(run)


def test_when_all_wait_what_is_there_is_answered() -> None:
    network = Network()
    with serving(network, threads=3) as run:
        run.kernel.init()
        for unique in range(2, 20, 2):
            run.kernel.lookup(b"slow%d" % unique, unique=unique)
        network.wait_for(b"slow2", b"slow4")
        expect_answers_at_once(run)
        assert len(fuse_threads()) == 3
        assert len(network.waiting) == 2, "the last one never waits"
        interrupt(run, 18)  # has not begun yet
        assert run.kernel.receive() == Answer(INTERRUPTED, 18, b"")
        network.may_go_on |= {b"slow%d" % unique for unique in range(2, 18, 2)}
        done = sorted(run.kernel.receive().unique for _ in range(8))
        assert done == [*range(2, 18, 2)]
        assert b"slow18" not in network.waiting
        assert run.server.requests["LOOKUP"] == 19


def test_one_thread_has_to_wait() -> None:
    network = Network()
    with serving(network, threads=1) as run:
        run.kernel.init()
        run.kernel.lookup(b"slow", unique=2)
        network.wait_for(b"slow")
        network.may_go_on.add(b"slow")
        assert run.kernel.receive().unique == 2


def test_who_was_killed_without_a_word_is_missed() -> None:
    """Who waits for what the kernel reads ahead can be; who looks up a name cannot."""
    network = Network()
    with serving(network) as run:
        run.kernel.init()
        expect_answers_at_once(run)
        assert run.server._crew is not None
        run.server._crew._requesters._evidence = 8
        run.kernel.lookup(b"slow", unique=2)
        inode = network.node(b"file").inode
        run.kernel.send(read_request(inode, 0, 1, unique=4))
        network.wait_for(b"slow", b"read")
        assert run.kernel.receive() == Answer(INTERRUPTED, 4, b"")
        assert run.kernel.receive() == Answer(INTERRUPTED, 4, b"")
        assert network.given_up == [b"read"]
        network.may_go_on.add(b"slow")
        assert run.kernel.receive().unique == 2


def test_the_alarm_is_called_in_spite_of_those_who_wait() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    network = Network()
    server = FuseServer(ours.fileno(), network)
    called = threading.Event()
    endings: list[Ending] = []
    thread = threading.Thread(
        target=lambda: endings.append(server.serve(Alarm(0.3, called.set)))
    )
    with ours:
        with theirs:
            kernel = Kernel(theirs)
            thread.start()
            assert kernel.ask(init_request(0)).errno == 0
            kernel.lookup(b"slow", unique=2)
            network.wait_for(b"slow")
            assert called.wait(PATIENT_S)
            network.may_go_on.add(b"slow")
            assert kernel.receive().unique == 2
        thread.join(PATIENT_S)
        wait_for_threads_to_end()
    assert endings == [Ending.UNMOUNTED]


class _Step:
    ASK, ASK_FAST, INTERRUPT, LET_GO, UNKNOWN = range(5)


@settings(max_examples=30, deadline=None)
@given(
    steps=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 11)), max_size=24),
    threads=st.integers(2, 4),
)
def test_in_any_order_each_request_is_answered_once(
    steps: list[tuple[int, int]], threads: int
) -> None:
    """Once for the kernel: what follows EINTR is for nobody."""
    network = Network()
    asked: dict[int, bytes] = {}
    fast: set[int] = set()
    interrupted: set[int] = set()
    with serving(network, threads=threads) as run:
        run.kernel.init()
        for number, (step, which) in enumerate(steps):
            unique = 2 * (number + 1)
            known = sorted(asked)[which % len(asked)] if asked else 10_000
            if step == _Step.ASK:
                asked[unique] = b"slow%d" % unique
                run.kernel.lookup(asked[unique], unique)
            elif step == _Step.ASK_FAST:
                fast.add(unique)
                run.kernel.lookup(b"file", unique)
            elif step == _Step.INTERRUPT:
                interrupted.add(known)
                interrupt(run, known)
            elif step == _Step.LET_GO:
                network.may_go_on.add(asked.get(known, b""))
            else:
                interrupt(run, 20_000)
        network.may_go_on |= {*asked.values()}
        answers = _first_answers(run, asked.keys() | fast)
        for unique, error in answers.items():
            assert error in ({0, INTERRUPTED} if unique in interrupted else {0})
        run.kernel.lookup(b"file", unique=30_000)
        while run.kernel.receive().unique != 30_000:
            pass
        assert len(fuse_threads()) <= threads
        assert run.server.faults.io_errors == 0


def _first_answers(run: Run, uniques: set[int]) -> dict[int, int]:
    """Play the kernel: take the first answer to each request, and what is overdue."""
    answers: dict[int, int] = {}
    while uniques - answers.keys():
        found = run.kernel.receive()
        if found.unique & 1:
            assert found.errno == errno.EAGAIN
        else:
            assert found.unique in uniques
            before = answers.setdefault(found.unique, found.errno)
            assert before in {found.errno, INTERRUPTED}
    return answers


def test_a_worker_knows_who_asks() -> None:
    worker = crew.Worker(1, lambda _worker: True)
    assert worker.asker() is None
    worker.task = REQUEST_HEADER.pack(40, 15, 1, 7, 1000, 100, 42, 0, 0)
    assert worker.asker() == callers.Asker(pid=42, uid=1000, gid=100, inode=7)
    worker.done = worker.task
    assert worker.asker() is None


def test_a_worker_is_told_of_its_own_task_only() -> None:
    worker = crew.Worker(1, lambda _worker: True)
    assert worker.request() is None
    worker.task = b"first"
    assert worker.request() == b"first"
    worker.done = worker.task
    assert worker.request() is None
