"""Any bytes from the device get a well-formed reply, or none, and break nothing."""

import struct

from cvmfsexec.errors import CvmfsError, FormatError
from cvmfsexec.fuse.doors import FEATURES, DoorOperations, Doors
from cvmfsexec.fuse.faults import FaultAccount
from cvmfsexec.fuse.negotiation import WANTED, InitRequest, Terms, negotiate
from cvmfsexec.fuse.operations import Operations
from cvmfsexec.fuse.permissions import CheckingOperations
from cvmfsexec.fuse.protocol import OPCODE_LIMIT, Opcode
from tests.support.memory_file_system import MemoryFileSystem

HEADER_BYTES = 16


class StrictAccount(FaultAccount):
    """Takes what a file system may raise, and lets mistakes of ours through."""

    def record(self, what: str, error: BaseException, number: int) -> None:
        """Raise what is a finding."""
        if not isinstance(error, CvmfsError):
            raise error
        assert what
        assert number


def _operations(features: int, kind: type[Operations] = Operations) -> Operations:
    file_system = MemoryFileSystem(
        {b"file": bytes(10_000), b"directory": {b"%d" % i: b"" for i in range(50)}}
    )
    file_system.node(b"file").xattrs = {b"user.a": b"value"}
    return kind(file_system, Terms(45, features, 0), StrictAccount())


def _door_operations() -> Operations:
    doors = Doors("/nowhere", lambda name: b"." in name, lambda _: False, lambda: ())
    doors.lookup(1, b"a.b")
    return DoorOperations(doors, Terms(45, WANTED & FEATURES, 0), StrictAccount())


OPERATIONS = (
    _operations(WANTED),
    _operations(0),
    _operations(0, CheckingOperations),
    _door_operations(),
)


def target(data: bytes) -> None:
    """Raise only on a finding."""
    for operations in OPERATIONS:
        reply = operations.answer(data, [0] * OPCODE_LIMIT)
        if reply is None:
            continue
        parts = reply if isinstance(reply, tuple) else (reply,)
        blob = b"".join(bytes(part) for part in parts)
        length, error, unique = struct.unpack_from("<IiQ", blob)
        assert length == len(blob)
        assert -200 < error <= 0
        assert not error or length == HEADER_BYTES
        assert unique == int.from_bytes(data[8:16], "little")
    if data[4:8] == Opcode.INIT.to_bytes(4, "little"):
        _negotiate(data)


def _negotiate(data: bytes) -> None:
    try:
        terms = negotiate(InitRequest.parse(data))
    except FormatError:
        return
    if terms is not None:
        assert terms.features & ~WANTED == 0
        assert len(terms.reply(1)) in {HEADER_BYTES + 24, HEADER_BYTES + 64}
