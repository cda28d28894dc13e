"""Files without a name: where bytes go that the cache directory has no room for.

The kernel frees them with their last descriptor, however the process ends.
"""

import contextlib
import os
from collections.abc import Iterator

MEMORY_BYTES_MAX = 64 << 20
"""Objects up to here may live in memory: four chunks of the largest usual size. What is
larger would rather get the job killed than help it."""

_PIECE_BYTES = 1 << 20
_FLAGS = os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC


def open_unnamed(directory: str, *, dir_fd: int | None = None) -> int:
    """Return a new unnamed file on the file system of a directory.

    Args:
        directory: Its path.
        dir_fd: Where a relative path begins.

    Raises:
        OSError: The file system has no such thing, or no room.
    """
    return os.open(directory, _FLAGS, 0o600, dir_fd=dir_fd)


def open_in_memory() -> int:
    """Return a new file in memory, which counts towards the memory of the job.

    Raises:
        OSError: No descriptor or memory is left.
    """
    return os.memfd_create("cvmfs object", os.MFD_CLOEXEC)


def lift_size_limit() -> None:
    """Let this process write files as large as its user may have them at all.

    The limit holds for unnamed files and for memory, too, so that what is larger could
    not even be read. It is meant for the payload, which has it as before.
    """
    import resource

    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


def write_all(descriptor: int, data: bytes | bytearray | memoryview) -> None:
    """Write every byte; a system call may take fewer.

    Raises:
        OSError: As the kernel says; some bytes may have been written.
    """
    written = os.write(descriptor, data)
    while written < len(data):
        written += os.write(descriptor, memoryview(data)[written:])


def write_all_at(
    descriptor: int, data: bytes | bytearray | memoryview, offset: int
) -> None:
    """Write every byte from an offset on, and go on from there.

    What an attempt that failed has left behind the offset is forgotten.

    Raises:
        OSError: As the kernel says.
    """
    if os.lseek(descriptor, 0, os.SEEK_CUR) != offset:
        os.ftruncate(descriptor, offset)
        os.lseek(descriptor, offset, os.SEEK_SET)
    write_all(descriptor, data)


def pieces(descriptor: int) -> Iterator[bytes]:
    """Yield the bytes of a file, wherever its position is.

    Raises:
        OSError: As the kernel says.
    """
    offset = 0
    while piece := os.pread(descriptor, _PIECE_BYTES, offset):
        yield piece
        offset += len(piece)


def copy_start(source: int, target: int, length_bytes: int) -> None:
    """Append the first bytes of one file to another.

    Raises:
        OSError: As the kernel says, or the source holds fewer bytes.
    """
    offset = 0
    while offset < length_bytes:
        copied = os.sendfile(target, source, offset, length_bytes - offset)
        if copied == 0:
            raise OSError("a file shrank while it was copied")
        offset += copied


def flush(descriptor: int) -> None:
    """Let a network file system say whether it has room for what was written.

    Those take bytes without asking the server, and report on ``close``. Closing a
    duplicate makes them ask while the descriptor stays open; elsewhere it costs a
    microsecond.

    Raises:
        OSError: As the kernel says; the bytes are lost.
    """
    os.close(os.dup(descriptor))
