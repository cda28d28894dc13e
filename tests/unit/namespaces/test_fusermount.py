"""Finding the mount helper, and what is said when it cannot be used."""

from pathlib import Path

import pytest

from cvmfsexec.errors import CvmfsError, FusermountError
from cvmfsexec.namespaces import fusermount
from cvmfsexec.namespaces.fusermount import Fusermount, find_helper


def install(directory: Path, name: str, mode: int = 0o755) -> str:
    directory.mkdir(exist_ok=True)
    path = directory / name
    path.write_text("#!/bin/sh\nexit 1\n")
    path.chmod(mode)
    return str(path)


@pytest.fixture(autouse=True)
def _nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fusermount, "DIRECTORIES", ())


def test_the_newer_one_wins_wherever_it_is(tmp_path: Path) -> None:
    install(tmp_path / "a", "fusermount")
    newer = install(tmp_path / "b", "fusermount3")
    assert find_helper(f"{tmp_path}/a:{tmp_path}/b") == newer


def test_the_older_one_is_good_enough(tmp_path: Path) -> None:
    older = install(tmp_path / "a", "fusermount")
    assert find_helper(f"/nonexistent::{tmp_path}/a") == older


def test_usual_directories_are_searched_after_those_of_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = install(tmp_path / "usual", "fusermount3")
    monkeypatch.setattr(fusermount, "DIRECTORIES", (f"{tmp_path}/usual",))
    assert find_helper("") == usual
    own = install(tmp_path / "own", "fusermount3")
    assert find_helper(f"{tmp_path}/own") == own


def test_what_cannot_be_executed_is_no_helper(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path / "a", "fusermount3", mode=0o644)
    (tmp_path / "b/fusermount3").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a")
    assert find_helper(f"{tmp_path}/a:{tmp_path}/b:.") == ""


def test_relative_directories_of_the_path_are_not_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "fusermount3")
    monkeypatch.chdir(tmp_path)
    assert find_helper(".:") == ""


def test_without_a_helper_it_is_said_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1001)
    with pytest.raises(
        FusermountError, match="neither fusermount3 nor fusermount"
    ) as e:
        Fusermount("/nonexistent").require()
    assert "fuse3" in e.value.hint


def test_a_silent_helper_is_told(tmp_path: Path) -> None:
    install(tmp_path / "bin", "fusermount3")
    helper = Fusermount(f"{tmp_path}/bin")
    with pytest.raises(CvmfsError, match="fusermount3 gives no reason"):
        helper.mount(str(tmp_path), source="x")
    with pytest.raises(CvmfsError, match="fusermount3 gives no reason"):
        helper.unmount(str(tmp_path))
