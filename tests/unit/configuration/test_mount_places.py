"""Where repositories are mounted for the whole host."""

import os
from pathlib import Path

import pytest

from cvmfsexec.configuration.locate import ConfigurationRoot
from cvmfsexec.configuration.mount_places import (
    mount_places,
    prepare_mount_place,
    session_base,
)
from cvmfsexec.errors import ConfigurationError

FQRN = "a.example.org"


def root_of(tmp_path: Path, name: str = "dist") -> ConfigurationRoot:
    (tmp_path / name).mkdir(exist_ok=True)
    own = (str(tmp_path / "own"), str(tmp_path / "temporary"))
    return ConfigurationRoot(str(tmp_path / name), own)


def forbid(path: Path) -> None:
    """Make a directory one that nobody can write to, not even root."""
    path.rmdir()
    path.write_text("not a directory")


def test_the_dist_is_the_place_if_it_can_be_written(tmp_path: Path) -> None:
    place = prepare_mount_place(root_of(tmp_path))
    assert place.mountpoint(FQRN) == f"{tmp_path}/dist/cvmfs/{FQRN}"
    assert place.lock_path(FQRN) == f"{tmp_path}/dist/var/run/cvmfs/{FQRN}.lock"


def test_links_are_resolved_as_in_the_mount_table(tmp_path: Path) -> None:
    root_of(tmp_path)
    (tmp_path / "link").symlink_to("dist")
    place = prepare_mount_place(ConfigurationRoot(f"{tmp_path}/link"))
    assert place.directory == f"{tmp_path}/dist/cvmfs"


def test_a_directory_of_the_user_takes_over_one_for_each_dist(tmp_path: Path) -> None:
    roots = [root_of(tmp_path, name) for name in ("dist", "dist2")]
    for root in roots:
        (Path(root.dist) / "cvmfs").mkdir()
        forbid(Path(root.dist) / "cvmfs")
    one, two = map(prepare_mount_place, roots)
    assert one != two
    assert one.top.startswith(f"{tmp_path}/own/mounts-")
    assert os.stat(tmp_path / "own").st_mode & 0o777 == 0o700
    assert one in mount_places(roots[0])
    assert one not in mount_places(roots[1])


def test_without_any_place_it_is_said(tmp_path: Path) -> None:
    root = root_of(tmp_path)
    for name in ("dist/cvmfs", "own", "temporary"):
        (tmp_path / name).mkdir()
        forbid(tmp_path / name)
    with pytest.raises(ConfigurationError, match="no place to mount at"):
        prepare_mount_place(root)
    with pytest.raises(ConfigurationError, match="no place for the mounts"):
        session_base(root, "")


def test_sessions_prefer_places_of_this_node(tmp_path: Path) -> None:
    root = root_of(tmp_path)
    run = tmp_path / "run"
    assert session_base(root, str(run)) == f"{tmp_path}/temporary"
    run.mkdir()
    assert session_base(root, str(run)) == f"{tmp_path}/run/cvmfsexec"
    assert session_base(root, "relative") == f"{tmp_path}/temporary"


def test_sessions_do_not_trust_what_others_can_change(tmp_path: Path) -> None:
    root = root_of(tmp_path)
    (tmp_path / "temporary").mkdir()
    (tmp_path / "temporary").chmod(0o777)
    assert session_base(root, "") == f"{tmp_path}/own"
