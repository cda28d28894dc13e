import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvmfsexec.cache.pending import PendingFile, PendingFiles
from tests.support.descriptors import descriptor_count
from tests.support.file_systems import Lack, file_system
from tests.support.system_calls import fail_calls

HOUR_S = 3600


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def named_only() -> Iterator[None]:
    with file_system(Lack.UNNAMED_FILES):
        yield


def create_with(directory: int, content: bytes) -> PendingFile:
    file = PendingFiles(directory).create()
    os.write(file.descriptor, content)
    return file


def leave_a_dead_file(directory: int) -> str:
    """What a killed process leaves: the name, but no lock."""
    file = PendingFiles(directory).create()
    os.close(file.descriptor)
    assert file.name is not None
    return file.name


# With and without names


@pytest.fixture(params=Lack)
def lack(request: pytest.FixtureRequest) -> Iterator[Lack]:
    with file_system(request.param):
        yield request.param


@pytest.mark.usefixtures("lack")
@pytest.mark.parametrize("path", ["object", "ab/object"])
def test_a_file_is_visible_when_it_is_kept(
    directory: int, tmp_path: Path, path: str
) -> None:
    file = create_with(directory, b"content")
    assert not (tmp_path / path).exists()
    PendingFiles(directory).keep(file, path)
    assert (tmp_path / path).read_bytes() == b"content"
    assert os.pread(file.descriptor, 10, 0) == b"content"
    os.close(file.descriptor)
    assert list(tmp_path.rglob("cvmfsexec.*")) == []


@pytest.mark.usefixtures("lack")
def test_a_directory_that_is_removed_meanwhile_is_made_again(
    directory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who makes room removes the directories that have become empty."""
    make, made = os.mkdir, []

    def make_and_lose(path: str, mode: int, *, dir_fd: int) -> None:
        make(path, mode, dir_fd=dir_fd)
        if path == "ab":
            made.append(path)
            if len(made) == 1:
                os.rmdir(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "mkdir", make_and_lose)
    file = create_with(directory, b"content")
    assert PendingFiles(directory).keep(file, "ab/object")
    os.close(file.descriptor)
    assert (tmp_path / "ab/object").read_bytes() == b"content"
    assert made == ["ab", "ab"]


@pytest.mark.usefixtures("lack")
def test_a_file_can_replace_another(directory: int, tmp_path: Path) -> None:
    for content in (b"first", b"second", b"third"):
        pending, file = PendingFiles(directory), create_with(directory, content)
        pending.replace(file, "document")
        pending.discard(file)
        assert (tmp_path / "document").read_bytes() == content
    assert list(tmp_path.rglob("cvmfsexec.*")) == []


@pytest.mark.usefixtures("named_only")
def test_what_is_kept_never_replaces_an_equal_file(
    directory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has that open on another node would lose it; nor if both come at once."""
    first, second = create_with(directory, b"same"), create_with(directory, b"same")
    assert PendingFiles(directory).keep(first, "ab/object")
    number = (tmp_path / "ab/object").stat().st_ino
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    assert not PendingFiles(directory).keep(second, "ab/object")
    assert (tmp_path / "ab/object").stat().st_ino == number
    assert (tmp_path / "ab/object").stat().st_nlink == 1
    os.close(first.descriptor)
    os.close(second.descriptor)
    assert list(tmp_path.rglob("cvmfsexec.*")) == []


@pytest.mark.usefixtures("lack")
def test_a_discarded_file_leaves_nothing(directory: int, tmp_path: Path) -> None:
    before = descriptor_count()
    PendingFiles(directory).discard(create_with(directory, b"content"))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert descriptor_count() == before


def test_an_unnamed_file_stays_equal_to_what_is_there(
    directory: int, tmp_path: Path
) -> None:
    (tmp_path / "object").write_bytes(b"equal")
    file = create_with(directory, b"equal")
    PendingFiles(directory).keep(file, "object")
    os.close(file.descriptor)
    assert os.listdir(tmp_path) == ["object"]


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_a_file_that_gets_no_name_is_as_it_was(
    directory: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lack: Lack,
    error: int,
) -> None:
    file = create_with(directory, b"content")
    fail_calls(monkeypatch, "rename", error)
    if lack is not Lack.LINKS:
        fail_calls(monkeypatch, "link", error)
    pending = PendingFiles(directory)
    with pytest.raises(OSError, match=os.strerror(error)):
        pending.keep(file, "object")
    assert os.pread(file.descriptor, 10, 0) == b"content"
    pending.discard(file)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_replacement_that_fails_leaves_the_old(
    directory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "document").write_bytes(b"old")
    file = create_with(directory, b"new")
    fail_calls(monkeypatch, "rename", errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        PendingFiles(directory).replace(file, "document")
    os.close(file.descriptor)
    assert (tmp_path / "document").read_bytes() == b"old"
    assert os.listdir(tmp_path / "txn") == []


# Names of the dead and the living


@pytest.mark.usefixtures("named_only")
def test_two_writers_never_share_a_name(directory: int) -> None:
    files = [PendingFiles(directory) for _ in range(3)]
    created = [one.create() for one in files * 3]
    assert len({file.name for file in created}) == 9
    for file in created:
        os.close(file.descriptor)


@pytest.mark.usefixtures("named_only")
def test_a_dead_writers_file_is_removed(directory: int, tmp_path: Path) -> None:
    name = leave_a_dead_file(directory)
    assert PendingFiles(directory).remove_dead() == 1
    assert not (tmp_path / name).exists()


@pytest.mark.usefixtures("named_only")
def test_a_living_writers_file_stays(directory: int, tmp_path: Path) -> None:
    file = PendingFiles(directory).create()
    assert PendingFiles(directory).remove_dead() == 0
    assert (tmp_path / str(file.name)).exists()
    os.close(file.descriptor)


@pytest.mark.usefixtures("named_only")
def test_other_programs_files_stay(directory: int, tmp_path: Path) -> None:
    leave_a_dead_file(directory)
    theirs = tmp_path / "txn" / "fetchAbCdEf"
    theirs.touch()
    assert PendingFiles(directory).remove_dead() == 1
    assert theirs.exists()


def test_nothing_to_remove_is_fine(directory: int) -> None:
    assert PendingFiles(directory).remove_dead() == 0


@pytest.mark.usefixtures("named_only")
def test_forgetting_twice_is_fine(directory: int, tmp_path: Path) -> None:
    pending = PendingFiles(directory)
    file = pending.create()
    pending.forget(file)
    pending.forget(file)
    os.close(file.descriptor)
    assert os.listdir(tmp_path / "txn") == []


@pytest.mark.usefixtures("named_only")
@pytest.mark.parametrize(("age_s", "removed"), [(60, 0), (HOUR_S + 60, 1)])
def test_age_decides_where_there_are_no_locks(
    directory: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    age_s: int,
    removed: int,
) -> None:
    def refuse(_descriptor: int, _operation: int) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    path = tmp_path / leave_a_dead_file(directory)
    os.utime(path, (path.stat().st_atime, path.stat().st_mtime - age_s))
    assert PendingFiles(directory).remove_dead() == removed
    assert path.exists() is not bool(removed)


@pytest.mark.usefixtures("named_only")
def test_a_directory_in_the_way_is_an_error_not_a_loop(
    directory: int, tmp_path: Path
) -> None:
    (tmp_path / "txn").symlink_to("missing")
    with pytest.raises(OSError, match="No such file"):
        PendingFiles(directory).create()
