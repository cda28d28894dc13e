"""Verifying on use: objects from directories that other users can write.

An object's name is the hash of its *compressed* bytes. Whether a cached file is what
its name says shows when it is compressed again, with zlib at level 6 as publishers do;
objects that were published without compression are hashed as they are. An object that
some other program compressed cannot be confirmed. It is fetched anew, which shows its
right bytes, and their digest is remembered: the next time the cached file is believed.

Another user may write to the file while we read it, and afterwards. So what is verified
and what is served are the same bytes: a copy in a file that nobody else can reach.

Bytes that hash to the name *and* are a zlib stream prove nothing: they may be the
compressed form of the object, put there in place of its content.

Cost, measured on the two-core reference machine for shared libraries: 33 ms for each
MiB the first time, 2 ms later; for files of 6 KiB, 0.2 ms and 0.02 ms.
"""

import hashlib
import os
import stat
import zlib
from typing import Self

from cvmfsexec import log
from cvmfsexec.cache import scratch
from cvmfsexec.cache.open_files import GONE, close_quietly
from cvmfsexec.cache.private_directory import open_private_directory
from cvmfsexec.cache.private_files import SCRATCH, PrivateFiles, PrivateWriting
from cvmfsexec.cache.refusals import OUT_OF_MEANS
from cvmfsexec.cache.verified_objects import VerifiedObjects
from cvmfsexec.errors import CacheError
from cvmfsexec.format.digest import ContentHash, new_hasher

SIZE_BYTES_MAX = 1 << 30
"""Larger ones are fetched anew: others must not have us copy what they like."""

OPEN_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
"""What is opened may be anything: a link, or a pipe that nobody writes to."""

ZLIB_LEVEL = 6

_PIECE_BYTES = 1 << 20


class Verifier:
    """Turns files of others into objects; safe to call from any thread.

    Args:
        memory: What was verified before.
        files: Makes the copies.

    Attributes:
        doubted: Objects whose files could not be confirmed.
    """

    def __init__(self, memory: VerifiedObjects, files: PrivateFiles) -> None:
        self._memory = memory
        self._files = files
        self.doubted: set[ContentHash] = set()

    @classmethod
    def at(cls, workspace: str) -> Self:
        """Return one that remembers in a private directory.

        Raises:
            CacheError: The directory cannot be used, or is not this user's alone.
        """
        directory = open_private_directory(workspace)
        try:
            memory = VerifiedObjects(directory)
        finally:
            close_quietly(directory)
        return cls(memory, PrivateFiles(workspace, SCRATCH))

    def close(self) -> None:
        """Give back what is held; copies stay good."""
        self._memory.close()

    def open_verified(
        self, path: str, directory: int, content_hash: ContentHash
    ) -> int | None:
        """Return a descriptor of an object's verified bytes; the caller closes it.

        Args:
            path: Of the file, below the directory.
            directory: Descriptor of it.
            content_hash: What the file should be.

        Returns:
            ``None`` if there is no such file, or it cannot be confirmed.

        Raises:
            CacheError: There is no room for the copy, or no descriptor.
        """
        try:
            source = os.open(path, OPEN_FLAGS, dir_fd=directory)
        except OSError as error:
            if error.errno in OUT_OF_MEANS:
                raise CacheError(f"cannot open {path}: {error.strerror}") from error
            if error.errno not in GONE:
                self.doubted.add(content_hash)
            return None
        try:
            copy = self._copy(source, content_hash)
        finally:
            close_quietly(source)
        if copy is None:
            log.info("object %s is not confirmed by its cached bytes", content_hash)
            self.doubted.add(content_hash)
        return copy

    def remember(self, content_hash: ContentHash, digest: bytes) -> None:
        """Note the SHA-256 of an object that was verified elsewhere."""
        self._memory.remember(content_hash, digest)

    def _copy(self, source: int, content_hash: ContentHash) -> int | None:
        try:
            status = os.fstat(source)
        except OSError as error:  # another node has removed it
            log.debug("cache: cannot look at %s: %s", content_hash, error.strerror)
            return None
        if not stat.S_ISREG(status.st_mode) or status.st_size > SIZE_BYTES_MAX:
            return None
        writing = PrivateWriting(self._files)
        try:
            digest = _copy_bytes(source, writing, status.st_size)
            if digest is None:
                return None
            copy = writing.finish()
        finally:
            writing.discard()
        try:
            is_right = self._is_right(copy, content_hash, digest)
        except OSError as error:
            close_quietly(copy)
            raise CacheError(f"cannot read a copy: {error.strerror}") from error
        if is_right:
            return copy
        close_quietly(copy)
        return None

    def _is_right(self, copy: int, content_hash: ContentHash, digest: bytes) -> bool:
        known = self._memory.digest_of(content_hash)
        if known is not None:
            return known == digest
        if not is_confirmed(copy, content_hash):
            return False
        self._memory.remember(content_hash, digest)
        return True


def is_confirmed(descriptor: int, content_hash: ContentHash) -> bool:
    """Whether the bytes of a file are what a content hash names.

    Raises:
        OSError: It cannot be read.
    """
    plain = new_hasher(content_hash.algorithm)
    packed = new_hasher(content_hash.algorithm)
    packer = zlib.compressobj(ZLIB_LEVEL)
    for piece in scratch.pieces(descriptor):
        plain.update(piece)
        packed.update(packer.compress(piece))
    packed.update(packer.flush())
    if packed.content_hash() == content_hash:
        return True
    return plain.content_hash() == content_hash and not _is_stream(descriptor)


def sha256_of(descriptor: int) -> bytes:
    """Return the SHA-256 of a file's bytes.

    Raises:
        OSError: It cannot be read.
    """
    hasher = hashlib.sha256(usedforsecurity=False)  # else FIPS modules test themselves
    for piece in scratch.pieces(descriptor):
        hasher.update(piece)
    return hasher.digest()


def _copy_bytes(source: int, writing: PrivateWriting, size_bytes: int) -> bytes | None:
    """Copy no more than was announced; return the SHA-256 of what was copied.

    Returns:
        ``None`` if a disk or a server does not give the bytes back.
    """
    hasher = hashlib.sha256(usedforsecurity=False)
    offset = 0
    while offset < size_bytes:
        try:
            piece = os.pread(source, min(_PIECE_BYTES, size_bytes - offset), offset)
        except OSError as error:
            log.debug("cache: cannot read an object: %s", error.strerror)
            return None
        if not piece:
            break
        offset += len(piece)
        hasher.update(piece)
        writing.write(piece)
    return hasher.digest()


def _is_stream(descriptor: int) -> bool:
    """Whether a file is a zlib stream from its beginning to its end."""
    stream = zlib.decompressobj()
    try:
        for piece in scratch.pieces(descriptor):
            stream.decompress(piece, _PIECE_BYTES)
            while stream.unconsumed_tail:
                stream.decompress(stream.unconsumed_tail, _PIECE_BYTES)
    except zlib.error:
        return False
    return stream.eof and not stream.unused_data
