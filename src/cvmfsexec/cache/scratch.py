"""Files without a name: where bytes go that the cache directory has no room for.

The kernel frees them with their last descriptor, however the process ends.
"""

import os

_FLAGS = os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC


def open_unnamed(directory: str) -> int:
    """Return a new unnamed file on the file system of a directory.

    Raises:
        OSError: The file system has no such thing, or no room.
    """
    return os.open(directory, _FLAGS, 0o600)


def open_in_memory() -> int:
    """Return a new file in memory, which counts towards the memory of the job.

    Raises:
        OSError: No descriptor or memory is left.
    """
    return os.memfd_create("cvmfs object", os.MFD_CLOEXEC)


def write_all(descriptor: int, data: bytes | bytearray | memoryview) -> None:
    """Write every byte; a system call may take fewer.

    Raises:
        OSError: As the kernel says; some bytes may have been written.
    """
    written = os.write(descriptor, data)
    while written < len(data):
        written += os.write(descriptor, memoryview(data)[written:])


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
