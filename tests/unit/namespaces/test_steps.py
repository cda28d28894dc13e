"""Steps that the kernel may refuse for a moment."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvmfsexec.errors import NamespaceError
from cvmfsexec.namespaces import steps, syscalls


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a file system")
    syscalls.mount("test", str(tmp_path), fstype="tmpfs")
    yield tmp_path
    syscalls.umount2(str(tmp_path), syscalls.MNT_DETACH)


def test_a_mount_that_is_written_becomes_read_only_when_it_is_not(
    mounted: Path,
) -> None:
    with (mounted / "file").open("w") as written:
        timer = threading.Timer(0.1, written.close)
        timer.start()
        steps._forbid_changes(str(mounted), 0)
        timer.join()
    with pytest.raises(OSError, match="Read-only"):
        (mounted / "other").touch()


def test_a_mount_that_is_always_written_is_an_error(
    mounted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "_BUSY_PAUSE_S", 0.0)
    with (
        (mounted / "file").open("w"),
        pytest.raises(NamespaceError, match="resource busy"),
    ):
        steps._forbid_changes(str(mounted), 0)
