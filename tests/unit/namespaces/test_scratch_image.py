import fcntl
import os
import struct
from pathlib import Path

import pytest

from cvmfsexec.errors import ConfigurationError
from cvmfsexec.namespaces import scratch_image
from cvmfsexec.namespaces.scratch_image import take_image

CLEAN, DIRTY, WITH_ERRORS = 1, 0, 3


@pytest.fixture(autouse=True)
def _programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch_image, "_SYSTEM_PATH", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()
    _install(tmp_path, "fuse2fs", "exit 0")


def _install(tmp_path: Path, name: str, script: str) -> None:
    program = tmp_path / "bin" / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def _make(tmp_path: Path, state: int = CLEAN) -> str:
    path = tmp_path / "image"
    path.write_bytes(bytes(1024 + 56) + struct.pack("<HH", 0xEF53, state) + bytes(999))
    return str(path)


def test_clean_image_is_locked_and_not_looked_into(tmp_path: Path) -> None:
    _install(tmp_path, "e2fsck", "exit 8")
    image = take_image(_make(tmp_path), "")
    assert image.program == str(tmp_path / "bin/fuse2fs")
    with pytest.raises(ConfigurationError, match=f"in use by process {os.getpid()}"):
        take_image(image.path, "")
    os.close(image.lock)
    os.close(take_image(image.path, "").lock)


def test_missing_program_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "bin/fuse2fs").unlink()
    with pytest.raises(ConfigurationError, match="fuse2fs, which is not installed"):
        take_image(_make(tmp_path), "")


@pytest.mark.parametrize("state", [DIRTY, WITH_ERRORS])
@pytest.mark.parametrize("script", ["exit 1", '[ "$1" = -fy ]'])
def test_image_that_was_not_unmounted_is_repaired(
    tmp_path: Path, state: int, script: str
) -> None:
    _install(tmp_path, "e2fsck", script)
    os.close(take_image(_make(tmp_path, state), "").lock)


def test_image_that_cannot_be_repaired_is_refused_and_unlocked(tmp_path: Path) -> None:
    _install(tmp_path, "e2fsck", "exit 4")
    path = _make(tmp_path, DIRTY)
    with pytest.raises(ConfigurationError, match="e2fsck cannot repair it"):
        take_image(path, "")
    with open(path, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_image_is_used_as_it_is_where_nobody_can_repair_it(tmp_path: Path) -> None:
    os.close(take_image(_make(tmp_path, DIRTY), "").lock)


@pytest.mark.parametrize("content", [b"", b"text" * 999, bytes(1024 + 56) + b"\x53"])
def test_file_of_another_kind_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "image"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match="is not an ext2, ext3 or ext4"):
        take_image(str(path), "")
