import hashlib
import zlib
from pathlib import Path

import pytest

from cvmfsexec.errors import IntegrityError, PublishError
from cvmfsexec.format.digest import ContentHash, HashAlgorithm, ObjectKind
from cvmfsexec.format.dirent import Compression
from cvmfsexec.publish.layout import RepositoryDirectory
from cvmfsexec.publish.objects import (
    ObjectPool,
    PoolStatistics,
    read_object,
    zlib_is_original,
)

EMPTY = "e8ec3d88b62ebf526e4e5a4ff6162a3aa48a6b78"


@pytest.fixture
def directory(tmp_path: Path) -> RepositoryDirectory:
    directory = RepositoryDirectory(tmp_path / "repository")
    with directory.publishing():
        pass
    return directory


@pytest.fixture
def pool(directory: RepositoryDirectory) -> ObjectPool:
    return ObjectPool(directory, HashAlgorithm.SHA1)


def stored_files(directory: RepositoryDirectory) -> list[Path]:
    return [path for path in (directory.path / "data").rglob("*") if path.is_file()]


def test_an_empty_file_is_the_object_that_everybody_knows(
    directory: RepositoryDirectory, pool: ObjectPool
) -> None:
    assert str(pool.put(b"", ObjectKind.FILE)) == EMPTY
    assert (
        directory.path / "data" / EMPTY[:2] / EMPTY[2:]
    ).read_bytes() == bytes.fromhex("789c030000000001")


@pytest.mark.parametrize("algorithm", HashAlgorithm)
@pytest.mark.parametrize("kind", ObjectKind)
def test_an_object_lies_under_its_name(
    directory: RepositoryDirectory, algorithm: HashAlgorithm, kind: ObjectKind
) -> None:
    content_hash = ObjectPool(directory, algorithm).put(b"hello\n", kind)
    stored = (directory.path / content_hash.object_path(kind)).read_bytes()
    assert ContentHash.of(stored, algorithm) == content_hash
    assert zlib.decompress(stored) == b"hello\n"


def test_compression_none_stores_the_bytes_themselves(pool: ObjectPool) -> None:
    content_hash = pool.put(b"hello\n", ObjectKind.FILE, Compression.NONE)
    assert (
        content_hash.digest == hashlib.sha1(b"hello\n", usedforsecurity=False).digest()
    )


@pytest.mark.parametrize("compression", Compression)
def test_pieces_give_the_same_object_as_the_whole(
    directory: RepositoryDirectory, pool: ObjectPool, compression: Compression
) -> None:
    data = b"".join(b"%d\n" % (i * i) for i in range(50_000))
    pieces = [data[at : at + 7001] for at in range(0, len(data), 7001)]
    in_pieces = pool.put_stream(pieces, ObjectKind.FILE, compression)
    assert in_pieces == pool.put(data, ObjectKind.FILE, compression)
    assert len(stored_files(directory)) == 1


def test_an_object_is_stored_once_and_counted_once(
    directory: RepositoryDirectory, pool: ObjectPool
) -> None:
    first = pool.put(b"x", ObjectKind.FILE)
    path = directory.path / first.object_path(ObjectKind.FILE)
    inode = path.stat().st_ino
    pool.put(b"x", ObjectKind.FILE)
    pool.put_stream([b"x"], ObjectKind.FILE, Compression.ZLIB)
    assert path.stat().st_ino == inode
    assert pool.statistics == PoolStatistics(1, path.stat().st_size)


def test_kinds_do_not_share_a_file(
    directory: RepositoryDirectory, pool: ObjectPool
) -> None:
    pool.put(b"x", ObjectKind.FILE)
    pool.put(b"x", ObjectKind.CHUNK)
    assert len(stored_files(directory)) == 2


def test_a_stump_left_by_a_crash_is_replaced(
    directory: RepositoryDirectory, pool: ObjectPool
) -> None:
    content_hash = pool.put(b"hello\n", ObjectKind.CATALOG)
    path = directory.path / content_hash.object_path(ObjectKind.CATALOG)
    path.write_bytes(b"")
    pool.put(b"hello\n", ObjectKind.CATALOG)
    assert read_object(directory, content_hash, ObjectKind.CATALOG) == b"hello\n"


def test_a_damaged_object_is_not_read(
    directory: RepositoryDirectory, pool: ObjectPool
) -> None:
    content_hash = pool.put(b"hello\n", ObjectKind.CATALOG)
    path = directory.path / content_hash.object_path(ObjectKind.CATALOG)
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(IntegrityError, match="not its name"):
        read_object(directory, content_hash, ObjectKind.CATALOG)


def test_an_object_that_is_no_zlib_stream_is_not_read(
    directory: RepositoryDirectory, pool: ObjectPool
) -> None:
    content_hash = pool.put(b"plain", ObjectKind.FILE, Compression.NONE)
    with pytest.raises(IntegrityError, match="damaged"):
        read_object(directory, content_hash, ObjectKind.FILE)


def test_a_missing_object_is_said(directory: RepositoryDirectory) -> None:
    with pytest.raises(PublishError, match="No such file"):
        read_object(directory, ContentHash(bytes(20)), ObjectKind.CATALOG)


def test_a_directory_that_vanished_is_said(
    directory: RepositoryDirectory, pool: ObjectPool
) -> None:
    (directory.path / "data" / "txn").rmdir()
    with pytest.raises(PublishError, match="cannot write"):
        pool.put(b"x", ObjectKind.FILE)
    with pytest.raises(PublishError, match="cannot write"):
        pool.put_stream([b"x"], ObjectKind.FILE, Compression.ZLIB)


def test_this_zlib_is_the_original() -> None:
    if "ng" in zlib.ZLIB_RUNTIME_VERSION:
        pytest.skip("this Python has zlib-ng")
    assert zlib_is_original()
