"""The cache directory, looked at."""

from pathlib import Path

import pytest

from cvmfsexec.diagnosis import storage
from cvmfsexec.diagnosis.finding import State
from cvmfsexec.diagnosis.storage import examine_cache_directory, mount_of
from cvmfsexec.namespaces.mount_table import Mount, parse_mount_table

TABLE = parse_mount_table(
    "1 0 0:1 / / rw - ext4 root rw\n"
    "2 1 0:2 / /home rw - nfs server:/home rw\n"
    "3 1 0:3 / /home/a rw - tmpfs t rw\n"
    "4 3 0:4 / /home/a rw - xfs over rw\n"
)


@pytest.mark.parametrize(
    ("path", "fstype"),
    [
        ("/", "ext4"),
        ("/homes/b", "ext4"),
        ("/home", "nfs"),
        ("/home/b/c", "nfs"),
        ("/home/a/c", "xfs"),
    ],
)
def test_a_path_lies_in_the_mount_that_is_nearest_and_last(
    path: str, fstype: str
) -> None:
    mount = mount_of(path, TABLE)
    assert isinstance(mount, Mount)
    assert mount.fstype == fstype


def test_nothing_is_known_without_a_table() -> None:
    assert mount_of("/", ()) is None


def test_a_directory_that_is_yet_to_be_made_is_judged_by_its_place(
    tmp_path: Path,
) -> None:
    found = list(examine_cache_directory(str(tmp_path / "deep/cache")))
    assert State.FAILURE not in {one.state for one in found}
    assert not (tmp_path / "deep").exists()


def test_a_directory_that_others_can_write_is_a_failure(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    (failure,) = [
        one
        for one in examine_cache_directory(str(tmp_path))
        if one.state is State.FAILURE
    ]
    assert "others can write" in failure.text


def test_a_place_that_cannot_be_written_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (failure,) = examine_cache_directory(str(tmp_path / "file/cache"))
    assert failure.state is State.FAILURE
    assert failure.hint


@pytest.mark.parametrize(
    ("has_many_files", "state"), [(True, State.WARNING), (False, State.GOOD)]
)
def test_many_small_files_on_a_network_file_system_are_warned_of(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    state: State,
    *,
    has_many_files: bool,
) -> None:
    table = parse_mount_table(f"1 0 0:1 / {tmp_path} rw - lustre mds:/fs rw\n")
    monkeypatch.setattr(storage, "read_mount_table", lambda: table)
    found = examine_cache_directory(str(tmp_path), has_many_files=has_many_files)
    first = next(found)
    assert first.state is state
    assert "lustre" in first.text
    assert ("packed" in first.hint) is has_many_files
