"""Our own check of modes, for kernels that cannot be told to make it."""

import errno
import os
import struct
import subprocess

import pytest

from cvmfsexec.fuse.faults import FaultAccount
from cvmfsexec.fuse.negotiation import WANTED, Terms
from cvmfsexec.fuse.permissions import CheckingOperations
from cvmfsexec.fuse.protocol import OPCODE_LIMIT
from cvmfsexec.vfs.attributes import ROOT_INODE
from tests.support import fuse_messages as messages
from tests.support.fuse_messages import Answer, answer, request
from tests.support.memory_file_system import MemoryFileSystem

OWNER, GROUP = 1000, 2000
NOBODY_PID = 0
CALLERS = {
    "owner": (OWNER, 1, NOBODY_PID),
    "group": (1, GROUP, NOBODY_PID),
    "other": (1, 1, NOBODY_PID),
    "root": (0, 0, NOBODY_PID),
}


class Checked:
    """A file in a directory, both with modes, and whoever asks for them."""

    def __init__(self, mode: int, directory_mode: int = 0o755) -> None:
        self.file_system = MemoryFileSystem({b"directory": {b"file": b"x"}})
        self.directory = self.file_system.node(b"directory")
        self.file = self.file_system.node(b"directory/file")
        for node, bits in ((self.directory, directory_mode), (self.file, mode)):
            node.chmod(bits)
            node.attributes = node.attributes._replace(uid=OWNER, gid=GROUP)
        terms = Terms(45, WANTED, 0)
        self.operations = CheckingOperations(self.file_system, terms, FaultAccount())

    def ask(
        self, opcode: int, inode: int, body: bytes, caller: tuple[int, int, int]
    ) -> Answer:
        blob = bytearray(request(opcode, inode, body))
        struct.pack_into("<III", blob, 24, *caller)
        reply = self.operations.answer(bytes(blob), [0] * OPCODE_LIMIT)
        return answer(reply)

    def open(self, caller: tuple[int, int, int]) -> int:
        body = struct.pack("=II", os.O_RDONLY, 0)
        return self.ask(messages.OPEN, self.file.inode, body, caller).errno

    def access(self, wanted: int, caller: tuple[int, int, int]) -> int:
        body = struct.pack("=II", wanted, 0)
        return self.ask(messages.ACCESS, self.file.inode, body, caller).errno

    def lookup(self, caller: tuple[int, int, int], name: bytes = b"file") -> Answer:
        inode = self.directory.inode
        return self.ask(messages.LOOKUP, inode, name + b"\0", caller)


@pytest.mark.parametrize(
    ("mode", "may_read"),
    [
        (0o400, {"owner", "root"}),
        (0o040, {"group", "root"}),
        (0o004, {"other", "root"}),
        (0o000, {"root"}),
        (0o444, set(CALLERS)),
    ],
)
def test_the_class_of_the_caller_decides_alone(mode: int, may_read: set[str]) -> None:
    checked = Checked(mode)
    allowed = {name for name, ids in CALLERS.items() if checked.open(ids) == 0}
    assert allowed == may_read
    assert checked.access(os.R_OK, CALLERS["owner"]) == (
        0 if "owner" in may_read else errno.EACCES
    )


def test_further_groups_of_a_caller_count() -> None:
    checked = Checked(0o040)
    words = ("setpriv", "--groups", str(GROUP)) if os.geteuid() == 0 else ()
    with subprocess.Popen([*words, "cat"], stdin=subprocess.PIPE, stdout=-1) as member:
        assert member.stdin is not None
        assert member.stdout is not None
        member.stdin.write(b"x")
        member.stdin.flush()
        member.stdout.read(1)  # it is itself now
        group = GROUP if words else os.getgroups()[0]
        node = checked.file
        node.attributes = node.attributes._replace(gid=group)
        assert checked.open((1, 1, member.pid)) == 0
    assert checked.open((1, 1, NOBODY_PID)) == errno.EACCES


@pytest.mark.parametrize(("mode", "number"), [(0o644, errno.EACCES), (0o744, 0)])
def test_root_executes_what_anybody_may(mode: int, number: int) -> None:
    assert Checked(mode).access(os.X_OK, CALLERS["root"]) == number


def test_nobody_may_write() -> None:
    assert Checked(0o777).access(os.W_OK, CALLERS["root"]) == errno.EROFS


@pytest.mark.parametrize(
    ("directory_mode", "number"), [(0o711, 0), (0o744, errno.EACCES)]
)
def test_who_may_not_search_finds_nothing(directory_mode: int, number: int) -> None:
    checked = Checked(0o644, directory_mode)
    assert checked.lookup(CALLERS["other"]).errno == number


@pytest.mark.parametrize("name", [b"file", b"missing"])
@pytest.mark.parametrize(("directory_mode", "forever"), [(0o711, True), (0o700, False)])
def test_the_kernel_remembers_what_is_for_all(
    directory_mode: int, name: bytes, *, forever: bool
) -> None:
    found = Checked(0o644, directory_mode).lookup(CALLERS["owner"], name)
    _, _, entry_valid_s = struct.unpack_from("<QQQ", found.body)
    assert (entry_valid_s > 0) is forever


def test_opens_are_asked_each_time() -> None:
    checked = Checked(0o444)
    body = struct.pack("=II", os.O_RDONLY, 0)
    for opcode, inode in (
        (messages.OPEN, checked.file.inode),
        (messages.OPENDIR, ROOT_INODE),
    ):
        assert checked.ask(opcode, inode, body, CALLERS["other"]).errno == 0


def test_what_is_gone_is_stale_and_not_forbidden() -> None:
    checked = Checked(0o444)
    body = struct.pack("=II", os.O_WRONLY, 0)
    found = checked.ask(messages.OPEN, 987_654, body, CALLERS["other"])
    assert found.errno == errno.EROFS
