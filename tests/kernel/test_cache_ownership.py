"""Whose a cache directory is, seen from inside of a user namespace."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOMEBODY = 12345

OPEN = """
import os, sys
from cvmfsexec.cache.directory import DirectoryStore
from cvmfsexec.errors import CacheError
from cvmfsexec.format.digest import ContentHash

try:
    store = DirectoryStore.open(sys.argv[1])
except CacheError as error:
    print(error)
else:
    with store.transaction() as transaction:
        descriptor = transaction.commit(ContentHash(bytes(range(20))))
    print(os.readlink(f"/proc/self/fd/{descriptor}"))
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "cache"
    path.mkdir(mode=0o700)
    return path


def open_in_namespace(mapping: str, directory: Path) -> str:
    """Open a store as the user shown by a mapping of ``unshare``."""
    done = subprocess.run(
        ["unshare", "--user", mapping, sys.executable, "-c", OPEN, str(directory)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONPATH": f"{ROOT}/src"},
    )
    if done.returncode != 0 and "unshare" in done.stderr:
        pytest.skip(f"no user namespace: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


MAPPINGS = pytest.mark.parametrize("mapping", ["--map-root-user", "--map-current-user"])


@MAPPINGS
def test_the_users_own_directory_is_used(directory: Path, mapping: str) -> None:
    shown = open_in_namespace(mapping, directory)
    assert shown == f"{directory}/00/0102030405060708090a0b0c0d0e0f10111213"


@MAPPINGS
def test_a_directory_of_the_group_is_refused(directory: Path, mapping: str) -> None:
    directory.chmod(0o770)
    assert "other users can write" in open_in_namespace(mapping, directory)


@MAPPINGS
def test_a_directory_of_somebody_else_is_refused(directory: Path, mapping: str) -> None:
    foreign = Path("/usr")
    if os.geteuid() == 0:
        foreign = directory
        os.chown(foreign, SOMEBODY, SOMEBODY)
        foreign.chmod(0o755)
    assert "belongs to another user" in open_in_namespace(mapping, foreign)
