"""What readers of real catalogs do, and what is wanted next because of it."""

import pytest

from cvmfsexec.fetch import ObjectRequest
from cvmfsexec.format.digest import ContentHash, ObjectKind
from cvmfsexec.format.dirent import Flag
from cvmfsexec.vfs import lookahead
from cvmfsexec.vfs.attributes import ROOT_INODE, FilesystemStatistics
from cvmfsexec.vfs.descriptors import DescriptorCache
from cvmfsexec.vfs.extended_attributes import ExtendedAttributes, Sources
from cvmfsexec.vfs.file_system import RepositoryFileSystem
from cvmfsexec.vfs.lookahead import LookAhead
from cvmfsexec.vfs.presentation import Presentation
from tests.support.catalog_files import chunk, directory, entry
from tests.support.catalog_repository import CatalogRepository

FILES = 40
CHUNKS = 10
CHUNK_BYTES = 1000


class Reader:
    """Reads files by path.

    Attributes:
        look_ahead: Is told.
        woken: How often it called.
    """

    def __init__(self, made: CatalogRepository, root: ContentHash) -> None:
        self.look_ahead = LookAhead(made.fetcher.has)
        self.look_ahead.wake = self._wake
        self.woken = 0
        self._made = made
        self._files = RepositoryFileSystem(
            made.tree(root),
            DescriptorCache(made.open, 8),
            Presentation(
                variables={}, shown_uid=lambda uid: uid, shown_gid=lambda gid: gid
            ),
            ExtendedAttributes(
                {},
                Sources(lambda _: [], lambda _: None, lambda _: "", lambda _: ""),
                lambda _: False,
            ),
            lambda: FilesystemStatistics(1, 2, 3, 4),
            self.look_ahead,
        )

    def read(self, path: bytes, offset: int = 0, size: int = 1 << 20) -> bytes:
        inode = int(ROOT_INODE)
        for name in path[1:].split(b"/"):
            found = self._files.lookup(inode, name)
            assert found is not None
            inode = found.inode
        return bytes(self._files.read(inode, offset, size))

    def fetch_all(self) -> list[ObjectRequest]:
        """Fetch what is wanted until nothing is; return it."""
        wanted = []
        while (request := self.look_ahead.next_request()) is not None:
            wanted.append(request)
            prefetch = self._made.fetcher.prefetch(request)
            assert prefetch is not None
            prefetch.give_up()
        return wanted

    def _wake(self) -> None:
        self.woken += 1


@pytest.fixture
def reader(made: CatalogRepository) -> Reader:
    rows = [directory(b"/d")]
    for number in range(FILES):
        content = b"file %d\n" % number
        digest = made.add_object(content).digest
        path = b"/d/%03d" % number
        rows.append(entry(path, size=len(content), hash=digest))
    flags = Flag.FILE | Flag.CHUNKED
    size = CHUNKS * CHUNK_BYTES
    rows.append(entry(b"/large", size=size, flags=flags, hash=None))
    chunks = []
    for number in range(CHUNKS):
        content = bytes([number]) * CHUNK_BYTES
        digest = made.add_object(content, ObjectKind.CHUNK).digest
        offset = number * CHUNK_BYTES
        chunks.append(chunk(b"/large", offset, CHUNK_BYTES, digest))
    return Reader(made, made.add_catalog(catalog=rows, chunks=chunks))


def test_files_are_wanted_in_the_order_in_which_they_will_be_read(
    reader: Reader,
) -> None:
    reader.read(b"/d/000")
    assert reader.fetch_all() == []
    reader.read(b"/d/001")
    wanted = [one.size_bytes for one in reader.fetch_all()]
    assert wanted == [7] * 8, "files 2 to 9"
    assert reader.woken == 1
    assert reader.read(b"/d/002") == b"file 2\n"
    assert reader.look_ahead.foresight.used_count == 1
    assert reader.woken == 2


def test_each_file_is_wanted_once(reader: Reader) -> None:
    wanted = []
    for number in range(FILES):
        reader.read(b"/d/%03d" % number)
        wanted += reader.fetch_all()
    assert len(wanted) == len({one.content_hash for one in wanted}) == FILES - 2


def test_a_file_that_is_read_again_tells_nothing(reader: Reader) -> None:
    for _ in range(5):
        reader.read(b"/d/007")
    assert reader.woken == 0
    assert reader.fetch_all() == []


def test_a_full_cache_tells_nothing(made: CatalogRepository, reader: Reader) -> None:
    for number in range(FILES):
        reader.read(b"/d/%03d" % number)
    again = Reader(made, reader._files._tree.root.content_hash)
    for number in range(FILES):
        again.read(b"/d/%03d" % number)
    assert again.woken == 0
    assert not again.look_ahead.is_active


def test_chunks_are_wanted_in_order(reader: Reader) -> None:
    reader.read(b"/large", 0, 10)
    reader.read(b"/large", 10, 10)
    assert reader.fetch_all() == []
    reader.read(b"/large", CHUNK_BYTES, 10)
    assert len(reader.fetch_all()) == 2
    assert reader.read(b"/large", 2 * CHUNK_BYTES, 1) == b"\2"
    assert reader.look_ahead.foresight.used_count == 1


def test_the_rest_of_a_file_in_one_read_is_read_right(reader: Reader) -> None:
    content = reader.read(b"/large")
    assert content == b"".join(bytes([n]) * CHUNK_BYTES for n in range(CHUNKS))


def test_walks_end_where_all_is_there(
    made: CatalogRepository, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookahead, "STEPS_MAX", 10)
    monkeypatch.setattr(reader.look_ahead, "_has", lambda _: True)
    reader.read(b"/d/000")
    reader.read(b"/d/001")
    assert len(reader.look_ahead.foresight.walks()) == 1
    assert reader.fetch_all() == []
    assert reader.look_ahead.foresight.walks() == ()
    assert made.downloads() > 0
