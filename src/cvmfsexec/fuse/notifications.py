"""What the kernel is told unasked: that something it keeps is not so any more.

Facts about notifications:

- They are written to the device as replies to nobody (``unique`` 0), the code in the
  place of the errno. ENOENT says that the kernel knows no such thing; nothing is wrong.
- INVAL_ENTRY drops a name from the kernel's cache with everything below it. It waits
  for whoever looks something up or lists in that directory: so it must not be sent by a
  thread that is to answer requests, and afterwards no answer from before is under way.
- INVAL_INODE drops attributes, and what was read: of a directory, its listing. It waits
  for nobody, so it comes after the names of the directory, lest a listing that is
  under way is kept after it.
- Both exist since the oldest protocol that is spoken here. If a device refuses them all
  the same (a relay), names and attributes are given for a bounded time only.
- INC_EPOCH (7.44) is of no use here: it drops everything, changed or not.

Source: Linux, fs/fuse/dev.c, dir.c, inode.c.
"""

import errno
import os
import struct
from itertools import groupby
from operator import itemgetter

from cvmfsexec import log
from cvmfsexec.vfs.attributes import Changes

_INVAL_INODE = 2
_INVAL_ENTRY = 3

_INVAL_INODE_MESSAGE = struct.Struct("<IiQ Qqq")
"""length, code, unique; nodeid, offset, bytes (0 for all)"""

_INVAL_ENTRY_MESSAGE = struct.Struct("<IiQ QII")
"""length, code, unique; nodeid of the directory, length of the name, flags; the name
follows, with a zero"""

_ATTRIBUTES_ONLY = -1  # as an offset
_NOWHERE = 0  # no nodeid
_GONE = frozenset({errno.ENODEV, errno.EPERM, errno.ECONNABORTED})


class Notifier:
    """Tells one kernel, on one device."""

    def __init__(self, device_fd: int) -> None:
        """Use a device that is mounted."""
        self._device_fd = device_fd

    def is_understood(self) -> bool:
        """Whether the kernel takes notifications; found out by one that means nothing.

        It may be asked before anything else, INIT included.
        """
        return self._send(_inode_message(_NOWHERE, _ATTRIBUTES_ONLY)) == errno.ENOENT

    def tell(self, changes: Changes) -> None:
        """Tell what has changed. Must not be called by a thread that answers requests.

        A failure is logged: there is no way to make the kernel forget then.
        """
        failures = {0}
        names = sorted(changes.names, key=itemgetter(0))
        for directory, entries in groupby(names, key=itemgetter(0)):
            for _, name in entries:
                failures.add(self._send(_entry_message(directory, name)))
            failures.add(self._send(_inode_message(directory, 0)))
        for inode in changes.attributes:
            failures.add(self._send(_inode_message(inode, _ATTRIBUTES_ONLY)))
        failures -= {0, errno.ENOENT} | _GONE
        for number in failures:
            log.error("the kernel may show what is old: %s", os.strerror(number))

    def _send(self, message: bytes) -> int:
        """Return 0, or the errno of the refusal."""
        try:
            os.write(self._device_fd, message)
        except OSError as error:
            return error.errno or errno.EIO
        return 0


def _inode_message(inode: int, offset: int) -> bytes:
    size = _INVAL_INODE_MESSAGE.size
    return _INVAL_INODE_MESSAGE.pack(size, _INVAL_INODE, 0, inode, offset, 0)


def _entry_message(directory: int, name: bytes) -> bytes:
    size = _INVAL_ENTRY_MESSAGE.size + len(name) + 1
    head = _INVAL_ENTRY_MESSAGE.pack(size, _INVAL_ENTRY, 0, directory, len(name), 0)
    return head + name + b"\0"
