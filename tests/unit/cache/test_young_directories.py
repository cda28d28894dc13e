import errno
import itertools
import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from cvmfsexec.cache import file_system_type
from cvmfsexec.cache.alien_layout import open_layout
from cvmfsexec.cache.breadcrumb import Breadcrumb, write_breadcrumb
from cvmfsexec.cache.private_directory import open_private_directory
from cvmfsexec.format.digest import ContentHash
from tests.support.sessions import ORDINARY_UID
from tests.support.system_calls import fail_calls

FQRN = "software.example.org"
SEEN = Breadcrumb(ContentHash.of(b"a root catalog"), 1795371178, 7)

Use = Callable[[str], object]


# What a directory is used for, and the path that is used if it is root's.
USES: dict[str, tuple[Use, str]] = {
    "the cache itself": (open_private_directory, "."),
    "a cache in it": (open_private_directory, "cache"),
    "an alien cache": (open_layout, "."),
    "an alien cache in it": (open_layout, "cache"),
}


@pytest.fixture
def on_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_system_type, "file_system_type_of", lambda _: "nfs4")


@pytest.mark.usefixtures("on_network")
@pytest.mark.parametrize("mode", [0o700, 0o755])
@pytest.mark.parametrize(("use", "path"), USES.values(), ids=USES)
def test_a_directory_that_is_being_handed_over_is_waited_for(
    mode: int, use: Use, path: str
) -> None:
    """GlusterFS makes it as root's; other nodes see that for a moment."""
    if os.geteuid() != 0:
        pytest.skip("only root can make a directory of root's")
    with tempfile.TemporaryDirectory(prefix="cvmfsexec-test-") as top:
        Path(top).chmod(mode)
        hand_over = threading.Timer(0.3, os.chown, (top, ORDINARY_UID, ORDINARY_UID))
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.setresgid(ORDINARY_UID, ORDINARY_UID, ORDINARY_UID)
                os.setresuid(ORDINARY_UID, ORDINARY_UID, ORDINARY_UID)
                use(os.path.join(top, path))
                status = 0
            finally:
                os._exit(status)
        hand_over.start()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        hand_over.join()
        assert Path(top, path).stat().st_uid == ORDINARY_UID


@pytest.mark.usefixtures("on_network")
@pytest.mark.parametrize("open_directory", [open_private_directory, open_layout])
def test_a_directory_that_another_node_has_just_made_is_waited_for(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    open_directory: Callable[[str], int],
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
    os.close(open_directory(str(path)))


def remember(directory: str) -> None:
    write_breadcrumb(directory, FQRN, SEEN)


@pytest.mark.usefixtures("on_network")
@pytest.mark.parametrize("error", [errno.EACCES, errno.ESTALE])
def test_where_files_have_names_their_directory_is_waited_for(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: int,
) -> None:
    (tmp_path / "txn").mkdir()
    denied = itertools.count()
    fail_calls(
        monkeypatch,
        "open",
        error,
        lambda _, flags, *__, **___: flags & os.O_RDWR and next(denied) < 3,
    )
    remember(str(tmp_path))
    assert next(denied) > 3
    assert not caplog.text
    assert (tmp_path / f"cvmfschecksum.{FQRN}").exists()


def test_on_a_local_disk_nobody_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fail_calls(
        monkeypatch, "open", errno.EACCES, lambda _, flags, *__, **___: flags & 2
    )
    monkeypatch.setattr("time.sleep", lambda _: pytest.fail("it waits"))
    remember(str(tmp_path))
    assert "cannot remember revision 7" in caplog.text
