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


FILL_WITH_LIMIT = """
import logging, os, sys
from cvmfsexec.cache.directory import DirectoryStore
from cvmfsexec.fetch import Fetcher
from tests.support.memory_source import MemorySource

logging.basicConfig(format="%(message)s")
path, kind = sys.argv[1:]
store, source = DirectoryStore.open(path, 64 << 20), MemorySource()
objects = Fetcher(source, store)
requests = []

def fetch(count):
    for _ in range(count):
        content = os.urandom(20_000)
        requests.append(source.publish(content))
        descriptor = objects.open(requests[-1])
        assert os.pread(descriptor, 20_001, 0) == content
        os.close(descriptor)

def kept():
    return [store.has(request.content_hash) for request in requests]

def take_rest(all_but):
    # Somebody else fills the disk, but for some of its blocks or files.
    if kind == "blocks":
        with open(f"{path}/ballast", "wb", buffering=0) as file:
            left = os.statvfs(path)
            file.write(bytes(max(0, left.f_bavail * left.f_bsize - all_but * 20_480)))
    else:
        left = os.statvfs(path).f_favail - all_but
        for number in range(left):
            open(f"{path}/ballast{number}", "wb").close()

fetch(16)
take_rest(2)
fetch(24)
print(sum(kept()), kept()[0], kept()[-1], store.quota.cleanings_within(60) > 0)
assert store.used_bytes() == 20_000 * sum(kept())
store.close()
"""


def run_on_small_disk(
    disk: Path, script: str, *words: str, inodes: int = 0
) -> subprocess.CompletedProcess[str]:
    options = f"size={DISK_BYTES},nr_inodes={inodes},mode=700"
    mount = f'mount -t tmpfs -o {options} tmpfs "$0" && exec "$@"'
    in_namespace = ("unshare", "--user", "--map-root-user", "--mount")
    return subprocess.run(
        [
            *in_namespace,
            *("sh", "-c", mount, str(disk)),
            *(sys.executable, "-c", script, str(disk), *words),
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
        "what does not fit is read without being kept "
        "(remove something from the disk, or choose another place for the cache)"
    ]


@pytest.mark.parametrize("kind", ["blocks", "inodes"])
def test_what_was_used_least_goes_when_others_fill_the_disk(
    tmp_path: Path, kind: str
) -> None:
    """The limit is far away; the newest objects are kept, and nobody is warned."""
    probe = run_on_small_disk(tmp_path, "")
    if probe.returncode != 0:
        pytest.skip(f"cannot mount a tmpfs: {probe.stderr.strip()}")
    inodes = 200 if kind == "inodes" else 0
    done = run_on_small_disk(tmp_path, FILL_WITH_LIMIT, kind, inodes=inodes)
    assert done.returncode == 0, done.stderr
    count, has_first, has_last, was_cleaned = done.stdout.split()
    assert 4 <= int(count) < 40
    assert (has_first, has_last, was_cleaned) == ("False", "True", "True")
    assert done.stderr == ""
