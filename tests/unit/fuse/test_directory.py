import errno
import stat
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.errors import TransferError
from cvmfsexec.fuse.directory import DirectoryReader
from cvmfsexec.vfs.attributes import ROOT_INODE, Attributes
from tests.support.fuse_messages import Dirent, answer, dirents
from tests.support.memory_file_system import MTIME_S, MemoryFileSystem

FOREVER_S = 2**31 - 1


def _piece(
    reader: DirectoryReader, cookie: int, size: int, *, plus: bool, inode: int = 1
) -> list[Dirent]:
    reply = answer(reader.read(3, inode, cookie, size))
    assert (reply.errno, reply.unique) == (0, 3)
    assert len(reply.body) <= size
    return dirents(reply.body, plus=plus)


def _walk(reader: DirectoryReader, size: int, *, plus: bool) -> list[Dirent]:
    found: list[Dirent] = []
    while piece := _piece(reader, found[-1].cookie if found else 0, size, plus=plus):
        found += piece
    return found


def _flat(count: int) -> MemoryFileSystem:
    return MemoryFileSystem({b"%d" % i * (i % 40 + 1): b"x" for i in range(count)})


@pytest.mark.parametrize("plus", [True, False], ids=["plus", "plain"])
@pytest.mark.parametrize("size", [1024, 4096, 1 << 20])
def test_pieces_add_up_to_the_directory(size: int, *, plus: bool) -> None:
    file_system = _flat(100)
    reader = DirectoryReader(file_system, with_attributes=plus)

    found = _walk(reader, size, plus=plus)

    assert [dirent.name for dirent in found] == [b".", b"..", *file_system.root.names]
    assert [dirent.cookie for dirent in found] == list(range(1, 103))
    assert file_system.listings_begun == 1


@given(
    names=st.sets(
        st.binary(min_size=1, max_size=255).filter(
            lambda name: name not in {b".", b".."}
        ),
        max_size=30,
    ),
    size=st.integers(min_value=600, max_value=5000),
    plus=st.booleans(),
)
def test_any_names_survive_any_cutting(
    names: set[bytes], size: int, *, plus: bool
) -> None:
    file_system = MemoryFileSystem(dict.fromkeys(names, b""))
    reader = DirectoryReader(file_system, with_attributes=plus)

    found = _walk(reader, size, plus=plus)

    assert [dirent.name for dirent in found[2:]] == file_system.root.names


def test_records_of_readdirplus_carry_a_whole_lookup() -> None:
    file_system = MemoryFileSystem({b"file": b"12345", b"below": {}, b"link": "file"})
    reader = DirectoryReader(file_system, with_attributes=True)

    found = _piece(reader, 2, 4096, plus=True)

    file = file_system.node(b"file")
    assert found[0].entry is not None
    assert found[0].inode == found[0].entry.nodeid == file.inode
    assert found[0].entry.entry_valid_s == found[0].entry.attr_valid_s == FOREVER_S
    assert found[0].entry.attr == {
        "ino": file.inode,
        "size": 5,
        "blocks": 1,
        "atime": MTIME_S,
        "mtime": MTIME_S,
        "ctime": MTIME_S,
        "atimensec": 5,
        "mtimensec": 5,
        "ctimensec": 5,
        "mode": stat.S_IFREG | 0o755,
        "nlink": 1,
        "uid": 0,
        "gid": 0,
        "rdev": 0,
        "blksize": 4096,
        "flags": 0,
    }
    assert [dirent.type for dirent in found] == [8, 4, 10]


@pytest.mark.parametrize("plus", [True, False], ids=["plus", "plain"])
def test_dots_name_directory_and_parent_but_are_no_lookups(*, plus: bool) -> None:
    file_system = MemoryFileSystem({b"a": {b"b": {}}})
    inner, outer = file_system.node(b"a/b"), file_system.node(b"a")
    reader = DirectoryReader(file_system, with_attributes=plus)

    dots = _piece(reader, 0, 4096, plus=plus, inode=inner.inode)

    assert [(dot.name, dot.inode, dot.type) for dot in dots] == [
        (b".", inner.inode, 4),
        (b"..", outer.inode, 4),
    ]
    assert {dot.entry.nodeid if dot.entry else 0 for dot in dots} == {0}


def test_listing_resumes_after_dot() -> None:
    reader = DirectoryReader(_flat(1), with_attributes=True)

    assert [entry.name for entry in _piece(reader, 1, 4096, plus=True)] == [b"..", b"0"]


def test_a_finished_directory_is_not_listed_again_to_learn_that() -> None:
    file_system = _flat(3)
    reader = DirectoryReader(file_system, with_attributes=True)

    last = _piece(reader, 0, 4096, plus=True)[-1]

    assert _piece(reader, last.cookie, 4096, plus=True) == []
    assert file_system.listings_begun == 1


def test_a_reader_who_comes_from_nowhere_is_served() -> None:
    file_system = _flat(50)
    reader = DirectoryReader(file_system, with_attributes=True)

    found = _piece(reader, 2 + 20, 4096, plus=True)

    assert found[0].name == file_system.root.names[20]


def test_two_readers_of_one_directory_do_not_disturb_each_other() -> None:
    file_system = _flat(60)
    reader = DirectoryReader(file_system, with_attributes=True)
    expected = [b".", b"..", *file_system.root.names]
    found: list[list[Dirent]] = [[], []]

    for _ in range(60):
        for mine in found:
            cookie = mine[-1].cookie if mine else 0
            mine.extend(_piece(reader, cookie, 1024, plus=True))

    assert [[dirent.name for dirent in mine] for mine in found] == [expected] * 2


def test_abandoned_listings_are_forgotten() -> None:
    file_system = MemoryFileSystem(
        {b"%d" % i: {b"%d" % j: b"" for j in range(50)} for i in range(100)}
    )
    reader = DirectoryReader(file_system, with_attributes=True)

    for name in file_system.root.names:
        _piece(reader, 0, 1024, plus=True, inode=file_system.node(name).inode)

    assert len(reader._kept) == 16


def test_no_room_for_one_entry_is_an_error_and_not_the_end() -> None:
    reader = DirectoryReader(_flat(3), with_attributes=True)

    assert answer(reader.read(3, ROOT_INODE, 0, 100)).errno == errno.EINVAL


class _Failing(MemoryFileSystem):
    """Loses the network after ten entries."""

    def list_(self, inode: int, after: int) -> Iterator[tuple[int, bytes, Attributes]]:
        for number, entry in enumerate(super().list_(inode, after)):
            if number == 10:
                raise TransferError("no route")
            yield entry


def test_entries_before_an_error_are_told_and_then_the_error() -> None:
    file_system = _Failing({b"%d" % i: b"" for i in range(15)})
    reader = DirectoryReader(file_system, with_attributes=True)

    found = _piece(reader, 0, 4096, plus=True)
    assert len(found) == 12
    rest = _piece(reader, found[-1].cookie, 4096, plus=True)
    assert len(rest) == 5


def test_an_error_before_the_first_entry_is_raised() -> None:
    file_system = MemoryFileSystem({b"broken": TransferError("no route")})
    reader = DirectoryReader(file_system, with_attributes=True)
    inode = file_system.node(b"broken").inode

    with pytest.raises(TransferError):
        reader.read(3, inode, 2, 4096)


def test_dots_of_an_unlistable_directory_come_before_its_error() -> None:
    file_system = MemoryFileSystem({b"broken": TransferError("no route")})
    reader = DirectoryReader(file_system, with_attributes=True)
    inode = file_system.node(b"broken").inode

    assert len(_piece(reader, 0, 4096, plus=True, inode=inode)) == 2
    with pytest.raises(TransferError):
        reader.read(3, inode, 2, 4096)
