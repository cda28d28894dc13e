"""A directory of objects that is looked into and never written: a lower cache.

It may belong to anybody, lie on a read-only mount, and be filled by the original
client. Unless it is this user's alone, what is found is verified (``verification``).
"""

import os
from typing import NoReturn, Self

from cvmfsexec.cache.directory import open_file
from cvmfsexec.cache.lone_store import LoneStore
from cvmfsexec.cache.open_files import close_quietly
from cvmfsexec.cache.refusals import OUT_OF_MEANS
from cvmfsexec.cache.usage import estimate_used_bytes
from cvmfsexec.cache.verification import Verifier
from cvmfsexec.errors import CacheError
from cvmfsexec.format.digest import ContentHash

_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class ReadOnlyStore(LoneStore):
    """An ``ObjectStore`` that keeps nothing.

    Args:
        directory: Descriptor of the directory; becomes the store's.
        verifier: Judges what is found; ``None`` to believe it.
    """

    _keeps_objects = False

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
            close_quietly(directory)
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
            return open_file(path, self._directory)[0]
        except OSError as error:
            if error.errno in OUT_OF_MEANS:
                raise CacheError(f"cannot open {path}: {error.strerror}") from error
            return None

    def has(self, content_hash: ContentHash) -> bool:
        """See ``ObjectStore``; not what was found to be wrong."""
        if content_hash in self._passed_over:
            return False
        if self._verifier is not None and content_hash in self._verifier.doubted:
            return False
        return os.access(content_hash.cache_path(), os.R_OK, dir_fd=self._directory)

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
        close_quietly(self._directory)
