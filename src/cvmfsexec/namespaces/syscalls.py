"""System calls that ``os`` lacks before Python 3.12, one thin function each.

Names and constants are the kernel's, so that the manual pages are the documentation.
A refusal becomes a NamespaceError with the call and its errno; what could be done
about it is found later, by ``hints``.
"""

import ctypes
import errno
import os
import signal
import struct

from cvmfsexec.errors import NamespaceError

CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20

MNT_DETACH = 2

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_ulong,
    ctypes.c_char_p,
)
_libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)
_libc.pivot_root.argtypes = (ctypes.c_char_p, ctypes.c_char_p)
_libc.unshare.argtypes = (ctypes.c_int,)
_libc.setns.argtypes = (ctypes.c_int, ctypes.c_int)
_libc.bind.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
_libc.capset.argtypes = (ctypes.c_char_p, ctypes.c_char_p)
_libc.prctl.argtypes = (
    ctypes.c_int,
    ctypes.c_ulong,
    ctypes.c_ulong,
    ctypes.c_ulong,
    ctypes.c_ulong,
)


_AF_UNIX = 1
_SOCK_SEQPACKET = 5
_SOCK_CLOEXEC = os.O_CLOEXEC
_CAPABILITY_VERSION_3 = 0x20080522
CAP_SYS_CHROOT = 18
CAP_SYS_ADMIN = 21


def refusal(syscall: str, number: int, purpose: str) -> NamespaceError:
    """Return the error for a refused call.

    Args:
        syscall: The kernel's name of it.
        number: Its errno.
        purpose: What it was to do, as it reads after "cannot".
    """
    return NamespaceError(
        f"cannot {purpose}: {os.strerror(number)}", syscall=syscall, errno=number
    )


def refusal_of(error: OSError) -> NamespaceError:
    """Return the error for a refused call of the standard library."""
    is_about_path = error.filename and error.errno in (errno.ENOENT, errno.EACCES)
    purpose = f"use {error.filename}" if is_about_path else "run the session"
    return refusal("", error.errno or 0, purpose)


def unshare(flags: int, purpose: str) -> None:
    """Leave namespaces behind for new ones."""
    if _libc.unshare(flags) < 0:
        raise refusal("unshare", ctypes.get_errno(), purpose)


def setns(descriptor: int, flags: int, purpose: str) -> None:
    """Enter a namespace of the kind that the flag says."""
    if _libc.setns(descriptor, flags) < 0:
        raise refusal("setns", ctypes.get_errno(), purpose)


def listen_at_abstract_name(name: str, backlog: int) -> int:
    """Return a new UNIX socket that keeps messages apart and listens.

    The name is in no file system: it goes away with the last descriptor of the socket.
    Here, because ``socket`` takes longer to import than all else takes that a session
    does with it.

    Raises:
        OSError: EADDRINUSE if somebody listens there.
    """
    listener = _libc.socket(_AF_UNIX, _SOCK_SEQPACKET | _SOCK_CLOEXEC, 0)
    if listener < 0:
        raise OSError(ctypes.get_errno(), "there are no UNIX sockets")
    address = struct.pack("=H", _AF_UNIX) + b"\0" + os.fsencode(name)
    if (
        _libc.bind(listener, address, len(address)) < 0
        or _libc.listen(listener, backlog) < 0
    ):
        number = ctypes.get_errno()
        os.close(listener)
        raise OSError(number, os.strerror(number))
    return int(listener)


def mount(
    source: str, target: str, *, fstype: str = "", flags: int = 0, data: str = ""
) -> None:
    """Mount a file system, bind a tree, or change what is mounted."""
    result = _libc.mount(
        os.fsencode(source),
        os.fsencode(target),
        os.fsencode(fstype),
        flags,
        os.fsencode(data),
    )
    if result < 0:
        number = ctypes.get_errno()
        raise refusal("mount", number, f"mount {fstype or source} on {target}")


def umount2(target: str, flags: int) -> None:
    """Take a mount away."""
    if _libc.umount2(os.fsencode(target), flags) < 0:
        raise refusal("umount2", ctypes.get_errno(), f"unmount {target}")


def pivot_root(new_root: str, put_old: str) -> None:
    """Make a mount the root of all that now have the old one."""
    if _libc.pivot_root(os.fsencode(new_root), os.fsencode(put_old)) < 0:
        raise refusal("pivot_root", ctypes.get_errno(), "change the root directory")


def set_parent_death_signal(number: signal.Signals) -> None:
    """Let the kernel send this process a signal when its parent ends.

    A change of credentials undoes it, so it comes after the last one. And it comes
    too late if the parent is gone already: who calls this looks for that afterwards.
    """
    _prctl(_PR_SET_PDEATHSIG, number)


def set_child_subreaper(*, on: bool) -> None:
    """Become the parent of descendants whose own parents end, instead of PID 1."""
    _prctl(_PR_SET_CHILD_SUBREAPER, int(on))


def set_process_name(name: str) -> None:
    """Name this process for ``ps`` and ``/proc/PID/comm``; cut to 15 bytes."""
    buffer = ctypes.create_string_buffer(os.fsencode(name))
    _prctl(_PR_SET_NAME, ctypes.addressof(buffer))


def keep_capabilities(*numbers: int) -> None:
    """Give up all capabilities but these, and the chance to get them back by exec."""
    kept = sum(1 << number for number in numbers)
    low, high = kept & 0xFFFFFFFF, kept >> 32
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    # Effective, permitted, inheritable; the lower halves of all come first.
    sets = struct.pack("=6I", low, low, 0, high, high, 0)
    if _libc.capset(header, sets) < 0:
        raise refusal("capset", ctypes.get_errno(), "give up privileges")
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def _prctl(option: int, argument: int) -> None:
    if _libc.prctl(option, argument, 0, 0, 0) < 0:
        raise refusal("prctl", ctypes.get_errno(), f"set process option {option}")
