"""A payload of readers that look whether files are what was published, and never older.

``version_reader.py TOP COUNT`` reads the files below ``TOP`` in ``COUNT`` processes
until its standard input ends. Each process writes a line at the end: how many files it
has read and the newest version it has seen; before, a line for each fault it finds.
What a file holds follows from its name and a version (``content_of``).
"""

import errno
import hashlib
import os
import random
import select
import sys

_GONE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EINVAL}
"""What it was a moment ago, it need not be any more."""

_HELD_MAX = 8


def content_of(name: str, version: int) -> bytes:
    """Return what the file of a name holds in a version."""
    head = f"{name} {version}\n".encode()
    return head + hashlib.sha256(head).hexdigest().encode() * (1 + version % 3)


def main(top: str, count: int) -> int:
    """Read in some processes until the input ends."""
    pids = []
    for number in range(count):
        pid = os.fork()
        if not pid:
            Reader(top, number).run()
            os._exit(0)
        pids.append(pid)
    statuses = [os.waitpid(pid, 0)[1] for pid in pids]
    return int(any(statuses))


class Reader:
    """One process."""

    def __init__(self, top: str, seed: int) -> None:
        self._top = top
        self._random = random.Random(seed)  # noqa: S311
        self._seen: dict[str, int] = {}
        self._held: list[tuple[int, str, bytes]] = []
        self._count = 0

    def run(self) -> None:
        """Read until the input ends, and tell how much it was."""
        while not select.select([0], [], [], 0)[0]:
            self._read_directory(self._top, depth=0)
            self._check_held()
        newest = max(self._seen.values(), default=0)
        os.write(1, f"read {self._count} newest {newest}\n".encode())

    def _read_directory(self, path: str, depth: int) -> None:
        try:
            names = os.listdir(path)
        except OSError as error:
            self._fault(path, error)
            return
        if len(set(names)) != len(names):
            self._tell(f"{path}: a name comes twice")
        for name in self._random.sample(names, min(len(names), 12)):
            self._read(f"{path}/{name}", depth)

    def _read(self, path: str, depth: int) -> None:
        try:
            if os.path.islink(path):
                os.readlink(path)
            elif os.path.isdir(path):
                if depth < 4:
                    self._read_directory(path, depth + 1)
            else:
                self._read_file(path)
        except OSError as error:
            self._fault(path, error)

    def _read_file(self, path: str) -> None:
        descriptor = os.open(path, os.O_RDONLY)
        content = os.pread(descriptor, 1 << 16, 0)
        self._count += 1
        self._check(path, content)
        if len(self._held) < _HELD_MAX:
            self._held.append((descriptor, path, content))
        else:
            os.close(descriptor)

    def _check(self, path: str, content: bytes) -> None:
        if not content:
            return  # a marker of a catalog
        name, _, version = content.partition(b"\n")[0].decode().rpartition(" ")
        if name != os.path.basename(path) or content != content_of(name, int(version)):
            self._tell(f"{path}: was never published like this: {content!r:.80}")
        elif int(version) < self._seen.get(path, 0):
            self._tell(f"{path}: {version} after {self._seen[path]}")
        else:
            self._seen[path] = int(version)

    def _check_held(self) -> None:
        if len(self._held) < _HELD_MAX:
            return
        descriptor, path, content = self._held.pop(0)
        if os.pread(descriptor, 1 << 16, 0) != content:
            self._tell(f"{path}: has changed while it was open")
        os.close(descriptor)

    def _fault(self, path: str, error: OSError) -> None:
        if error.errno not in _GONE:
            self._tell(f"{path}: {error}")

    def _tell(self, what: str) -> None:
        os.write(1, f"fault {what}\n".encode())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
