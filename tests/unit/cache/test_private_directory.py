import contextlib
import errno
import itertools
import os
import stat
import tempfile
import threading
from pathlib import Path

import pytest

from cvmfsexec.cache import file_system_type
from cvmfsexec.cache.private_directory import open_private_directory
from cvmfsexec.errors import CacheError
from tests.support.descriptors import descriptor_count
from tests.support.sessions import ORDINARY_UID
from tests.support.system_calls import fail_calls


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


@pytest.fixture
def on_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_system_type, "file_system_type_of", lambda _: "nfs4")


@pytest.mark.usefixtures("on_network")
@pytest.mark.parametrize("mode", [0o700, 0o755])
def test_a_directory_that_is_being_handed_over_is_waited_for(mode: int) -> None:
    """GlusterFS makes it as root's; other nodes see that for a moment."""
    if os.geteuid() != 0:
        pytest.skip("only root can make a directory of root's")
    with tempfile.TemporaryDirectory(prefix="cvmfsexec-test-") as top:
        Path(top).chmod(mode)
        path = Path(top, "cache")
        hand_over = threading.Timer(0.3, os.chown, (top, ORDINARY_UID, ORDINARY_UID))
        child = os.fork()
        if child == 0:
            os.setresgid(ORDINARY_UID, ORDINARY_UID, ORDINARY_UID)
            os.setresuid(ORDINARY_UID, ORDINARY_UID, ORDINARY_UID)
            status = 1
            with contextlib.suppress(CacheError):
                open_private_directory(str(path))
                status = 0
            os._exit(status)
        hand_over.start()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert path.stat().st_uid == ORDINARY_UID


@pytest.mark.usefixtures("on_network")
def test_a_directory_that_another_node_has_just_made_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cache"
    path.mkdir(0o700)
    calls = itertools.count()
    fail_calls(
        monkeypatch,
        "open",
        errno.ENOENT,
        lambda opened, *_, **__: opened == str(path) and next(calls) < 5,
    )
    os.close(open_private_directory(str(path)))


@pytest.mark.parametrize("below", ["", "/cache"])
def test_a_file_in_the_way_is_refused(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CacheError, match=f"{tmp_path}/file{below}: ") as caught:
        open_private_directory(f"{tmp_path}/file{below}")
    assert caught.value.hint


def test_a_place_where_nothing_can_be_made_is_refused() -> None:
    with pytest.raises(CacheError, match="cannot use the cache directory /proc/cache"):
        open_private_directory("/proc/cache")
