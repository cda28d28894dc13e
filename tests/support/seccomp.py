"""``seccomp.py CALL ERRNO -- command``: run a command to which one call is refused.

As a container's filter does it. The table of numbers covers what our tests need.
"""

import ctypes
import errno
import os
import platform
import struct
import sys

_NUMBERS = {
    "x86_64": {"unshare": 272, "pivot_root": 155, "mount": 165},
    "aarch64": {"unshare": 97, "pivot_root": 41, "mount": 40},
}
_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_SECCOMP = 22
_MODE_FILTER = 2
_LOAD_WORD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _RETURN_ERRNO = 0x7FFF0000, 0x00050000


def refuse(call: str, number: int) -> None:
    """Let a system call fail from now on, in this process and all below it."""
    wanted = _NUMBERS[platform.machine()][call]
    program = b"".join(
        struct.pack("<HBBI", *instruction)
        for instruction in (
            (_LOAD_WORD, 0, 0, 0),
            (_JUMP_IF_EQUAL, 0, 1, wanted),
            (_RETURN, 0, 0, _RETURN_ERRNO | number),
            (_RETURN, 0, 0, _ALLOW),
        )
    )
    text = ctypes.create_string_buffer(program, len(program))
    filter_ = struct.pack("<HxxxxxxQ", len(program) // 8, ctypes.addressof(text))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, filter_, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "no seccomp filters here")


if __name__ == "__main__":
    refuse(sys.argv[1], getattr(errno, sys.argv[2]))
    os.execvp(sys.argv[4], sys.argv[4:])  # noqa: S606
