"""Small text files of the user's own, for what the network remembers between runs.

Each is read and replaced as a whole (by a rename), so that processes need no lock.
Nothing here is an error: who cannot remember asks again. A file of another user, or
one that others can write, counts as none. They may hold passwords: nobody else can
read them.
"""

import contextlib
import os
import stat

from cvmfsexec import log

FILE_BYTES_MAX = 256 << 10


def read_private_file(path: str) -> str | None:
    """Return the text of a file that only this user can write, or None."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    with open(descriptor, "rb") as stream:
        if not is_private(os.fstat(descriptor)):
            log.info("%s is ignored: other users can have written it", path)
            return None
        try:
            return stream.read(FILE_BYTES_MAX).decode("ascii")
        except (OSError, UnicodeDecodeError):
            return None


def replace_private_file(path: str, text: str) -> None:
    """Write a file, whose directory is made if need be."""
    aside = f"{path}.{os.getpid()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    try:
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(aside)  # of a process that was killed, and had our number
        with open(os.open(aside, flags, 0o600), "w", encoding="ascii") as stream:
            stream.write(text)
        os.replace(aside, path)
    except OSError as error:
        log.debug("cannot write %s: %s", path, error.strerror)
        with contextlib.suppress(OSError):
            os.unlink(aside)


def is_private(status: os.stat_result) -> bool:
    """Whether it is a file that only this user can have written."""
    return (
        stat.S_ISREG(status.st_mode)
        and status.st_uid == os.geteuid()
        and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    )
