"""Claims among the processes of one node, without asking any file system.

On a shared file system a lock is a message to its server, if there are locks at all.
The kernel of the node knows a better place: an abstract socket address is bound by one
process at a time, and is free again when that closes it or dies, in whichever way.
Processes in other network namespaces do not see it, and fetch for themselves.

Otherwise as :mod:`cvmfsexec.cache.claims`: a claim is advice.
"""

import _socket
import errno
import os

from cvmfsexec.cache.claims import Claims


class NodeClaims(Claims):
    """The claims of one process on objects of one directory.

    Args:
        directory: Descriptor of the directory, which all processes name alike.
    """

    def __init__(self, directory: int) -> None:
        super().__init__(directory)
        status = os.fstat(directory)
        self._prefix = f"\0cvmfsexec.claim.{status.st_dev:x}.{status.st_ino:x}."
        self._held: dict[int, _socket.socket] = {}

    def close(self) -> None:
        """See ``Claims``."""
        super().close()
        while self._held:
            self._held.popitem()[1].close()

    def _try(self, offset: int) -> bool:
        if not self._are_possible:
            return False
        try:
            held = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)
        except OSError as error:
            self._do_without(error)
            return False
        try:
            held.bind(f"{self._prefix}{offset:x}")
        except OSError as error:
            held.close()
            if error.errno != errno.EADDRINUSE:
                self._do_without(error)
            return False
        self._held[offset] = held
        return True

    def _release(self, offset: int) -> None:
        held = self._held.pop(offset, None)
        if held is not None:
            held.close()
