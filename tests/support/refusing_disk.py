"""A disk quota: writes below a directory fail with EDQUOT once so much was written.

A library that is loaded into a command before all others counts what each process
writes to files of that directory's file system, unnamed ones included.
"""

from pathlib import Path

from tests.support.commands import plain_environment
from tests.support.preloaded import compile_library

_SOURCE = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static long left = -1;

static int is_below(int fd)
{
    char link[64], path[4096];
    const char *top = getenv("QUOTA_DIRECTORY");
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (!top || size < 0)
        return 0;
    path[size] = 0;
    return strncmp(path, top, strlen(top)) == 0;
}

ssize_t write(int fd, const void *from, size_t size)
{
    if (size > 4096 && is_below(fd)) {
        if (left < 0)
            left = atol(getenv("QUOTA_BYTES"));
        if ((long)size > left) {
            errno = EDQUOT;
            return -1;
        }
        left -= size;
    }
    return syscall(SYS_write, fd, from, size);
}
"""


class RefusingDisk:
    """Gives each process so many bytes below a directory.

    Args:
        directory: The directory; the one above gets the library.
        quota_bytes: How many.
    """

    def __init__(self, directory: Path, quota_bytes: int) -> None:
        self.environment = {
            **plain_environment(),
            "LD_PRELOAD": compile_library(directory.parent, "quota", _SOURCE),
            "QUOTA_DIRECTORY": str(directory),
            "QUOTA_BYTES": str(quota_bytes),
        }
