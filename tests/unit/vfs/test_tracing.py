"""What is touched is written once, and everything is answered as without a trace."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvmfsexec.cli.traces import read_trace
from cvmfsexec.client.assembly import Client
from cvmfsexec.errors import ConfigurationError
from cvmfsexec.format.trace import Event
from cvmfsexec.vfs import tracing
from cvmfsexec.vfs.attributes import ROOT_INODE
from cvmfsexec.vfs.file_system import RepositoryFileSystem
from cvmfsexec.vfs.tracing import BLOCK_BYTES, TracedFileSystem
from tests.support.clients import open_client
from tests.support.published import FQRN, Tree, publish_tree

TREE: Tree = {"dir": {"file": b"content", "link": "file"}, "other": b"x"}

Touched = tuple[int, bytes, int, int | None]


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    repository = publish_tree(tmp_path, TREE)
    with open_client(tmp_path, repository, f"file://{repository.output}") as client:
        yield client


@pytest.fixture
def inner(client: Client) -> RepositoryFileSystem:
    return client.file_system()


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return tmp_path / "trace"


@pytest.fixture
def files(inner: RepositoryFileSystem, trace: Path) -> TracedFileSystem:
    return TracedFileSystem.open(inner, str(trace), FQRN)


def inode_of(files: RepositoryFileSystem, *names: bytes) -> int:
    inode: int = ROOT_INODE
    for name in names:
        found = files.lookup(inode, name)
        assert found is not None
        inode = found.inode
    return inode


def touched(trace: Path) -> list[Touched]:
    return [
        (one.code, one.path, one.offset, one.size_bytes)
        for one in read_trace(str(trace))
    ]


def test_nothing_is_written_before_something_is_touched(
    files: TracedFileSystem, trace: Path
) -> None:
    assert trace.read_bytes() == b""
    assert files.statfs().blocks >= 0
    assert trace.read_bytes() == b""


def test_directories_are_written_once(
    files: TracedFileSystem, inner: RepositoryFileSystem, trace: Path
) -> None:
    for _ in range(3):
        assert files.lookup(ROOT_INODE, b"dir") == inner.lookup(ROOT_INODE, b"dir")
        assert files.lookup(ROOT_INODE, b"none") is None
    directory = inode_of(inner, b"dir")
    assert list(files.list_(directory, 0)) == list(inner.list_(directory, 0))
    assert touched(trace) == [
        (Event.OPENDIR, b"", 0, None),
        (Event.OPENDIR, b"/dir", 0, None),
    ]


def test_parts_of_files_are_written_once(
    files: TracedFileSystem, inner: RepositoryFileSystem, trace: Path
) -> None:
    file = inode_of(inner, b"dir", b"file")
    for _ in range(2):
        assert files.read(file, 0, 100) == b"content"
    assert files.read(file, BLOCK_BYTES - 1, 2) == b""
    blocks = [(Event.OPEN, b"/dir/file", n * BLOCK_BYTES, BLOCK_BYTES) for n in (0, 1)]
    assert touched(trace) == blocks


def test_an_empty_read_touches_the_block_where_it_begins(
    files: TracedFileSystem, inner: RepositoryFileSystem, trace: Path
) -> None:
    assert files.read(inode_of(inner, b"other"), 0, 0) == b""
    assert touched(trace) == [(Event.OPEN, b"/other", 0, BLOCK_BYTES)]


def test_links_are_written_once(
    files: TracedFileSystem, inner: RepositoryFileSystem, trace: Path
) -> None:
    link = inode_of(inner, b"dir", b"link")
    for _ in range(2):
        assert files.readlink(link) == b"file"
    assert touched(trace) == [(Event.READLINK, b"/dir/link", 0, None)]


def test_an_inode_that_there_is_not_is_the_inner_file_system_s_to_refuse(
    files: TracedFileSystem, inner: RepositoryFileSystem, trace: Path
) -> None:
    with pytest.raises(Exception) as plain:  # noqa: PT011 -- whichever it is
        inner.readlink(12345)
    with pytest.raises(type(plain.value)):
        files.readlink(12345)
    assert trace.read_bytes() == b""


def test_what_is_forgotten_is_written_again(
    files: TracedFileSystem,
    inner: RepositoryFileSystem,
    trace: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tracing, "REMEMBERED_MAX", 1)
    directory = inode_of(inner, b"dir")
    for inode in (ROOT_INODE, directory, ROOT_INODE):
        files.list_(inode, 0)
    assert [path for _, path, *_ in touched(trace)] == [b"", b"/dir", b""]


def test_a_full_disk_ends_the_trace_and_nothing_else(
    inner: RepositoryFileSystem, caplog: pytest.LogCaptureFixture
) -> None:
    files = TracedFileSystem(inner, os.open("/dev/full", os.O_WRONLY), FQRN)
    for name in (b"dir", b"other"):
        assert files.lookup(ROOT_INODE, name) is not None
    assert files.read(inode_of(inner, b"other"), 0, 1) == b"x"
    assert caplog.text.count("the trace ends here: No space left on device") == 1


def test_two_file_servers_share_a_trace(
    inner: RepositoryFileSystem, trace: Path
) -> None:
    for fqrn in ("one.example.org", "two.example.org"):
        TracedFileSystem.open(inner, str(trace), fqrn).lookup(ROOT_INODE, b"dir")
    names = [one.fqrn for one in read_trace(str(trace))]
    assert names == ["one.example.org", "two.example.org"]


def test_a_trace_that_cannot_be_written_is_an_error(
    inner: RepositoryFileSystem, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match="cannot write the trace"):
        TracedFileSystem.open(inner, str(tmp_path / "none/trace"), FQRN)
