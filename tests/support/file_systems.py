"""File systems that lack what the cache would like best.

::

    with file_system(Lack.UNNAMED_FILES):
        store = DirectoryStore.open(path)
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum

import pytest

from tests.support.system_calls import fail_calls


class Lack(Enum):
    """What is missing."""

    NOTHING = "nothing"
    UNNAMED_FILES = "unnamed files"
    LINKS = "links"


@contextmanager
def file_system(lack: Lack) -> Iterator[None]:
    """Let each cache directory be on such a file system; ``/tmp`` is not concerned."""
    with pytest.MonkeyPatch.context() as patch:
        if lack is Lack.UNNAMED_FILES:
            fail_calls(patch, "open", errno.EOPNOTSUPP, is_unnamed)
        if lack is Lack.LINKS:
            fail_calls(patch, "link", errno.EPERM)
        yield


def is_unnamed(
    _path: object, flags: int, _mode: int = 0, *, dir_fd: int | None = None
) -> bool:
    """Whether ``os.open`` is called for an unnamed file of a cache directory."""
    return flags & os.O_TMPFILE == os.O_TMPFILE and dir_fd is not None


def is_pending(
    path: object, flags: int, mode: int = 0, *, dir_fd: int | None = None
) -> bool:
    """Whether ``os.open`` is called for a new file of a cache directory."""
    return str(path).startswith("txn/") or is_unnamed(path, flags, mode, dir_fd=dir_fd)
