"""A directory of doors: what waits for a mount, what cannot, and what comes of it."""

import errno
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from cvmfsexec.fuse.doors import FEATURES, DoorOperations, Doors
from cvmfsexec.fuse.faults import FaultAccount
from cvmfsexec.fuse.negotiation import WANTED, Terms
from cvmfsexec.fuse.protocol import OPCODE_LIMIT, Reply
from tests.support.fuse_messages import (
    ACCESS,
    GETATTR,
    GETXATTR,
    LISTXATTR,
    LOOKUP,
    OPENDIR,
    READDIR,
    STATFS,
    Answer,
    answer,
    attr,
    dirents,
    entry,
    interrupt_request,
    read_request,
    request,
)

NAME = b"atlas.example.org"
PATIENCE_S = 20.0
HANDLER = """
import signal
for number in (signal.SIGCHLD, signal.SIGTERM):
    signal.signal(number, lambda *_: None)
print("ready", flush=True)
signal.pause()
"""


class Mounter:
    """Mounts when it is let, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.may_go_on = threading.Event()
        self.succeeds = True

    def __call__(self, name: str) -> bool:
        self.asked.append(name)
        assert self.may_go_on.wait(PATIENCE_S)
        return self.succeeds


class Site:
    """Doors, who mounts, and the answers that came later."""

    def __init__(self) -> None:
        self.mounter = Mounter()
        self.later: queue.Queue[bytes] = queue.Queue()
        self.doors = Doors(
            "/nowhere", lambda name: b"." in name, self.mounter, lambda: [NAME]
        )
        self.doors.reply = self.later.put
        terms = Terms(45, WANTED & FEATURES, 0)
        self.operations = DoorOperations(self.doors, terms, FaultAccount())
        self.operations.interrupt = self.doors.interrupt

    def ask(
        self, opcode: int, nodeid: int = 1, body: bytes = bytes(16), unique: int = 7
    ) -> Reply:
        message = request(opcode, nodeid, body, unique)
        return self.operations.answer(message, [0] * OPCODE_LIMIT)

    def look_up(self, name: bytes, nodeid: int = 1, unique: int = 7) -> Reply:
        return self.ask(LOOKUP, nodeid, name + b"\0", unique)

    def interrupt(self, unique: int) -> Reply:
        return self.operations.answer(interrupt_request(unique), [0] * OPCODE_LIMIT)

    def next_answer(self) -> Answer:
        return answer(self.later.get(timeout=PATIENCE_S))


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.mounter.may_go_on.set()


def door_of(site: Site) -> int:
    return entry(answer(site.look_up(NAME)).body).nodeid


def test_a_name_is_a_directory_and_nobody_is_asked(site: Site) -> None:
    found = entry(answer(site.look_up(NAME)).body)
    assert found.attr["mode"] == 0o40755
    assert found.attr_valid_s == 0  # each stat is to be asked
    assert found.entry_valid_s > 10**6  # or the kernel would forget it
    assert door_of(site) == found.nodeid
    assert site.mounter.asked == []


def test_other_names_do_not_exist(site: Site) -> None:
    assert answer(site.look_up(b"lib")).errno == errno.ENOENT


def test_the_root_is_a_directory_that_lists_what_is_mounted(site: Site) -> None:
    door = door_of(site)
    assert attr(answer(site.ask(GETATTR)).body[16:])["ino"] == 1
    for opcode in (OPENDIR, ACCESS, STATFS):
        assert answer(site.ask(opcode)).errno == 0
    message = read_request(1, 0, 4096, opcode=READDIR)
    reply = answer(site.operations.answer(message, [0] * OPCODE_LIMIT))
    listed = dirents(reply.body, plus=False)
    assert [(one.name, one.inode) for one in listed][2:] == [(NAME, door)]


@pytest.mark.parametrize("opcode", [GETATTR, OPENDIR, ACCESS, STATFS, LISTXATTR])
def test_what_is_done_to_a_door_waits_for_the_mount(site: Site, opcode: int) -> None:
    assert site.ask(opcode, door_of(site), unique=70) is None
    site.mounter.may_go_on.set()
    assert site.next_answer() == Answer(errno.ESTALE, 70, b"")
    assert site.mounter.asked == [NAME.decode()]


def test_a_name_in_a_door_is_answered_at_once(site: Site) -> None:
    assert answer(site.look_up(b"file", door_of(site))).errno == errno.ESTALE


def test_the_second_walk_waits(site: Site) -> None:
    door = door_of(site)
    site.look_up(b"file", door)
    assert site.look_up(NAME, unique=71) is None
    assert site.ask(GETXATTR, door, bytes(8) + b"user.x\0", unique=72) is None
    site.mounter.may_go_on.set()
    answers = {one.unique: one for one in (site.next_answer(), site.next_answer())}
    assert entry(answers[71].body).nodeid == door
    assert answers[72].errno == errno.ESTALE
    assert site.mounter.asked == [NAME.decode()]


def test_what_cannot_be_mounted_does_not_exist_for_a_while(site: Site) -> None:
    site.mounter.succeeds = False
    site.mounter.may_go_on.set()
    door = door_of(site)
    assert site.ask(GETATTR, door) is None
    assert site.next_answer().errno == errno.ENOENT
    assert answer(site.ask(GETATTR, door)).errno == errno.ENOENT
    assert answer(site.look_up(b"file", door)).errno == errno.ENOENT
    assert door_of(site) == door  # or a mount on it could be lost
    assert site.mounter.asked == [NAME.decode()]


def test_who_is_interrupted_waits_no_longer(site: Site) -> None:
    door = door_of(site)
    assert site.ask(GETATTR, door, unique=80) is None
    assert site.ask(OPENDIR, door, unique=81) is None
    assert site.interrupt(80) is None
    for answered in (80, 98):
        reply = answer(site.interrupt(answered))
        assert reply == Answer(errno.EAGAIN, answered | 1, b""), "the kernel knows"
    assert site.next_answer() == Answer(errno.EINTR, 80, b"")
    site.mounter.may_go_on.set()
    assert site.next_answer() == Answer(errno.ESTALE, 81, b"")


def test_who_was_sent_a_harmless_signal_waits_on(site: Site) -> None:
    """And is let go when one follows that ends; the kernel does not tell of it."""
    door = door_of(site)
    words = [sys.executable, "-c", HANDLER]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.send_signal(signal.SIGSTOP)  # what is sent to it stays pending
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)
        for unique in (80, 82):
            message = request(GETATTR, door, bytes(16), unique, process.pid)
            assert site.operations.answer(message, [0] * OPCODE_LIMIT) is None
        process.send_signal(signal.SIGCHLD)
        assert site.interrupt(80) is None
        assert site.later.empty()
        process.send_signal(signal.SIGTERM)
        assert site.next_answer() == Answer(errno.EINTR, 80, b"")
        site.mounter.may_go_on.set()
        assert site.next_answer() == Answer(errno.ESTALE, 82, b"")
        process.kill()


def test_an_unknown_door_is_stale(site: Site) -> None:
    assert answer(site.ask(GETATTR, 99)).errno == errno.ESTALE
