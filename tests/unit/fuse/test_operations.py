import errno
import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.errors import FormatError, TransferError
from cvmfsexec.fuse.faults import FaultAccount
from cvmfsexec.fuse.negotiation import WANTED, Terms
from cvmfsexec.fuse.operations import Operations
from cvmfsexec.fuse.protocol import OPCODE_LIMIT, OPCODE_NAMES, Feature, Opcode
from cvmfsexec.vfs.attributes import ROOT_INODE, Attributes
from tests.support import fuse_messages as messages
from tests.support.fuse_messages import (
    Answer,
    answer,
    getxattr_request,
    read_request,
    request,
)
from tests.support.memory_file_system import MemoryFileSystem

FOREVER_S = 2**31 - 1


class Served:
    """Operations on a small tree."""

    def __init__(self, features: int = WANTED) -> None:
        self.file_system = MemoryFileSystem(
            {
                b"file": b"0123456789",
                b"link": "file",
                b"directory": {b"below": b"x"},
                b"broken": TransferError("no route"),
            }
        )
        self.file_system.node(b"file").xattrs = {b"user.a": b"1234", b"user.b": b""}
        self.faults = FaultAccount()
        self.operations = Operations(
            self.file_system, Terms(45, features, 0), self.faults
        )
        self.counts = [0] * OPCODE_LIMIT

    def inode(self, path: bytes) -> int:
        return self.file_system.node(path).inode

    def ask(self, blob: bytes) -> Answer:
        return answer(self.operations.answer(blob, self.counts))

    def lookup(self, name: bytes, parent: int = ROOT_INODE) -> Answer:
        return self.ask(request(messages.LOOKUP, parent, name + b"\0"))


@pytest.fixture
def served() -> Served:
    return Served()


def test_lookup_tells_inode_attributes_and_validity(served: Served) -> None:
    reply = served.lookup(b"file")

    found = messages.entry(reply.body)
    assert reply.unique == 7
    assert found.nodeid == served.inode(b"file")
    assert found.entry_valid_s == found.attr_valid_s == FOREVER_S
    assert found.attr["size"] == 10
    assert len(reply.body) == 128


def test_a_missing_name_is_an_answer_to_keep(served: Served) -> None:
    reply = served.lookup(b"nothing")

    assert reply.errno == 0
    assert len(reply.body) == 128
    found = messages.entry(reply.body)
    assert (found.nodeid, found.entry_valid_s) == (0, FOREVER_S)
    assert served.faults.io_errors == 0


def test_lookup_of_dots_serves_file_handles(served: Served) -> None:
    directory = served.inode(b"directory")

    itself = messages.entry(served.lookup(b".", directory).body)
    above = messages.entry(served.lookup(b"..", directory).body)

    assert (itself.nodeid, above.nodeid) == (directory, ROOT_INODE)


def test_lookup_of_a_failing_directory_is_an_io_error(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    broken = served.inode(b"broken")

    reply = served.lookup(b"name", broken)

    assert reply == Answer(errno.EIO, 7, b"")
    assert caplog.messages == [
        f"LOOKUP of inode {broken:#x} name b'name' gave EIO (Input/output error):"
        " no route"
    ]


def test_getattr(served: Served) -> None:
    reply = served.ask(request(messages.GETATTR, served.inode(b"file"), bytes(16)))

    assert struct.unpack_from("=QII", reply.body) == (FOREVER_S, 0, 0)
    assert messages.attr(reply.body[16:])["ino"] == served.inode(b"file")
    assert len(reply.body) == 104


def test_getattr_of_an_inode_that_is_gone_is_stale(served: Served) -> None:
    reply = served.ask(request(messages.GETATTR, 12345, bytes(16)))

    assert reply.errno == errno.ESTALE


def test_readlink(served: Served) -> None:
    link = served.ask(request(messages.READLINK, served.inode(b"link")))
    file = served.ask(request(messages.READLINK, served.inode(b"file")))

    assert link.body == b"file"
    assert file.errno == errno.EINVAL


@pytest.mark.parametrize(
    ("offset", "size", "expected"),
    [
        (0, 4, b"0123"),
        (8, 4, b"89"),
        (10, 4, b""),
        (99, 4, b""),
        (0, 4096, b"0123456789"),
    ],
)
def test_read(served: Served, offset: int, size: int, expected: bytes) -> None:
    reply = served.ask(read_request(served.inode(b"file"), offset, size))

    assert reply.body == expected


@pytest.mark.parametrize("opcode", [messages.READDIR, messages.READDIRPLUS])
@pytest.mark.parametrize("features", [WANTED, 0])
def test_readdir_has_the_form_that_was_agreed(opcode: int, features: int) -> None:
    served = Served(features)

    reply = served.ask(read_request(ROOT_INODE, 0, 4096, opcode=opcode))

    plus = bool(features & Feature.DO_READDIRPLUS)
    names = [entry.name for entry in messages.dirents(reply.body, plus=plus)]
    assert names == [b".", b"..", b"file", b"link", b"directory", b"broken"]


def test_open_and_opendir_are_left_to_the_kernel(served: Served) -> None:
    for opcode in (messages.OPEN, messages.OPENDIR):
        assert served.ask(request(opcode, 1, bytes(8))).errno == errno.ENOSYS


def test_open_keeps_the_cache_where_the_kernel_insists_on_asking() -> None:
    served = Served(WANTED & ~Feature.NO_OPEN_SUPPORT & ~Feature.NO_OPENDIR_SUPPORT)

    file = served.ask(request(messages.OPEN, 1, bytes(8)))
    directory = served.ask(request(messages.OPENDIR, 1, bytes(8)))

    assert struct.unpack("=QII", file.body) == (0, 2, 0)
    assert struct.unpack("=QII", directory.body) == (0, 2 | 8, 0)


@pytest.mark.parametrize("features", [WANTED, 0])
@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR, os.O_TRUNC])
def test_open_for_writing_is_refused(features: int, flags: int) -> None:
    reply = Served(features).ask(
        request(messages.OPEN, 1, struct.pack("=II", flags, 0))
    )

    assert reply.errno == errno.EROFS


def test_statfs(served: Served) -> None:
    reply = served.ask(request(messages.STATFS))

    fields = struct.unpack("=QQQQQIIII24x", reply.body)
    assert fields == (1000, 600, 600, 6, 7, 512, 255, 512, 0)


@pytest.mark.parametrize(
    ("name", "room", "expected"),
    [
        (b"user.a", 100, Answer(0, 7, b"1234")),
        (b"user.a", 4, Answer(0, 7, b"1234")),
        (b"user.a", 3, Answer(errno.ERANGE, 7, b"")),
        (b"user.a", 0, Answer(0, 7, struct.pack("=II", 4, 0))),
        (b"user.b", 100, Answer(0, 7, b"")),
        (b"user.b", 0, Answer(0, 7, bytes(8))),
        (b"user.c", 100, Answer(errno.ENODATA, 7, b"")),
        (b"user.c", 0, Answer(errno.ENODATA, 7, b"")),
        (b"security.selinux", 255, Answer(errno.EOPNOTSUPP, 7, b"")),
        (b"user.long", 0, Answer(errno.E2BIG, 7, b"")),
        (b"user.long", 65536, Answer(errno.E2BIG, 7, b"")),
    ],
)
def test_getxattr(served: Served, name: bytes, room: int, expected: Answer) -> None:
    served.file_system.node(b"file").xattrs[b"user.long"] = bytes(65537)

    reply = served.ask(getxattr_request(served.inode(b"file"), name, room))

    assert reply == expected


def test_listxattr(served: Served) -> None:
    def ask(room: int) -> Answer:
        body = struct.pack("=II", room, 0)
        return served.ask(request(messages.LISTXATTR, served.inode(b"file"), body))

    assert ask(0).body == struct.pack("=II", 14, 0)
    assert ask(14).body == b"user.a\0user.b\0"
    assert ask(13).errno == errno.ERANGE


@pytest.mark.parametrize(
    "opcode",
    [4, 6, 8, 9, 10, 11, 12, 13, 16, 21, 24, 35, 43, 45, 47, 51, 53],
    ids=lambda opcode: OPCODE_NAMES[opcode],
)
def test_every_change_is_refused_as_read_only(served: Served, opcode: int) -> None:
    assert served.ask(request(opcode, 1, bytes(64))).errno == errno.EROFS


@pytest.mark.parametrize(
    "opcode",
    [20, 25, 30, 31, 32, 33, 34, 37, 40, 46, 48, 49, 50, 52, 7, 19, 60],
    ids=lambda opcode: OPCODE_NAMES.get(opcode, str(opcode)),
)
def test_what_is_not_served_is_never_asked_again(served: Served, opcode: int) -> None:
    assert served.ask(request(opcode, 1, bytes(64))).errno == errno.ENOSYS


@pytest.mark.parametrize("opcode", [2, 36, 41, 42])
def test_some_requests_get_no_reply(served: Served, opcode: int) -> None:
    blob = request(opcode, 1, bytes(24))

    assert served.operations.answer(blob, served.counts) is None


@pytest.mark.parametrize("opcode", [18, 29, 38])
def test_release_and_destroy_succeed(served: Served, opcode: int) -> None:
    assert served.ask(request(opcode, 1, bytes(24))) == Answer(0, 7, b"")


def test_ioctl_is_answered_as_by_a_plain_file(served: Served) -> None:
    assert served.ask(request(messages.IOCTL, 1, bytes(32))).errno == errno.ENOTTY


def test_requests_are_counted_by_opcode(served: Served) -> None:
    served.lookup(b"file")
    served.lookup(b"nothing")
    served.ask(request(4097))

    assert served.counts[Opcode.LOOKUP] == 2
    assert served.counts[0] == 1


class _Mistaken(MemoryFileSystem):
    def lookup(self, parent: int, name: bytes) -> Attributes | None:
        raise ZeroDivisionError(f"{parent} {name!r}")

    def attributes(self, inode: int) -> Attributes | None:
        return Attributes(inode, -1, 0, 0, 0, 0, 0, 0, 0, 0)


def test_a_mistake_of_ours_is_an_io_error_and_a_log_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    faults = FaultAccount()
    operations = Operations(_Mistaken({}), Terms(45, WANTED, 0), faults)
    counts = [0] * OPCODE_LIMIT

    reply = operations.answer(request(messages.LOOKUP, 1, b"x\0"), counts)

    assert answer(reply).errno == errno.EIO
    assert faults.io_errors == 1
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.usefixtures("caplog")
def test_attributes_that_fit_no_message_are_an_io_error() -> None:
    heard: list[BaseException] = []
    faults = FaultAccount(on_fault=lambda _, error: heard.append(error))
    operations = Operations(_Mistaken({}), Terms(45, WANTED, 0), faults)

    reply = operations.answer(
        request(messages.GETATTR, 1, bytes(16)), [0] * OPCODE_LIMIT
    )

    assert answer(reply).errno == errno.EIO
    assert isinstance(heard[0], FormatError)


@pytest.mark.parametrize(
    "blob",
    [
        request(messages.READ, 1, bytes(8)),
        request(messages.READDIRPLUS, 1, b""),
        request(messages.GETXATTR, 1, b"x"),
        request(messages.OPEN, 1, b""),
        request(messages.LOOKUP, 1, b""),
        request(messages.LOOKUP, 1, b"\0"),
        request(messages.LOOKUP, 1, b"name\0")[:-2],
        request(messages.LOOKUP, 1, b"name\0") + b"more",
    ],
    ids=["read", "readdir", "getxattr", "open", "lookup", "empty", "cut", "long"],
)
def test_a_malformed_request_is_an_io_error(blob: bytes) -> None:
    heard: list[BaseException] = []
    served = Served()
    served.faults = FaultAccount(on_fault=lambda _, error: heard.append(error))
    served.operations = Operations(
        served.file_system, Terms(45, WANTED, 0), served.faults
    )

    assert served.ask(blob) == Answer(errno.EIO, 7, b"")
    assert [type(error) for error in heard] == [FormatError]


def test_less_than_a_header_cannot_be_answered(served: Served) -> None:
    assert served.operations.answer(b"\1" * 39, served.counts) is None


@given(
    st.integers(min_value=0, max_value=70),
    st.integers(min_value=0, max_value=2**64 - 1),
    st.binary(max_size=100),
)
def test_any_request_is_answered(opcode: int, inode: int, body: bytes) -> None:
    served = Served()

    reply = served.operations.answer(request(opcode, inode, body), served.counts)

    if reply is not None:
        assert answer(reply).unique == 7
