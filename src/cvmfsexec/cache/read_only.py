"""A directory of objects that is looked into and never written: a lower cache.

It may belong to anybody, lie on a read-only mount, and be filled by the original
client. Unless it is this user's alone, what is found is verified (``verification``).
"""

import contextlib
import os
from contextlib import AbstractContextManager
from typing import NoReturn, Self

from cvmfsexec.cache.pins import NO_PIN, Pin
from cvmfsexec.cache.usage import estimate_used_bytes
from cvmfsexec.cache.verification import Verifier
from cvmfsexec.errors import CacheError
from cvmfsexec.format.digest import ContentHash

_FLAGS = os.O_RDONLY | os.O_CLOEXEC
_DIRECTORY_FLAGS = _FLAGS | os.O_DIRECTORY


class ReadOnlyStore:
    """An ``ObjectStore`` that keeps nothing.

    Args:
        directory: Descriptor of the directory; becomes the store's.
        verifier: Judges what is found; ``None`` to believe it.
    """

    quota = None

    def __init__(self, directory: int, verifier: Verifier | None) -> None:
        self._directory = directory
        self._verifier = verifier
        self._passed_over: set[ContentHash] = set()

    @classmethod
    def open(cls, path: str, workspace: str | None) -> Self:
        """Open a directory that may be missing some day, but not now.

        Args:
            path: The directory.
            workspace: Directory of this user alone, where to remember what was
                verified; ``None`` to believe what is found.

        Raises:
            CacheError: It cannot be used.
        """
        try:
            directory = os.open(path, _DIRECTORY_FLAGS)
        except OSError as error:
            raise CacheError(
                f"cannot read the lower cache {path}: {error.strerror}"
            ) from error
        if workspace is None:
            return cls(directory, None)
        try:
            verifier = Verifier.at(workspace)
        except CacheError:
            os.close(directory)
            raise
        return cls(directory, verifier)

    def open_object(self, content_hash: ContentHash) -> int | None:
        """See ``ObjectStore``."""
        if content_hash in self._passed_over:
            return None
        path = content_hash.cache_path()
        if self._verifier is not None:
            return self._verifier.open_verified(path, self._directory, content_hash)
        try:
            return os.open(path, _FLAGS, dir_fd=self._directory)
        except OSError:
            return None

    def has(self, content_hash: ContentHash) -> bool:
        """See ``ObjectStore``; not what was found to be wrong."""
        if content_hash in self._passed_over:
            return False
        if self._verifier is not None and content_hash in self._verifier.doubted:
            return False
        return os.access(content_hash.cache_path(), os.R_OK, dir_fd=self._directory)

    def pin(self, content_hash: ContentHash) -> Pin:  # noqa: ARG002 -- see ObjectStore
        """See ``ObjectStore``; somebody else decides."""
        return NO_PIN

    def claim(
        self,
        content_hash: ContentHash,  # noqa: ARG002 -- see ``ObjectStore``
        *,
        patience_s: float,  # noqa: ARG002
        size_bytes: int | None = None,  # noqa: ARG002
    ) -> AbstractContextManager[bool]:
        """See ``ObjectStore``; nothing would be kept."""
        return contextlib.nullcontext(enter_result=False)

    def transaction(self) -> NoReturn:
        """See ``ObjectStore``."""
        raise CacheError("a cache that is only read keeps no objects")

    def remove(self, content_hash: ContentHash) -> None:
        """See ``ObjectStore``; it is passed over from now on."""
        self._passed_over.add(content_hash)

    def used_bytes(self) -> int | None:
        """See ``ObjectStore``; an estimate."""
        return estimate_used_bytes(self._directory)

    def close(self) -> None:
        """See ``ObjectStore``."""
        if self._verifier is not None:
            self._verifier.close()
        os.close(self._directory)
