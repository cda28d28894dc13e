"""Objects on their way into a repository: compress, hash, store once.

An object's name is the hash of its stored bytes, so an object that is already there
is never written again. Bytes go to a file aside first, which is then renamed.

The compressor must be that of zlib itself at level 6. Every client reads any other
deflate stream as well, but the original's tools compress again and expect the same
bytes; :func:`zlib_is_original` finds out.

``ObjectPool`` may be used from several threads.

Source: docs/reference/publisher-format.md, "Objects".
"""

import hashlib
import os
import threading
import zlib
from collections.abc import Iterable
from typing import NamedTuple

from cvmfsexec.errors import IntegrityError, PublishError
from cvmfsexec.format.digest import (
    ContentHash,
    HashAlgorithm,
    ObjectKind,
    new_hasher,
)
from cvmfsexec.format.dirent import Compression
from cvmfsexec.publish.layout import RepositoryDirectory

ZLIB_LEVEL = 6

_SAMPLE = b"".join(b"%d %x\n" % (i * i, i ^ (i >> 3)) for i in range(4000))
_SAMPLE_SHA1 = "ba27bb8018c970412b293d1c136555b479ddeb2a"
_PIECE_BYTES = 10_000


class PoolStatistics(NamedTuple):
    """What one publication added.

    Attributes:
        object_count: Objects that were not there before.
        stored_bytes: Their size as stored.
    """

    object_count: int = 0
    stored_bytes: int = 0


class ObjectPool:
    """The objects of a repository; ``algorithm`` names the new ones."""

    def __init__(
        self, directory: RepositoryDirectory, algorithm: HashAlgorithm
    ) -> None:
        self.algorithm = algorithm
        self._directory = directory
        self._lock = threading.Lock()
        self._statistics = PoolStatistics()

    @property
    def statistics(self) -> PoolStatistics:
        """What was added so far."""
        return self._statistics

    def put(
        self, data: bytes, kind: ObjectKind, compression: Compression = Compression.ZLIB
    ) -> ContentHash:
        """Store an object that is in memory; returns its name.

        Raises:
            PublishError: It cannot be written.
        """
        if compression is Compression.ZLIB:
            data = zlib.compress(data, ZLIB_LEVEL)
        content_hash = ContentHash.of(data, self.algorithm)
        path = self._path(content_hash, kind)
        if not _has_size(path, len(data)):
            aside = self._directory.scratch_path()
            try:
                _write_new(aside, data)
                os.rename(aside, path)
            except OSError as error:
                raise self._directory.unwritable(error) from error
            self._count(len(data))
        return content_hash

    def put_stream(
        self, pieces: Iterable[bytes], kind: ObjectKind, compression: Compression
    ) -> ContentHash:
        """Store an object that comes in pieces; returns its name.

        Raises:
            PublishError: It cannot be written.
        """
        aside = self._directory.scratch_path()
        hasher = new_hasher(self.algorithm)
        try:
            size = 0
            with open(aside, "xb") as stream:
                for stored in _stored(pieces, compression):
                    hasher.update(stored)
                    stream.write(stored)
                    size += len(stored)
            content_hash = hasher.content_hash()
            path = self._path(content_hash, kind)
            if _has_size(path, size):
                os.unlink(aside)
            else:
                os.rename(aside, path)
                self._count(size)
        except OSError as error:
            raise self._directory.unwritable(error) from error
        return content_hash

    def _path(self, content_hash: ContentHash, kind: ObjectKind) -> str:
        return f"{self._directory.path}/{content_hash.object_path(kind)}"

    def _count(self, stored_bytes: int) -> None:
        with self._lock:
            objects, total = self._statistics
            self._statistics = PoolStatistics(objects + 1, total + stored_bytes)


def read_object(
    directory: RepositoryDirectory, content_hash: ContentHash, kind: ObjectKind
) -> bytes:
    """Return the content of a compressed object of an earlier publication.

    Raises:
        IntegrityError: The object is not its name.
        PublishError: It is not there.
    """
    path = str(directory.path / content_hash.object_path(kind))
    try:
        with open(path, "rb") as stream:
            stored = stream.read()
    except OSError as error:
        raise PublishError(
            f"the published revision is damaged: cannot read {path!r}: {error.strerror}"
        ) from error
    if ContentHash.of(stored, content_hash.algorithm) != content_hash:
        raise IntegrityError(f"{path!r} is damaged: its hash is not its name")
    try:
        return zlib.decompress(stored)
    except zlib.error as error:
        raise IntegrityError(f"{path!r} is damaged: {error}") from error


def zlib_is_original() -> bool:
    """Whether this Python compresses as zlib itself does, at once and in pieces."""
    compressor = zlib.compressobj(ZLIB_LEVEL)
    pieces = [
        compressor.compress(_SAMPLE[at : at + _PIECE_BYTES])
        for at in range(0, len(_SAMPLE), _PIECE_BYTES)
    ]
    in_pieces = b"".join([*pieces, compressor.flush()])
    at_once = zlib.compress(_SAMPLE, ZLIB_LEVEL)
    digest = hashlib.sha1(at_once, usedforsecurity=False).hexdigest()
    return in_pieces == at_once and digest == _SAMPLE_SHA1


def _has_size(path: str, size: int) -> bool:
    """Whether an object is there, and whole: a machine that crashed leaves stumps."""
    try:
        return os.stat(path).st_size == size
    except FileNotFoundError:
        return False


def _write_new(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        written = os.write(fd, data)
        while written < len(data):  # beyond 2 GiB, or just before the disk is full
            written += os.write(fd, memoryview(data)[written:])
    finally:
        os.close(fd)


def _stored(pieces: Iterable[bytes], compression: Compression) -> Iterable[bytes]:
    if compression is Compression.NONE:
        yield from pieces
        return
    compressor = zlib.compressobj(ZLIB_LEVEL)
    for piece in pieces:
        yield compressor.compress(piece)
    yield compressor.flush()
