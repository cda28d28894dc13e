import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvmfsexec.cache.pending import PendingFiles

DAY_S = 86_400


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def leave_a_dead_file(directory: int) -> str:
    """What a killed process leaves: the name, but no lock."""
    descriptor, name = PendingFiles(directory).create()
    os.close(descriptor)
    return name


def test_two_writers_never_share_a_name(directory: int) -> None:
    files = [PendingFiles(directory) for _ in range(3)]
    created = [one.create() for one in files * 3]
    assert len({name for _, name in created}) == 9
    for descriptor, _ in created:
        os.close(descriptor)


def test_a_dead_writers_file_is_removed(directory: int, tmp_path: Path) -> None:
    name = leave_a_dead_file(directory)
    assert PendingFiles(directory).remove_dead() == 1
    assert not (tmp_path / name).exists()


def test_a_living_writers_file_stays(directory: int, tmp_path: Path) -> None:
    descriptor, name = PendingFiles(directory).create()
    assert PendingFiles(directory).remove_dead() == 0
    assert (tmp_path / name).exists()
    os.close(descriptor)


def test_other_programs_files_stay(directory: int, tmp_path: Path) -> None:
    leave_a_dead_file(directory)
    theirs = tmp_path / "txn" / "fetchAbCdEf"
    theirs.touch()
    assert PendingFiles(directory).remove_dead() == 1
    assert theirs.exists()


def test_nothing_to_remove_is_fine(directory: int) -> None:
    assert PendingFiles(directory).remove_dead() == 0


def test_forgetting_twice_is_fine(directory: int, tmp_path: Path) -> None:
    pending = PendingFiles(directory)
    descriptor, name = pending.create()
    pending.forget(name)
    pending.forget(name)
    os.close(descriptor)
    assert os.listdir(tmp_path / "txn") == []


@pytest.mark.parametrize(("age_s", "removed"), [(60, 0), (DAY_S + 60, 1)])
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


def test_a_directory_in_the_way_is_an_error_not_a_loop(
    directory: int, tmp_path: Path
) -> None:
    (tmp_path / "txn").symlink_to("missing")
    with pytest.raises(OSError, match="No such file"):
        PendingFiles(directory).create()
