"""A disk that does not give back some files: reads of these inodes fail with EIO.

A library that is loaded into a command before all others stands between the programs
and the kernel's calls; the payload is spared nothing, but reads other files.
"""

from pathlib import Path
from typing import IO

from tests.support.preloaded import compile_library

_SOURCE = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int is_bad(int fd)
{
    char text[32] = "";
    struct stat status;
    const char *path = getenv("BAD_INODE_FILE");
    int file = path ? syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0) : -1;
    if (file < 0)
        return 0;
    long got = syscall(SYS_read, file, text, sizeof text - 1);
    syscall(SYS_close, file);
    if (got <= 0 || fstat(fd, &status) != 0)
        return 0;
    return status.st_ino == strtoull(text, NULL, 10);
}

ssize_t pread64(int fd, void *to, size_t size, off_t at)
{
    if (is_bad(fd)) {
        errno = EIO;
        return -1;
    }
    return syscall(SYS_pread64, fd, to, size, at);
}

ssize_t pread(int fd, void *to, size_t size, off_t at)
{
    return pread64(fd, to, size, at);
}

ssize_t read(int fd, void *to, size_t size)
{
    if (is_bad(fd)) {
        errno = EIO;
        return -1;
    }
    return syscall(SYS_read, fd, to, size);
}
"""


class FailingDisk:
    """Damages files in commands that run with ``environment``.

    Args:
        directory: Where commands find out which file is bad; also gets the library.
    """

    def __init__(self, directory: Path) -> None:
        self._list = directory / "bad-inode"
        self._held: list[IO[bytes]] = []
        self.environment = {
            "LD_PRELOAD": compile_library(directory, "failing_disk", _SOURCE),
            "BAD_INODE_FILE": str(self._list),
        }

    def lose(self, path: Path) -> None:
        """Let reads of a file fail from now on; one that takes its place is good."""
        self._held.append(path.open("rb"))  # or that one may get the same inode
        self._list.write_text(f"{path.stat().st_ino}\n")
        self._list.chmod(0o644)

    def close(self) -> None:
        """Give everything back."""
        while self._held:
            self._held.pop().close()
