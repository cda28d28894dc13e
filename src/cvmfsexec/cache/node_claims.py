"""Claims among the processes of one node, without asking any file system.

On a shared file system a lock is a message to its server, if there are locks at all.
The kernel of the node knows a better place: an abstract socket address is bound by one
process at a time, and is free again when that closes it or dies, in whichever way.
Processes in other network namespaces do not see it, and fetch for themselves.

Otherwise as :mod:`cvmfsexec.cache.claims`: a claim is advice.
"""

import _socket
import errno
import functools
import hashlib
import os

from cvmfsexec.cache.claims import Claims

NODE_BYTES = 4

_BOOT = "/proc/sys/kernel/random/boot_id"
_NETWORK = "/proc/self/ns/net"


class NodeClaims(Claims):
    """The claims of one process on objects of one directory.

    Args:
        directory: Descriptor of the directory, which all processes name alike.
    """

    def __init__(self, directory: int) -> None:
        super().__init__(directory)
        self._place = _place_of(directory)
        self._held: dict[int, _socket.socket] = {}

    def begin_anew(self) -> None:
        """See ``Claims``."""
        self._place = _place_of(self._directory)

    def close(self) -> None:
        """See ``Claims``."""
        super().close()
        while self._held:
            self._held.popitem()[1].close()

    def _try(self, offset: int) -> bool:
        if not self._are_possible:
            return False
        try:
            held = hold_address(f"claim.{self._place}.{offset:x}")
        except OSError as error:
            self._do_without(error)
            return False
        if held is None:
            return False
        self._held[offset] = held
        return True

    def _release(self, offset: int) -> None:
        held = self._held.pop(offset, None)
        if held is not None:
            held.close()


def _place_of(directory: int) -> str:
    status = os.fstat(directory)
    return f"{status.st_dev:x}.{status.st_ino:x}"


def hold_address(name: str) -> _socket.socket | None:
    """Return what holds an address until it is closed; ``None`` if somebody has it.

    Args:
        name: Of the address, which all who ask have in common.

    Raises:
        OSError: There are no such addresses here, or no descriptor is left.
    """
    held = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)
    try:
        held.bind(_path_of(name))
    except OSError as error:
        held.close()
        if error.errno != errno.EADDRINUSE:
            raise
        return None
    return held


def is_held(name: str) -> bool:
    """Whether somebody holds an address; the question keeps nobody from it."""
    try:
        asking = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)
    except OSError:
        return False
    try:
        asking.connect(_path_of(name))
    except OSError:
        return False
    else:
        return True
    finally:
        asking.close()


@functools.cache
def node_number() -> str:
    """Return eight digits that those have in common who can meet at addresses.

    They change with each start of the node, and with the network namespace.
    """
    try:
        with open(_BOOT, "rb") as file:
            place = file.read() + os.readlink(_NETWORK).encode()
    except OSError:
        place = os.urandom(NODE_BYTES)  # nobody is a neighbour
    return hashlib.sha256(place, usedforsecurity=False).digest()[:NODE_BYTES].hex()


def _path_of(name: str) -> str:
    return f"\0cvmfsexec.{name}"
