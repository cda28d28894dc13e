"""What is unpacked comes into its place, and what users changed stays."""

import hashlib
import os
import time
from pathlib import Path

import pytest

from cvmfsexec.distribution.settlement import settle, verify
from cvmfsexec.errors import DistributionError

OLD, NEW = "a" * 64, "b" * 64


def unpack(place: Path, dist: dict[str, str], name: str = ".unpacking.x") -> Path:
    runtime = place / name
    (runtime / "commands").mkdir(parents=True)
    (runtime / "commands/cvmfsexec").write_text("#!/bin/sh\n")
    (runtime / "commands/cvmfsexec").chmod(0o755)
    (runtime / "dist/empty").mkdir(parents=True)
    for path, content in dist.items():
        (runtime / "dist" / path).parent.mkdir(parents=True, exist_ok=True)
        (runtime / "dist" / path).write_text(content)
    return runtime


def arrive(place: Path, digest: str, dist: dict[str, str]) -> None:
    settle(str(unpack(place, dist)), str(place), digest)


def dist_of(place: Path) -> dict[str, str]:
    top = place / "dist"
    files = (path for path in top.rglob("*") if path.is_file())
    return {str(path.relative_to(top)): path.read_text() for path in files}


def test_everything_is_placed(tmp_path: Path) -> None:
    arrive(tmp_path, OLD, {"etc/a": "1"})
    assert dist_of(tmp_path) == {"etc/a": "1"}
    assert (tmp_path / "dist/empty").is_dir()
    assert (tmp_path / "current").read_text() == "runtime-aaaaaaaaaaaaaaaa\n"
    assert os.access(tmp_path / "cvmfsexec", os.X_OK)
    assert not (tmp_path / ".unpacking.x").exists()


def test_an_update_changes_what_users_have_not_changed(tmp_path: Path) -> None:
    before = {"same": "1", "edited": "1", "updated": "1", "gone": "1", "kept": "1"}
    arrive(tmp_path, OLD, before)
    (tmp_path / "dist/edited").write_text("mine")
    (tmp_path / "dist/kept").write_text("mine")
    (tmp_path / "dist/own").write_text("mine")
    arrive(tmp_path, NEW, {"same": "1", "edited": "2", "updated": "2", "new": "2"})
    assert dist_of(tmp_path) == {
        "same": "1",
        "edited": "mine",
        "updated": "2",
        "kept": "mine",
        "own": "mine",
        "new": "2",
    }


def test_what_a_user_removed_stays_away_until_it_changes(tmp_path: Path) -> None:
    arrive(tmp_path, OLD, {"a": "1", "b": "1"})
    (tmp_path / "dist/a").unlink()
    arrive(tmp_path, NEW, {"a": "2", "b": "1"})
    assert dist_of(tmp_path) == {"b": "1"}


def test_a_dist_that_was_there_before_is_only_added_to(tmp_path: Path) -> None:
    (tmp_path / "dist").mkdir()
    (tmp_path / "dist/a").write_text("mine")
    arrive(tmp_path, OLD, {"a": "1", "b": "1"})
    assert dist_of(tmp_path) == {"a": "mine", "b": "1"}


def test_caches_logs_and_older_runtimes_stay(tmp_path: Path) -> None:
    arrive(tmp_path, OLD, {"a": "1"})
    for path in ("dist/var/lib/cvmfs/x", "log/y"):
        (tmp_path / path).mkdir(parents=True)
    arrive(tmp_path, NEW, {})
    for path in ("dist/var/lib/cvmfs/x", "log/y", "runtime-aaaaaaaaaaaaaaaa"):
        assert (tmp_path / path).is_dir()


def test_links_for_caches_and_logs_stay_links(tmp_path: Path) -> None:
    arrive(tmp_path, OLD, {"var/lib/note": "1"})
    elsewhere = tmp_path / "elsewhere"
    (tmp_path / "dist/var/lib").rename(elsewhere)
    (tmp_path / "dist/var/lib").symlink_to(elsewhere)
    arrive(tmp_path, NEW, {"var/lib/note": "2"})
    assert (tmp_path / "dist/var/lib").is_symlink()
    assert (elsewhere / "note").read_text() == "2"


def test_who_comes_second_uses_what_the_first_has_placed(tmp_path: Path) -> None:
    arrive(tmp_path, OLD, {"a": "1"})
    first = (tmp_path / "runtime-aaaaaaaaaaaaaaaa").stat().st_ino
    arrive(tmp_path, OLD, {"a": "1"})
    assert (tmp_path / "runtime-aaaaaaaaaaaaaaaa").stat().st_ino == first


def test_an_older_version_can_come_back(tmp_path: Path) -> None:
    arrive(tmp_path, OLD, {"a": "1"})
    arrive(tmp_path, NEW, {"a": "2", "b": "2"})
    settle(str(tmp_path / "runtime-aaaaaaaaaaaaaaaa"), str(tmp_path), OLD)
    assert dist_of(tmp_path) == {"a": "1"}


def test_only_what_was_abandoned_long_ago_is_removed(tmp_path: Path) -> None:
    for name, age_s in ((".unpacking.old", 3e5), (".unpacking.now", 0.0)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (time.time() - age_s,) * 2)
    arrive(tmp_path, OLD, {})
    assert not (tmp_path / ".unpacking.old").exists()
    assert (tmp_path / ".unpacking.now").exists()


def test_a_damaged_payload_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"header\npayload")
    verify(str(file), 8, hashlib.sha256(b"payload").hexdigest())
    with pytest.raises(DistributionError, match="damaged"):
        verify(str(file), 8, OLD)
