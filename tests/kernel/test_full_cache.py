"""The cache on a disk that is really full: a small tmpfs in a namespace of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DISK_BYTES = 1024 * 1024

FILL = """
import logging, os, sys
from cvmfsexec.cache.directory import DirectoryStore
from cvmfsexec.fetch import Fetcher
from tests.support.memory_source import MemorySource

logging.basicConfig(format="%(message)s")
path = sys.argv[1]
store, source = DirectoryStore.open(path), MemorySource()
objects = Fetcher(source, store)
kept = 0
for size in (10_000, 700_000, 400_000, 30_000_000, 5_000, 300_000, 1_000):
    for stream in (False, True):
        content = os.urandom(size)
        request = source.publish(content)
        if stream:
            request = request._replace(size_bytes=None)
        descriptor = objects.open(request)
        assert os.pread(descriptor, size + 1, 0) == content
        os.close(descriptor)
        if store.has(request.content_hash):
            kept += 1
            assert open(f"{path}/{request.content_hash.cache_path()}", "rb").read() == (
                content
            )
assert not os.path.exists(f"{path}/txn"), "unnamed files need none"
print(kept)
"""


def run_on_small_disk(disk: Path, script: str) -> subprocess.CompletedProcess[str]:
    mount = f'mount -t tmpfs -o size={DISK_BYTES},mode=700 tmpfs "$0" && exec "$@"'
    in_namespace = ("unshare", "--user", "--map-root-user", "--mount")
    return subprocess.run(
        [
            *in_namespace,
            *("sh", "-c", mount, str(disk)),
            *(sys.executable, "-c", script, str(disk)),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONPATH": f"{ROOT}/src:{ROOT}"},
    )


def test_every_object_is_read_though_few_can_be_kept(tmp_path: Path) -> None:
    probe = run_on_small_disk(tmp_path, "")
    if probe.returncode != 0:
        pytest.skip(f"cannot mount a tmpfs: {probe.stderr.strip()}")
    done = run_on_small_disk(tmp_path, FILL)
    assert done.returncode == 0, done.stderr
    assert 2 <= int(done.stdout) < 14
    assert done.stderr.splitlines() == [
        f"cache directory {tmp_path}: No space left on device; "
        "what does not fit is read without being kept"
    ]
