"""Private directories of sessions on the host: locked, unlocked, cleared away."""

import os
from pathlib import Path

import pytest

from cvmfsexec.errors import FusermountError
from cvmfsexec.namespaces.fusermount import Fusermount
from cvmfsexec.namespaces.host_place import HostPlace, clear_away_dead

HELPER = Fusermount("/usr/bin:/bin")


def forget(place: HostPlace) -> None:
    """Do as the kernel when the last process of a session has ended."""
    os.close(place._lock)


def test_each_session_has_its_own_directory(tmp_path: Path) -> None:
    base = tmp_path / "base"
    one, two = HostPlace(str(base)), HostPlace(str(base))
    assert one.path != two.path
    assert os.stat(base).st_mode & 0o777 == 0o700
    one.make_mountpoints(("a.b", "c.d"))
    assert os.path.isdir(one.mountpoint("a.b"))
    one.clear_away(HELPER)
    assert not os.path.exists(one.path)
    assert os.path.exists(two.path)
    two.clear_away(HELPER)
    assert not base.exists()


def test_clearing_away_twice_does_no_harm(tmp_path: Path) -> None:
    place = HostPlace(str(tmp_path / "base"))
    place.clear_away(HELPER)
    place.clear_away(HELPER)


def test_only_dead_sessions_are_cleared_away(tmp_path: Path) -> None:
    base = str(tmp_path / "base")
    alive, dead = HostPlace(base), HostPlace(base)
    dead.make_mountpoints(("a.b",))
    forget(dead)
    (tmp_path / "base/other").mkdir()
    clear_away_dead(base, HELPER)
    assert sorted(os.listdir(base)) == sorted(["other", os.path.basename(alive.path)])


def test_what_is_not_ours_in_a_dead_session_stays(tmp_path: Path) -> None:
    base = str(tmp_path / "base")
    dead = HostPlace(base)
    dead.make_mountpoints(("a.b",))
    (Path(dead.mountpoint("a.b")) / "file").write_text("valuable")
    forget(dead)
    clear_away_dead(base, HELPER)
    assert (Path(dead.mountpoint("a.b")) / "file").exists()


def test_a_base_that_is_not_there_has_no_dead_sessions(tmp_path: Path) -> None:
    clear_away_dead(str(tmp_path / "base"), HELPER)


def test_a_base_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FusermountError, match="cannot create"):
        HostPlace(str(tmp_path / "file/base"))
