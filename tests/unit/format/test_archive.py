import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.errors import FormatError
from cvmfsexec.format.archive import (
    ArchiveEntry,
    EntryKind,
    check_entries,
    entry_path,
)


def entry(path: bytes, kind: EntryKind = EntryKind.FILE) -> ArchiveEntry:
    return ArchiveEntry(path, kind)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        (b"./etc/cvmfs", b"etc/cvmfs"),
        (b"etc/cvmfs/", b"etc/cvmfs"),
        (b".", b""),
        (b"./", b""),
        (b"...", b"..."),
    ],
)
def test_names_become_relative_paths(name: bytes, path: bytes) -> None:
    assert entry_path(name) == path


@pytest.mark.parametrize(
    "name",
    [
        b"/etc/passwd",
        b"/",
        b".//etc",
        b"../x",
        b"./../x",
        b"a/../../x",
        b"a/..",
        b"a//b",
        b"a/./b",
        b"a\0b",
        b"n" * 256,
        b"n/" * 64 + b"n",
        (b"n" * 200 + b"/") * 30 + b"n",
    ],
)
def test_names_that_lead_elsewhere_are_refused(name: bytes) -> None:
    with pytest.raises(FormatError, match="forbidden path"):
        entry_path(name)


@given(st.binary(max_size=50))
def test_a_path_never_leaves_its_tree(name: bytes) -> None:
    try:
        path = entry_path(name)
    except FormatError:
        return
    assert not path.startswith(b"/")
    assert not {b"", b".", b".."} & set(path.split(b"/")) or path == b""


def test_a_name_may_come_once() -> None:
    with pytest.raises(FormatError, match="twice"):
        check_entries([entry(b"a"), entry(b"a")])
    with pytest.raises(FormatError, match="twice"):
        check_entries([entry(b"a", EntryKind.DIRECTORY), entry(b"a", EntryKind.LINK)])


def test_a_directory_may_come_again() -> None:
    check_entries([entry(b"a", EntryKind.DIRECTORY)] * 2)


@pytest.mark.parametrize("kind", [EntryKind.LINK, EntryKind.FILE])
def test_nothing_lies_below_what_is_no_directory(kind: EntryKind) -> None:
    with pytest.raises(FormatError, match=f"below a {kind.value}"):
        check_entries([entry(b"a/b/c"), entry(b"a", kind)])
