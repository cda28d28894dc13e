"""Disks in files, with limits that the kernel keeps.

A **disk quota** is that of a subvolume of btrfs. It holds for root, too. What has no
room fails with ``EDQUOT``: bytes of files, new names, and, since btrfs writes nothing
in place, changes of what is there already. Before it changes something, btrfs takes as
much room as that may need at worst, a megabyte for some calls: so a call may fail
though there seems to be room, the more so the more are under way.
"""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

QUOTA_IMAGE_BYTES = 512 << 20
INODES_IMAGE_BYTES = 64 << 20

_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
_PATIENCE_S = 120.0


class QuotaDisk:
    """A directory with a quota.

    Attributes:
        directory: The directory.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        number = _run("btrfs", "inspect-internal", "rootid", str(directory)).strip()
        self._group = f"0/{number}"

    def limit(self, size_bytes: int | None) -> None:
        """Let so much be stored; ``None`` for anything."""
        limit = "none" if size_bytes is None else str(size_bytes)
        # Asked of the directory above, which has room to note it.
        above = str(self.directory.parent)
        _run("btrfs", "qgroup", "limit", limit, self._group, above)

    def clear(self) -> None:
        """Remove everything, and the limit; what is freed counts at once."""
        self.limit(None)
        for path in self.directory.iterdir():
            shutil.rmtree(path)
        _run("btrfs", "filesystem", "sync", str(self.directory))


@contextlib.contextmanager
def mounted_with_quota(top: Path, owner: int) -> Iterator[QuotaDisk]:
    """Mount a disk with a quota; there is no limit at first.

    Args:
        top: Gets the image and the mount point.
        owner: Uid and gid of the directory.
    """
    with _mounted(top, QUOTA_IMAGE_BYTES, "mkfs.btrfs", "-q") as mountpoint:
        _find("btrfs")
        _run("btrfs", "quota", "enable", str(mountpoint))
        directory = mountpoint / "limited"
        _run("btrfs", "subvolume", "create", str(directory))
        _give(directory, owner)
        yield QuotaDisk(directory)


@contextlib.contextmanager
def mounted_with_inodes(top: Path, owner: int, count: int) -> Iterator[Path]:
    """Mount a disk that can hold so many files; yield a directory on it.

    Args:
        top: Gets the image and the mount point.
        owner: Uid and gid of the directory.
        count: How many; those of the file system itself come on top.
    """
    make = ("mkfs.ext4", "-q", "-N", str(count))
    with _mounted(top, INODES_IMAGE_BYTES, *make) as mountpoint:
        directory = mountpoint / "few"
        directory.mkdir()
        _give(directory, owner)
        yield directory


@contextlib.contextmanager
def _mounted(top: Path, size_bytes: int, *make: str) -> Iterator[Path]:
    """Make and mount a disk; skip if that is impossible."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a disk")
    _find(make[0])
    image, mountpoint = top / f"{make[0]}.image", top / make[0]
    mountpoint.mkdir()
    with image.open("wb") as file:
        file.truncate(size_bytes)
    _run(*make, str(image))
    try:
        _run("mount", "-o", "loop", str(image), str(mountpoint))
    except subprocess.CalledProcessError as error:
        pytest.skip(f"cannot mount what {make[0]} makes: {error.stderr.strip()}")
    try:
        yield mountpoint
    finally:
        _run("umount", "-l", str(mountpoint))
        mountpoint.rmdir()


def _give(directory: Path, owner: int) -> None:
    os.chown(directory, owner, owner)
    directory.chmod(0o700)


def _find(program: str) -> None:
    if shutil.which(program, path=_PATH) is None:
        pytest.skip(f"there is no {program}")


def _run(*words: str) -> str:
    done = subprocess.run(
        words,
        capture_output=True,
        text=True,
        check=True,
        timeout=_PATIENCE_S,
        env={**os.environ, "PATH": _PATH},
    )
    return done.stdout
