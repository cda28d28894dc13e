from pathlib import Path

import pytest

from cvmfsexec.errors import PublishError
from cvmfsexec.publish.layout import RepositoryDirectory


def test_the_skeleton_is_what_servers_expect(tmp_path: Path) -> None:
    directory = RepositoryDirectory(tmp_path / "served" / "repository")
    with directory.publishing():
        pass
    names = {path.name for path in (directory.path / "data").iterdir()}
    assert names == {f"{number:02x}" for number in range(256)} | {"txn"}
    assert (directory.path / ".cvmfs_master_replica").read_bytes() == b""
    assert not directory.is_published


def test_two_publishers_cannot_work_at_once(tmp_path: Path) -> None:
    one, other = RepositoryDirectory(tmp_path), RepositoryDirectory(tmp_path)
    with (
        one.publishing(),
        pytest.raises(PublishError, match="another process"),
        other.publishing(),
    ):
        pass
    with other.publishing():
        pass


def test_leftovers_are_cleared(tmp_path: Path) -> None:
    directory = RepositoryDirectory(tmp_path)
    with directory.publishing():
        Path(directory.scratch_path()).write_bytes(b"left by this one")
    (tmp_path / "data" / "txn" / "4711-0").write_bytes(b"left by one that was killed")
    with directory.publishing():
        assert list((tmp_path / "data" / "txn").iterdir()) == []


def test_a_file_is_replaced_at_once(tmp_path: Path) -> None:
    directory = RepositoryDirectory(tmp_path)
    with directory.publishing():
        directory.replace("name", b"old")
        with (tmp_path / "name").open("rb") as reader:
            directory.replace("name", b"new")
            assert reader.read() == b"old"
        assert directory.read("name") == b"new"
    assert directory.read("other") is None


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    directory = RepositoryDirectory(tmp_path / "file" / "repository")
    with pytest.raises(PublishError, match="cannot write"), directory.publishing():
        pass


def test_a_file_that_cannot_be_replaced_is_said(tmp_path: Path) -> None:
    directory = RepositoryDirectory(tmp_path)
    with directory.publishing():
        (tmp_path / "name").mkdir()
        with pytest.raises(PublishError, match="cannot write"):
            directory.replace("name", b"")
        with pytest.raises(PublishError, match="cannot read"):
            directory.read("name")
