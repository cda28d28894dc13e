"""A file system that has no locks: ext4 in user space, which refuses each of them.

``fuse2fs`` leaves locks to the kernel of the node. A library that is loaded into it
changes its first answer to the kernel, so that this asks for every lock; and libfuse,
which has nothing to do it with, answers ``ENOSYS``.
"""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.preloaded import compile_library
from tests.support.sessions import wait_until

IMAGE_BYTES = 256 << 20

_SOURCE = r"""
#define _GNU_SOURCE
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* The answer to INIT: 16 bytes of header, major, minor, max_readahead, flags. */
enum { FLAGS_AT = 12, POSIX_LOCKS = 1 << 1, FLOCK_LOCKS = 1 << 10 };

static int is_answered;

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    if (!is_answered && count == 2 && parts[0].iov_len == 16
        && parts[1].iov_len >= 24) {
        uint32_t flags;
        char *at = (char *) parts[1].iov_base + FLAGS_AT;
        is_answered = 1;
        memcpy(&flags, at, sizeof flags);
        flags |= POSIX_LOCKS | FLOCK_LOCKS;
        memcpy(at, &flags, sizeof flags);
    }
    return syscall(SYS_writev, fd, parts, count);
}
"""


@contextlib.contextmanager
def mounted_without_locks(top: Path, owner: int) -> Iterator[Path]:
    """Mount such a file system; yield its root directory.

    Args:
        top: Where it lies; its image is in memory, as a disk may be slow to write.
        owner: Uid and gid of the root directory.
    """
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    for program in ("fuse2fs", "mkfs.ext4"):
        if shutil.which(program, path=path) is None:
            pytest.skip(f"there is no {program}")
    if os.geteuid() != 0 or not os.path.exists("/dev/fuse"):
        pytest.skip("only root can mount a file system that others may enter")
    mountpoint = top / "lockless"
    mountpoint.mkdir()
    image = os.memfd_create("image")
    os.truncate(image, IMAGE_BYTES)
    image_path = f"/proc/{os.getpid()}/fd/{image}"
    make = ("mkfs.ext4", "-q", "-E", f"root_owner={owner}:{owner}", image_path)
    subprocess.run(make, check=True, env={**os.environ, "PATH": path})
    library = compile_library(top, "lockless", _SOURCE)
    server = subprocess.Popen(
        ("fuse2fs", "-f", "-o", "allow_other", image_path, str(mountpoint)),
        env={**os.environ, "LD_PRELOAD": library, "PATH": path},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(
            lambda: os.path.ismount(mountpoint) or server.poll() is not None,
            "the file system is mounted",
        )
        if server.poll() is not None:
            pytest.skip(f"fuse2fs ended with {server.returncode}")
        yield mountpoint
    finally:
        subprocess.run(("umount", "-l", str(mountpoint)), check=False)
        server.terminate()
        server.wait(60)
        os.close(image)
