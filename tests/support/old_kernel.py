"""Run a command where user namespaces may not mount FUSE, as before Linux 4.18.

``old_kernel.py COMMAND...``, as root. A seccomp filter lets this process decide about
every mount. It refuses those of type ``fuse`` that come out of other user namespaces
than its own, and lets the kernel decide about all others. Unlike a filter that is
installed without privileges, this one leaves set-uid programs as they are.
"""

import array
import ctypes
import errno
import fcntl
import os
import platform
import select
import socket
import struct
import sys

_ARCHITECTURES = {
    # machine: audit number, mount, seccomp
    "x86_64": (0xC000003E, 165, 317),
    "aarch64": (0xC00000B7, 40, 277),
}
_SET_MODE_FILTER = 1
_NEW_LISTENER = 8
_RECEIVE, _SEND = 0xC0502100, 0xC0182101  # ioctls
_CONTINUE = 1
_ALLOW, _NOTIFY = 0x7FFF0000, 0x7FC00000
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_NOTIFICATION = struct.Struct("=QIIiIQ6Q")
_ANSWER = struct.Struct("=QqiI")


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def main(words: list[str]) -> int:
    ours, its = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        listener = _install_filter()
        socket.send_fds(its, [b"x"], [listener])
        os.close(listener)
        ours.close()
        its.close()
        os.execvp(words[0], words)  # noqa: S606
    its.close()
    _, (listener,), _, _ = socket.recv_fds(ours, 1, 1)
    if os.fork() == 0:
        _decide_until_nobody_asks(listener)
    os.close(listener)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _install_filter() -> int:
    """Have every mount of this process and its descendants decided by a listener."""
    audit, mount, seccomp = _ARCHITECTURES[platform.machine()]
    instructions = b"".join(
        struct.pack("=HBBI", *one)
        for one in (
            (_LOAD, 0, 0, 4),  # the architecture
            (_JUMP_IF_EQUAL, 0, 3, audit),
            (_LOAD, 0, 0, 0),  # the system call
            (_JUMP_IF_EQUAL, 0, 1, mount),
            (_RETURN, 0, 0, _NOTIFY),
            (_RETURN, 0, 0, _ALLOW),
        )
    )
    program = _Program(len(instructions) // 8, instructions)
    libc = ctypes.CDLL(None, use_errno=True)
    listener = libc.syscall(
        seccomp, _SET_MODE_FILTER, _NEW_LISTENER, ctypes.byref(program)
    )
    if listener < 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    return int(listener)


def _decide_until_nobody_asks(listener: int) -> None:
    namespace = os.readlink("/proc/self/ns/user")
    os.dup2(os.open(os.devnull, os.O_RDWR), 1)  # the command's output ends with it
    os.dup2(1, 2)
    asked = select.poll()
    asked.register(listener, select.POLLIN)
    while not asked.poll()[0][1] & select.POLLHUP:
        request = array.array("B", bytes(_NOTIFICATION.size))
        try:
            fcntl.ioctl(listener, _RECEIVE, request, True)  # noqa: FBT003
        except OSError:
            continue  # who asked is dead
        number, pid, _, _, _, _, _, _, fstype, *_ = _NOTIFICATION.unpack(request)
        refusal = 0
        if (
            os.readlink(f"/proc/{pid}/ns/user") != namespace
            and fstype
            and _read_text(pid, fstype) == b"fuse"
        ):
            refusal = -errno.EPERM
        answer = _ANSWER.pack(number, 0, refusal, 0 if refusal else _CONTINUE)
        try:
            fcntl.ioctl(listener, _SEND, answer)
        except OSError:
            continue
    os._exit(0)


def _read_text(pid: int, address: int) -> bytes:
    with open(f"/proc/{pid}/mem", "rb") as memory:
        memory.seek(address)
        return memory.read(5).partition(b"\0")[0]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
