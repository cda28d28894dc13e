"""Where caches and logs go, above all when the dist is read-only."""

import os
import stat
from pathlib import Path

import pytest

from cvmfsexec.configuration import storage
from cvmfsexec.configuration.locate import ConfigurationRoot
from cvmfsexec.errors import ConfigurationError


@pytest.fixture
def root(tmp_path: Path) -> ConfigurationRoot:
    (tmp_path / "dist").mkdir()
    return ConfigurationRoot(
        str(tmp_path / "dist"), (str(tmp_path / "own"), str(tmp_path / "own2"))
    )


@pytest.fixture
def read_only(tmp_path: Path, root: ConfigurationRoot) -> ConfigurationRoot:
    """A dist that nobody can write to, not even the superuser."""
    (tmp_path / "dist/var").write_text("in the way")
    (tmp_path / "log").write_text("in the way")
    return root


def test_dist_is_used_if_it_can_be_written(root: ConfigurationRoot) -> None:
    assert storage.cache_base(root) == root.cache_base
    assert storage.log_directory(root) == root.log_directory
    assert os.listdir(root.dist) == []  # asking creates nothing


def test_users_own_directory_stands_in(read_only: ConfigurationRoot) -> None:
    own = read_only.user_directories[0]
    assert storage.cache_base(read_only) == own
    assert storage.log_directory(read_only) == own + "/log"
    storage.prepare_stand_in(read_only, own + "/shared")
    assert stat.S_IMODE(os.stat(own).st_mode) == 0o700


def test_links_to_other_disks_are_followed(
    tmp_path: Path, root: ConfigurationRoot
) -> None:
    (tmp_path / "dist/var/lib").mkdir(parents=True)
    (tmp_path / "dist/var/lib/cvmfs").symlink_to(tmp_path / "scratch/cache")
    assert storage.cache_base(root) == root.cache_base


def test_directory_that_others_can_write_is_not_believed(
    tmp_path: Path, read_only: ConfigurationRoot
) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own").chmod(0o777)
    assert storage.cache_base(read_only) == read_only.user_directories[1]
    with pytest.raises(ConfigurationError, match="other users"):
        storage.prepare_stand_in(read_only, str(tmp_path / "own"))


def test_link_in_the_place_of_the_own_directory_is_not_believed(
    tmp_path: Path, read_only: ConfigurationRoot
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "own").symlink_to("elsewhere")
    assert storage.cache_base(read_only) == read_only.user_directories[1]


def test_other_directories_are_not_prepared(
    tmp_path: Path, root: ConfigurationRoot
) -> None:
    storage.prepare_stand_in(root, str(tmp_path / "own-not"))
    assert not (tmp_path / "own").exists()


def test_directory_that_cannot_be_made_is_an_error(
    tmp_path: Path, root: ConfigurationRoot
) -> None:
    (tmp_path / "own").write_text("in the way")
    with pytest.raises(ConfigurationError, match="cannot create") as caught:
        storage.prepare_stand_in(root, str(tmp_path / "own"))
    assert "CVMFS_CACHE_BASE" in caught.value.hint


def test_without_any_place_the_dist_is_named(
    tmp_path: Path, read_only: ConfigurationRoot
) -> None:
    for name in ("own", "own2"):
        (tmp_path / name).write_text("in the way")
    assert storage.cache_base(read_only) == read_only.cache_base
    assert storage.log_directory(read_only) == read_only.log_directory


def test_what_was_given_is_never_replaced(read_only: ConfigurationRoot) -> None:
    root = read_only._replace(
        given_cache=read_only.cache_base, given_logs=read_only.log_directory
    )
    assert storage.cache_base(root) == root.given_cache
    assert storage.log_directory(root) == root.given_logs
