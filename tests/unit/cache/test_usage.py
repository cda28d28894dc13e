import hashlib
import os
from pathlib import Path

import pytest

from cvmfsexec.cache.usage import Usage, estimate_usage


def estimate(path: Path, enough_objects: int) -> Usage:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return estimate_usage(descriptor, enough_objects=enough_objects)
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
    assert estimate(tmp_path, 10) == (0, True)


def test_few_objects_are_counted_exactly(tmp_path: Path) -> None:
    (tmp_path / "txn").mkdir()
    (tmp_path / "txn" / "pending").write_bytes(bytes(1000))
    (tmp_path / "cvmfschecksum.atlas.cern.ch").write_bytes(bytes(1000))
    assert estimate(tmp_path, 1000) == (0, True)
    total_bytes = fill(tmp_path, 100)
    assert estimate(tmp_path, 1000) == (total_bytes, True)


def test_many_objects_are_estimated(tmp_path: Path) -> None:
    total_bytes = fill(tmp_path, 2000)
    used_bytes, is_exact = estimate(tmp_path, 500)
    assert used_bytes == pytest.approx(total_bytes, rel=0.2)
    assert not is_exact


def test_what_is_no_object_is_not_counted(tmp_path: Path) -> None:
    (tmp_path / "ab").mkdir()
    (tmp_path / "ab" / ("0" * 38)).symlink_to("missing")
    (tmp_path / "ab" / ("1" * 38)).mkdir()
    (tmp_path / "ab" / "fetchJo3Bg7").write_bytes(bytes(1000))
    assert estimate(tmp_path, 10) == (0, True)
