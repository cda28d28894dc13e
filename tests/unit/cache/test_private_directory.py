import os
import stat
from pathlib import Path

import pytest

from cvmfsexec.cache.private_directory import open_private_directory
from cvmfsexec.errors import CacheError
from tests.support.descriptors import descriptor_count


def test_a_missing_directory_is_made_with_its_parents(tmp_path: Path) -> None:
    path = tmp_path / "var" / "lib" / "cvmfs" / "shared"
    before = os.umask(0)
    try:
        os.close(open_private_directory(str(path)))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o500])
def test_a_directory_that_only_its_owner_can_write_is_accepted(
    tmp_path: Path, mode: int
) -> None:
    tmp_path.chmod(mode)
    os.close(open_private_directory(str(tmp_path)))
    tmp_path.chmod(0o700)


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777, 0o1777])
def test_a_directory_that_others_can_write_is_refused(
    tmp_path: Path, mode: int
) -> None:
    tmp_path.chmod(mode)
    before = descriptor_count()
    with pytest.raises(CacheError, match="other users can write") as caught:
        open_private_directory(str(tmp_path))
    assert f"chmod go-w {tmp_path}" in caught.value.hint
    assert descriptor_count() == before


def test_a_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    path = Path("/usr")
    if os.geteuid() == 0:
        path = tmp_path
        os.chown(path, 12345, 12345)
    with pytest.raises(CacheError, match="belongs to another user") as caught:
        open_private_directory(str(path))
    assert "CVMFS_CACHE_BASE" in caught.value.hint


@pytest.mark.parametrize("below", ["", "/cache"])
def test_a_file_in_the_way_is_refused(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CacheError, match=f"{tmp_path}/file{below}: ") as caught:
        open_private_directory(f"{tmp_path}/file{below}")
    assert caught.value.hint


def test_a_place_where_nothing_can_be_made_is_refused() -> None:
    with pytest.raises(CacheError, match="cannot use the cache directory /proc/cache"):
        open_private_directory("/proc/cache")
