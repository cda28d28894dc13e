import hashlib
import os
from pathlib import Path

import pytest

from cvmfsexec.cache.usage import estimate_used_bytes


def estimate(path: Path, enough_objects: int) -> int:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return estimate_used_bytes(descriptor, enough_objects=enough_objects)
    finally:
        os.close(descriptor)


def fill(path: Path, count: int) -> int:
    """Make objects of 1 to 99 bytes; return the sum of their sizes."""
    total_bytes = 0
    for number in range(count):
        name = hashlib.sha1(b"%d" % number, usedforsecurity=False).hexdigest()
        (path / name[:2]).mkdir(exist_ok=True)
        size_bytes = 1 + number % 99
        (path / name[:2] / name[2:]).write_bytes(bytes(size_bytes))
        total_bytes += size_bytes
    return total_bytes


def test_an_empty_cache_uses_nothing(tmp_path: Path) -> None:
    assert estimate(tmp_path, 10) == 0


def test_few_objects_are_counted_exactly(tmp_path: Path) -> None:
    (tmp_path / "txn").mkdir()
    (tmp_path / "txn" / "pending").write_bytes(bytes(1000))
    (tmp_path / "cvmfschecksum.atlas.cern.ch").write_bytes(bytes(1000))
    assert estimate(tmp_path, 1000) == fill(tmp_path, 0)
    assert fill(tmp_path, 100) == estimate(tmp_path, 1000)


def test_many_objects_are_estimated(tmp_path: Path) -> None:
    total_bytes = fill(tmp_path, 2000)
    assert estimate(tmp_path, 500) == pytest.approx(total_bytes, rel=0.2)


def test_an_object_that_is_removed_meanwhile_is_not_counted(tmp_path: Path) -> None:
    (tmp_path / "ab").mkdir()
    (tmp_path / "ab" / "cd").symlink_to("missing")
    assert estimate(tmp_path, 10) == len("missing")
