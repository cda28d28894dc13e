"""Packages that were downloaded before, and those of which a part was.

Kept are packages whose names have a version in them: they stay as they are. What is
read from here is checked again like what was just downloaded. Without a directory that
is the user's alone, nothing is kept; that is no error.
"""

import contextlib
import fcntl
import hashlib
import os
import tempfile
from typing import BinaryIO

from cvmfsexec import log
from cvmfsexec.cache.private_directory import open_private_directory
from cvmfsexec.errors import CacheError

_PART = ".part"


class PackageStore:
    """Files by URL.

    Args:
        directory: Made when something is kept; empty to keep nothing.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._is_private: bool | None = None

    def read(self, url: str, limit_bytes: int) -> bytes | None:
        """Return what was kept of a URL, and of a longer file one byte too many."""
        if not self._is_usable():
            return None
        try:
            with open(self._path(url), "rb") as stream:
                return stream.read(limit_bytes + 1)
        except OSError:
            return None

    def open_part(self, url: str) -> BinaryIO:
        """Return a file to download to, which holds what an earlier attempt got.

        Somebody else may be at it at the same time; then it is an empty file.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        if self._is_usable():
            with contextlib.suppress(OSError):
                descriptor = os.open(self._path(url) + _PART, flags, 0o600)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    os.close(descriptor)
                else:
                    return open(descriptor, "r+b")
        return tempfile.TemporaryFile()

    def keep(self, url: str, content: bytes) -> None:
        """Keep a package that turned out to be good."""
        if not self._is_usable():
            return
        path = self._path(url)
        aside = f"{path}.{os.getpid()}"
        try:
            with open(aside, "wb") as stream:
                stream.write(content)
            os.replace(aside, path)
        except OSError as error:
            log.info("cannot keep %s: %s", url, error.strerror)
            with contextlib.suppress(OSError):
                os.unlink(aside)
        self.forget_part(url)

    def forget(self, url: str) -> None:
        """Remove a package that turned out to be bad."""
        if self._is_usable():
            with contextlib.suppress(OSError):
                os.unlink(self._path(url))

    def forget_part(self, url: str) -> None:
        """Remove what an attempt got."""
        if self._is_usable():
            with contextlib.suppress(OSError):
                os.unlink(self._path(url) + _PART)

    def _path(self, url: str) -> str:
        digest = hashlib.sha256(url.encode()).hexdigest()[:16]
        return os.path.join(self._directory, f"{digest}-{url.rpartition('/')[2][:200]}")

    def _is_usable(self) -> bool:
        if self._is_private is None:
            self._is_private = bool(self._directory) and _is_private(self._directory)
        return self._is_private


def _is_private(directory: str) -> bool:
    try:
        os.close(open_private_directory(directory))
    except CacheError as error:
        log.info("packages are not kept: %s", error)
        return False
    return True
