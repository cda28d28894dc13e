import os
import shutil
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cvmfsexec.errors import PublishError
from cvmfsexec.format.xattr import parse_xattrs
from cvmfsexec.publish.scan import SourceEntry, SourceTree, scan
from tests.support.published import Tree, write_tree

NOBODY = 65534


def scanned(path: Path) -> SourceTree:
    return scan(os.fsencode(path))


def entry_of(tree: SourceTree, path: bytes) -> SourceEntry:
    directory = tree.directories[path.rpartition(b"/")[0]]
    return next(entry for entry in directory.entries if entry.path == path)


@contextmanager
def as_ordinary_user() -> Iterator[None]:
    """Give up for a while what root may do."""
    user = os.geteuid()
    os.seteuid(user or NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)


def test_directories_come_after_the_one_they_lie_in(tmp_path: Path) -> None:
    write_tree(tmp_path, {"b": {"y": {}, "x": {}}, "a": {"z": {}}})
    assert list(scanned(tmp_path).directories) == [
        b"",
        b"/a",
        b"/a/z",
        b"/b",
        b"/b/x",
        b"/b/y",
    ]


def test_names_need_not_be_utf8(tmp_path: Path) -> None:
    name = b"\xff\n\xfe "
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(b"x")
    assert entry_of(scanned(tmp_path), b"/" + name).size == 1


def test_two_scans_of_one_tree_are_equal(tmp_path: Path) -> None:
    write_tree(tmp_path, {str(i): {"x": b""} for i in range(50)})
    assert scanned(tmp_path) == scanned(tmp_path)


def test_every_kind_of_entry_is_seen(tmp_path: Path) -> None:
    write_tree(tmp_path, {"file": b"12345", "link": "no/where", "dir": {}})
    os.mkfifo(tmp_path / "fifo")
    listener = socket.socket(socket.AF_UNIX)
    here = os.open(tmp_path, os.O_RDONLY)
    listener.bind(f"/proc/self/fd/{here}/socket")
    os.close(here)
    listener.close()
    tree = scanned(tmp_path)
    kinds = {e.name: stat.S_IFMT(e.mode) for e in tree.directories[b""].entries}
    assert kinds == {
        b"file": stat.S_IFREG,
        b"link": stat.S_IFLNK,
        b"dir": stat.S_IFDIR,
        b"fifo": stat.S_IFIFO,
        b"socket": stat.S_IFSOCK,
    }
    assert entry_of(tree, b"/link").symlink == b"no/where"
    assert [entry.name for entry in tree.regular_files()] == [b"file"]


def test_user_attributes_are_carried(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"")
    try:
        os.setxattr(tmp_path / "x", b"user.a", b"1")
        os.setxattr(tmp_path / "x", b"user.empty", b"")
    except OSError as error:
        pytest.skip(f"no extended attributes here: {error}")
    blob = entry_of(scanned(tmp_path), b"/x").xattr
    assert parse_xattrs(blob) == {b"user.a": b"1", b"user.empty": b""}


def test_an_attribute_that_no_catalog_can_hold_is_left_out_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "x").write_bytes(b"")
    try:
        os.setxattr(tmp_path / "x", b"user.long", b"v" * 256)
    except OSError as error:
        pytest.skip(f"no extended attributes here: {error}")
    assert entry_of(scanned(tmp_path), b"/x").xattr is None
    assert "user.long" in caplog.text
    caplog.clear()


def test_no_attributes_are_none_and_not_empty(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"")
    assert entry_of(scanned(tmp_path), b"/x").xattr is None


def test_links_are_not_followed(tmp_path: Path) -> None:
    write_tree(tmp_path, {"dir": {"x": b""}, "link": "dir", "loop": "."})
    assert list(scanned(tmp_path).directories) == [b"", b"/dir"]


def test_a_link_to_the_source_itself_is_followed(tmp_path: Path) -> None:
    write_tree(tmp_path, {"dir": {"x": b""}})
    (tmp_path / "link").symlink_to("dir")
    assert entry_of(scanned(tmp_path / "link"), b"/x").is_regular


def test_graft_files_are_left_out_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_tree(tmp_path, {".cvmfsgraft-x": b"", "x": b""})
    assert [entry.name for entry in scanned(tmp_path).regular_files()] == [b"x"]
    assert "cvmfsgraft-x" in caplog.text
    caplog.clear()


@pytest.mark.parametrize(
    ("tree", "complaint"),
    [
        ({".cvmfscatalog": b""}, "root directory must not hold"),
        ({".cvmfs": {"x": b""}}, "reserved"),
        ({".cvmfs": b""}, "reserved"),
        ({"a": {".cvmfscatalog": {}}}, "not a regular file"),
        ({"a": {".cvmfscatalog": "x"}}, "not a regular file"),
    ],
)
def test_reserved_names_are_refused(tmp_path: Path, tree: Tree, complaint: str) -> None:
    write_tree(tmp_path, tree)
    with pytest.raises(PublishError, match=complaint):
        scanned(tmp_path)


def test_a_reserved_name_further_down_is_a_name(tmp_path: Path) -> None:
    write_tree(tmp_path, {"a": {".cvmfs": {"x": b""}}})
    assert b"/a/.cvmfs" in scanned(tmp_path).directories


def test_a_source_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(PublishError, match="there is no"):
        scanned(tmp_path / "nothing")


def test_a_file_is_no_source(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"")
    with pytest.raises(PublishError, match="not a directory"):
        scanned(tmp_path / "x")


def test_an_unreadable_directory_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x").mkdir(mode=0)
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)  # its parents may be root's own
    with (
        as_ordinary_user(),
        pytest.raises(PublishError, match="Permission denied"),
    ):
        scanned(Path())


def test_a_directory_that_became_something_else_is_said(tmp_path: Path) -> None:
    write_tree(tmp_path, {"a": {}, "b": {}})

    def interfere(_entries: int) -> None:
        shutil.rmtree(tmp_path / "b", ignore_errors=True)

    with pytest.raises(PublishError, match="vanished"):
        scan(os.fsencode(tmp_path), interfere)
