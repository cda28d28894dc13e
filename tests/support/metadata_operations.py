"""What a cold job asks of the file system of its cache, counted by strace.

Small files are fetched, or opened again by another process. Counted are the system
calls that concern names and locks, and that a shared file system would send to its
server: not those that read and write bytes.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.sessions import ROOT

OBJECTS = 1000
PACKED_MAX = 100
"""Allowed for a packed cache."""

_CALLS = (
    *("open", "openat", "creat", "mkdir", "mkdirat", "mknod", "unlink", "unlinkat"),
    *("link", "linkat", "rename", "renameat", "renameat2", "rmdir", "symlink"),
    *("stat", "lstat", "fstat", "newfstatat", "statx", "access", "faccessat"),
    *("faccessat2", "getdents64", "utimensat", "chmod", "fchmod", "ftruncate"),
    *("fcntl", "flock"),
)
_READS_NO_METADATA = re.compile(r"fcntl\([^,]*, F_(DUPFD|GETFD|SETFD|GETFL|SETFL)")

_WORK = """
import os, sys
from cvmfsexec.cache.directory import DirectoryStore
from cvmfsexec.cache.packed import PackedStore
from cvmfsexec.fetch import Fetcher
from tests.support.memory_source import MemorySource

kind, path, numbers = sys.argv[1], sys.argv[2], range(*map(int, sys.argv[3:]))
source = MemorySource()
requests = [source.publish(b"%d " % number * 300) for number in numbers]
os.stat(path)
store = {"packed": PackedStore, "posix": DirectoryStore}[kind].open(path, 1 << 30)
fetcher = Fetcher(source, store)
for number, request in zip(numbers, requests):
    descriptor = fetcher.open(request)
    assert os.pread(descriptor, 100_000, 0) == b"%d " % number * 300
    os.close(descriptor)
print(len(source.requests))
store.close()
"""


def metadata_operations(
    kind: str, cache: Path, trace: Path, numbers: range = range(OBJECTS)
) -> tuple[int, int]:
    """Do the work; return how many objects were fetched, and metadata operations."""
    if shutil.which("strace") is None:
        pytest.skip("there is no strace")
    calls = ",".join(f"?{name}" for name in _CALLS)
    done = subprocess.run(
        [
            *("strace", "-f", "-y", "-s", "300"),
            *("-o", str(trace), "-e", f"trace={calls}"),
            *(sys.executable, "-c", _WORK, kind, str(cache)),
            *(str(numbers.start), str(numbers.stop)),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "PYTHONPATH": f"{ROOT}/src:{ROOT}"},
    )
    if "PTRACE" in done.stderr:
        pytest.skip(f"nothing can be traced here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    lines = trace.read_text().splitlines()
    mentioned = [
        line
        for line in lines
        if str(cache) in line and not _READS_NO_METADATA.search(line)
    ]
    return int(done.stdout), len(mentioned)
