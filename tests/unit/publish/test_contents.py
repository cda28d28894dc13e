import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from cvmfsexec.errors import PublishError
from cvmfsexec.format.chunk import check_chunks
from cvmfsexec.format.digest import HashAlgorithm, ObjectKind
from cvmfsexec.format.dirent import Compression
from cvmfsexec.publish.chunker import ChunkSizes
from cvmfsexec.publish.contents import Content, ContentPublisher
from cvmfsexec.publish.layout import RepositoryDirectory
from cvmfsexec.publish.objects import ObjectPool, read_object
from cvmfsexec.publish.scan import Advance, SourceTree, scan
from tests.support.published import write_tree

MIB = 1 << 20


class Workshop:
    """A source tree, and a repository to store it in."""

    def __init__(self, path: Path) -> None:
        self.source = path / "source"
        self.source.mkdir()
        self.directory = RepositoryDirectory(path / "repository")
        with self.directory.publishing():
            self.pool = ObjectPool(self.directory, HashAlgorithm.SHA1)
        self.advanced = 0

    def scan(self) -> SourceTree:
        return scan(os.fsencode(self.source))

    def publish(
        self,
        tree: SourceTree | None = None,
        *,
        chunk_sizes: ChunkSizes | None = None,
        advance: Advance | None = None,
    ) -> dict[bytes, Content]:
        return ContentPublisher(
            tree or self.scan(),
            self.pool,
            compression=Compression.ZLIB,
            chunk_sizes=chunk_sizes,
            advance=advance or self.advance,
        ).publish()

    def advance(self, amount: int) -> None:
        self.advanced += amount

    def read(self, content: Content) -> bytes:
        if content.content_hash is not None:
            return read_object(self.directory, content.content_hash, ObjectKind.FILE)
        return b"".join(
            read_object(self.directory, chunk.content_hash, ObjectKind.CHUNK)
            for chunk in content.chunks
        )


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


def test_what_is_stored_is_what_was_there(workshop: Workshop) -> None:
    files = {f"f{number}": b"%d" % number * number for number in range(200)}
    write_tree(workshop.source, files)
    contents = workshop.publish()
    assert {path: workshop.read(content) for path, content in contents.items()} == {
        b"/" + name.encode(): content for name, content in files.items()
    }
    assert workshop.advanced == sum(map(len, files.values()))


def test_a_large_file_is_stored_in_chunks(workshop: Workshop) -> None:
    data = os.urandom(3 * MIB + 17)
    write_tree(workshop.source, {"large": data})
    content = workshop.publish(chunk_sizes=ChunkSizes.around(MIB))[b"/large"]
    assert content.content_hash is None
    assert len(content.chunks) > 1
    check_chunks(content.chunks, len(data))
    assert workshop.read(content) == data
    assert workshop.advanced == len(data)


def test_a_large_file_is_stored_whole_without_chunking(workshop: Workshop) -> None:
    data = os.urandom(2 * MIB)
    write_tree(workshop.source, {"large": data})
    content = workshop.publish()[b"/large"]
    assert content.chunks == ()
    assert workshop.read(content) == data


def test_a_file_of_one_chunk_is_no_chunked_file(workshop: Workshop) -> None:
    data = bytes(MIB + 1)
    write_tree(workshop.source, {"large": data})
    content = workshop.publish(chunk_sizes=ChunkSizes(MIB, 2 * MIB, 4 * MIB))[b"/large"]
    assert content.chunks == ()
    assert workshop.read(content) == data


def test_a_sparse_file_is_a_file_of_zeros(workshop: Workshop) -> None:
    with (workshop.source / "sparse").open("wb") as stream:
        stream.truncate(5 * MIB)
    content = workshop.publish(chunk_sizes=ChunkSizes.around(2 * MIB))[b"/sparse"]
    assert workshop.read(content) == bytes(5 * MIB)


def test_hard_links_are_read_once(workshop: Workshop) -> None:
    write_tree(workshop.source, {"a": b"content", "d": {}})
    os.link(workshop.source / "a", workshop.source / "b")
    os.link(workshop.source / "a", workshop.source / "d" / "c")
    contents = workshop.publish()
    assert contents[b"/a"] == contents[b"/b"] == contents[b"/d/c"]
    assert workshop.advanced == len(b"content")


def vanish(path: Path) -> None:
    path.unlink()


def grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"more")


def shrink(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def touch(path: Path) -> None:
    os.utime(path, ns=(0, 1))


def become_a_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


def become_a_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def become_a_socket(path: Path) -> None:
    path.unlink()
    here = os.open(path.parent, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"/proc/self/fd/{here}/{path.name}")
    os.close(here)


@pytest.mark.parametrize(
    "change",
    [vanish, grow, shrink, touch, become_a_link, become_a_fifo, become_a_socket],
)
@pytest.mark.parametrize("size", [5, 2 * MIB], ids=["small", "large"])
def test_a_file_that_changed_since_the_scan_is_not_published(
    workshop: Workshop, change: Callable[[Path], None], size: int
) -> None:
    write_tree(workshop.source, {"file": bytes(size)})
    tree = workshop.scan()
    change(workshop.source / "file")
    with pytest.raises(PublishError, match=r"changed|vanished|cannot read"):
        workshop.publish(tree, chunk_sizes=ChunkSizes.around(MIB))


def test_a_file_that_changes_while_it_is_read_is_not_published(
    workshop: Workshop,
) -> None:
    write_tree(workshop.source, {"file": bytes(3 * MIB)})
    tree = workshop.scan()

    def interfere(_amount: int) -> None:
        (workshop.source / "file").write_bytes(b"short")

    with pytest.raises(PublishError, match="changed"):
        workshop.publish(tree, advance=interfere)


def test_no_thread_is_left_behind(workshop: Workshop) -> None:
    write_tree(workshop.source, {"a": b"", "b": b""})
    tree = workshop.scan()
    (workshop.source / "b").unlink()
    with pytest.raises(PublishError):
        workshop.publish(tree)
    assert not [t for t in threading.enumerate() if t.name.startswith("content")]
