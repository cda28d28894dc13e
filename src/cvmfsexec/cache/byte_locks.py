"""Locks on single bytes of a file that many processes have open.

Facts about these locks (``F_OFD_SETLK``, locks of an open file description):

* The kernel lets go of them with the last descriptor, however the holder dies and in
  whichever pid namespace it was. Nothing is left behind, nobody has to clear up.
* They need no bytes to lie on: the file may be empty, and as long as it likes.
* One descriptor is one owner, so the threads of a process do not exclude each other.
* Waiting in the kernel (``F_OFD_SETLKW``) has no time limit and cannot be called off
  in a thread. So whoever waits looks again and again.

Network file systems may have none; the calls here then raise.
"""

import errno
import os
import struct

_HELD_BY_OTHERS = frozenset({errno.EAGAIN, errno.EACCES})
_FLOCK = struct.Struct("hhqqi0q")  # struct flock: type, whence, start, length, pid

_NO_LOCKS = frozenset({errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP})


def try_lock(descriptor: int, offset: int) -> bool:
    """Take the lock on a byte; return whether nobody else has it.

    Raises:
        OSError: There are no locks here.
    """
    import fcntl

    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _lock(fcntl.F_WRLCK, offset))
    except OSError as error:
        if error.errno not in _HELD_BY_OTHERS:
            raise
        return False
    return True


def unlock(descriptor: int, offset: int) -> None:
    """Let go of a lock; one that is not held is let go of already.

    Raises:
        OSError: There are no locks here (any more).
    """
    import fcntl

    fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _lock(fcntl.F_UNLCK, offset))


def is_locked(descriptor: int, offset: int) -> bool:
    """Whether somebody has the lock on a byte through another descriptor.

    Raises:
        OSError: There are no locks here.
    """
    import fcntl

    question = _lock(fcntl.F_WRLCK, offset)
    answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, question)
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)


def last_locked(descriptor: int, start: int, end: int) -> int | None:
    """Return the last byte of a range that somebody else has locked, if there is one.

    Args:
        descriptor: The file.
        start: First byte of the range.
        end: First byte behind it.

    Raises:
        OSError: There are no locks here.
    """
    import fcntl

    found = None
    while start < end:  # the kernel tells of any lock in it
        question = _lock(fcntl.F_WRLCK, start, end - start)
        answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, question)
        kind, _, locked_start, length, _ = _FLOCK.unpack(answer)
        if kind == fcntl.F_UNLCK:
            break
        start = locked_start + length if length else end  # 0: whatever follows
        found = min(start, end) - 1
    return found


def means_no_locks(error: OSError) -> bool:
    """Whether an error says that the file system has no such locks."""
    return error.errno in _NO_LOCKS


def _lock(kind: int, offset: int, length: int = 1) -> bytes:
    return _FLOCK.pack(kind, os.SEEK_SET, offset, length, 0)
