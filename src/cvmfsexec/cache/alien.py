"""Objects in a directory that others own or can write: an alien cache.

The layout is the original client's (``alien_layout``), which may use the directory at
the same time: files of mode 0660 in directories of mode 0770, decompressed, renamed or
linked to their places. Nothing but objects is in it. What is remembered or locked lies
in the workspace, which is this user's alone.

Nothing in the directory is believed before it is verified, and what is handed out is a
private copy (``verification``). Copies of catalogs lie in the workspace under their own
names, since SQLite would take a file without a name into memory. An object that cannot
be confirmed is fetched anew; if its bytes turn out to be wrong, the right ones take
their place.

Nobody manages the directory. With a limit, whichever session finds too much in it and
gets the lease removes what was used least recently (``tidying``).
"""

import contextlib
import hashlib
import os
import time
from contextlib import AbstractContextManager
from functools import partial
from typing import Self

from cvmfsexec import log
from cvmfsexec.cache import scratch
from cvmfsexec.cache.alien_layout import open_layout
from cvmfsexec.cache.claims import Claims
from cvmfsexec.cache.directory import DirectoryStore
from cvmfsexec.cache.open_files import GONE, close_quietly
from cvmfsexec.cache.pending import PendingFiles
from cvmfsexec.cache.pins import Pin
from cvmfsexec.cache.private_directory import open_private_directory
from cvmfsexec.cache.private_files import (
    DATABASE_START,
    SCRATCH,
    PrivateFiles,
    PrivateWriting,
)
from cvmfsexec.cache.store import Transaction
from cvmfsexec.cache.tidying import LOOKS_PER_LIMIT, tidy_directory
from cvmfsexec.cache.unmanaged import UnmanagedStore, Upkeep
from cvmfsexec.cache.usage import estimate_used_bytes
from cvmfsexec.cache.verification import OPEN_FLAGS, Verifier, sha256_of
from cvmfsexec.errors import CacheError
from cvmfsexec.format.digest import ContentHash

DATABASES_BYTES = 2 << 30
"""How much the copies of catalogs may take in the workspace."""

USE_IS_OLD_S = 3600.0


class AlienStore(UnmanagedStore):
    """An ``ObjectStore`` that believes nobody.

    Args:
        path: Where the directory is, for messages.
        directory: Descriptor of it; becomes the store's.
        workspace: Path of the private directory.
        limit_bytes: Tidy up beyond that; 0 for never.
    """

    def __init__(
        self, path: str, directory: int, workspace: str, limit_bytes: int = 0
    ) -> None:
        upkeep = Upkeep(
            limit_bytes // LOOKS_PER_LIMIT if limit_bytes else None,
            partial(tidy_directory, directory, limit_bytes),
            partial(estimate_used_bytes, directory),
        )
        super().__init__("alien cache", path, open_layout, directory, upkeep)
        self._notes_use = bool(limit_bytes)
        self._databases = DirectoryStore.open(workspace, DATABASES_BYTES)
        self._named: set[ContentHash] = set()
        self._workspace = open_private_directory(workspace)
        self._claims = Claims(self._workspace)
        self._verifier = Verifier.at(workspace)
        self.files = PrivateFiles(workspace, SCRATCH)
        self._pending = PendingFiles(directory, is_shared=True)

    @classmethod
    def open(cls, path: str, workspace: str, limit_bytes: int = 0) -> Self:
        """Open an alien cache, making its directory if needed.

        Raises:
            CacheError: It cannot be used, or the workspace is not this user's alone.
        """
        try:
            directory = open_layout(path)
        except OSError as error:
            raise CacheError(
                f"cannot use the alien cache {path}: {error.strerror}",
                hint="check CVMFS_ALIEN_CACHE and the group of the directory",
            ) from error
        try:
            store = cls(path, directory, workspace, limit_bytes)
        except CacheError:
            close_quietly(directory)
            raise
        store._pending.remove_dead()
        return store

    def close(self) -> None:
        """See ``ObjectStore``."""
        self.end_upkeep()
        self._claims.close()
        self._verifier.close()
        self._databases.close()
        close_quietly(self._workspace)
        close_quietly(self._directory)

    def open_object(self, content_hash: ContentHash) -> int | None:
        """See ``ObjectStore``; the descriptor is that of a private copy."""
        if content_hash in self._named:
            named = self._databases.open_object(content_hash)
            if named is not None:
                return named
        path = content_hash.cache_path()
        descriptor = self._verifier.open_verified(path, self._directory, content_hash)
        if descriptor is None:
            return None
        if self._notes_use:
            self._note_use(path)
        return self.with_name(descriptor, content_hash)

    def with_name(self, descriptor: int, content_hash: ContentHash) -> int:
        """Return the descriptor of a private copy, or one with a name of a database's.

        Args:
            descriptor: Of a copy without a name; it is closed if there is another.
            content_hash: What it is a copy of.

        Raises:
            CacheError: There is no room.
        """
        try:
            if os.pread(descriptor, len(DATABASE_START), 0) != DATABASE_START:
                return descriptor
            with self._databases.transaction() as transaction:
                for piece in scratch.pieces(descriptor):
                    transaction.write(piece)
                named = transaction.commit(content_hash)
        except OSError as error:
            close_quietly(descriptor)
            raise CacheError(f"cannot copy a catalog: {error.strerror}") from error
        except CacheError:
            close_quietly(descriptor)
            raise
        close_quietly(descriptor)
        self._named.add(content_hash)
        return named

    def has(self, content_hash: ContentHash) -> bool:
        """See ``ObjectStore``; whether it can be believed shows when it is opened."""
        if content_hash in self._verifier.doubted:
            return False  # what is fetched takes its place
        return os.access(content_hash.cache_path(), os.F_OK, dir_fd=self._directory)

    def pin(self, content_hash: ContentHash) -> Pin:
        """See ``ObjectStore``; the copy is pinned."""
        return self._databases.pin(content_hash)

    def claim(
        self,
        content_hash: ContentHash,
        *,
        patience_s: float,
        size_bytes: int | None = None,  # noqa: ARG002 -- see ``ObjectStore``
    ) -> AbstractContextManager[bool]:
        """See ``ObjectStore``; among the sessions that share the workspace."""
        if self._refusals.are_recent:
            return contextlib.nullcontext(enter_result=False)
        self.look_for_another()
        return self._claims.claim(
            content_hash,
            patience_s=patience_s,
            is_there=partial(self.has, content_hash),
        )

    def transaction(self) -> "_AlienTransaction":
        """See ``ObjectStore``."""
        return _AlienTransaction(self)

    def remove(self, content_hash: ContentHash) -> None:
        """See ``ObjectStore``."""
        if content_hash in self._named:
            self._named.discard(content_hash)
            self._databases.remove(content_hash)
        self._unlink(content_hash.cache_path())

    def _unlink(self, path: str) -> bool:
        try:
            os.unlink(path, dir_fd=self._directory)
        except FileNotFoundError:
            return True
        except OSError as error:
            self._refusals.note(error)
            return False
        return True

    def publish(self, source: int, digest: bytes, content_hash: ContentHash) -> bool:
        """Put a verified object into the directory; return whether it is there.

        Args:
            source: Descriptor of a private file that holds it.
            digest: SHA-256 of its bytes.
            content_hash: Its name.
        """
        self._verifier.remember(content_hash, digest)
        if content_hash in self._verifier.doubted:
            self._verifier.doubted.discard(content_hash)
            self._replace_what_is_wrong(content_hash, digest, source)
        if self._refusals.are_recent:
            return False
        path = content_hash.cache_path()
        size_bytes = self.attempt(partial(self._place, source, path))
        if size_bytes is None:
            return False
        self.note_stored(size_bytes)
        return True

    def _place(self, source: int, path: str) -> int:
        """Copy a file into the directory; return its size."""
        size_bytes = os.fstat(source).st_size
        file = self._pending.create()
        try:
            scratch.copy_start(source, file.descriptor, size_bytes)
            if file.name is not None:
                scratch.flush(file.descriptor)
            self._pending.keep(file, path)
        except OSError:
            self._pending.forget(file)
            raise
        finally:
            close_quietly(file.descriptor)
        return size_bytes

    def _replace_what_is_wrong(
        self, content_hash: ContentHash, digest: bytes, right: int
    ) -> None:
        path = content_hash.cache_path()
        try:
            found = os.open(path, OPEN_FLAGS, dir_fd=self._directory)
        except OSError as error:
            if error.errno in GONE:
                return
            is_wrong = True  # a link, or a file without permission to read it
        else:
            try:
                size_bytes = os.fstat(found).st_size
                is_wrong = (
                    size_bytes != os.fstat(right).st_size or sha256_of(found) != digest
                )
            except OSError as error:
                is_wrong = error.errno not in GONE
            finally:
                close_quietly(found)
        if is_wrong and self._unlink(path):
            log.warning(
                "%s in the alien cache %s is damaged; replaced", path, self.path
            )

    def _note_use(self, path: str) -> None:
        """Let an object that is used be one of the last to be removed."""
        with contextlib.suppress(OSError):
            status = os.stat(path, dir_fd=self._directory, follow_symlinks=False)
            used_s = max(status.st_atime, status.st_mtime)
            if abs(time.time() - used_s) > USE_IS_OLD_S:
                os.utime(path, dir_fd=self._directory, follow_symlinks=False)


class _AlienTransaction(Transaction):
    """An object that is written where nobody else can change it, then published."""

    __slots__ = ("_hasher", "_is_over", "_store", "_writing")

    def __init__(self, store: AlienStore) -> None:
        self._store = store
        self._writing = PrivateWriting(store.files)
        self._hasher = hashlib.sha256(usedforsecurity=False)
        self._is_over = False

    def write(self, data: bytes | bytearray) -> None:
        """See ``Transaction``."""
        self._hasher.update(data)
        self._writing.write(data)

    def commit(self, content_hash: ContentHash) -> int:
        """See ``Transaction``."""
        descriptor = self._writing.finish()
        self._is_over = True
        try:
            self._store.publish(descriptor, self._hasher.digest(), content_hash)
        except CacheError:
            close_quietly(descriptor)
            raise
        return self._store.with_name(descriptor, content_hash)

    def keep(self, content_hash: ContentHash) -> bool:
        """See ``Transaction``."""
        descriptor = self._writing.finish()
        self._is_over = True
        try:
            return self._store.publish(descriptor, self._hasher.digest(), content_hash)
        finally:
            close_quietly(descriptor)

    def abort(self) -> None:
        """See ``Transaction``."""
        if not self._is_over:
            self._is_over = True
            self._writing.discard()
