"""A payload whose processes hold files open: ``PROCESSES DIRECTORY...``.

Each process opens every file below the directories and reads its start. When all
have, the limit of open files and the number of files that are held are written, and the
files are held until standard input ends.
"""

import os
import resource
import sys
from collections.abc import Sequence

MARGIN = 64  # what else a process has open


def main(words: Sequence[str]) -> None:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    count, directories = int(words[0]), words[1:]
    told_out, told = os.pipe()
    held_out, held = os.pipe()
    for _ in range(count):
        if os.fork() == 0:
            os.close(held)
            _hold(directories, told, held_out)
    os.close(told)
    total = sum(int(os.read(told_out, 8)) for _ in range(count))
    sys.stdout.write(f"{limit} {total}\n")
    sys.stdout.flush()
    sys.stdin.read()
    os.close(held)
    statuses = [os.wait()[1] for _ in range(count)]
    sys.exit(any(statuses))


def _hold(directories: Sequence[str], told: int, held_out: int) -> None:
    paths = [
        os.path.join(directory, name)
        for top in directories
        for directory, _, names in os.walk(top)
        for name in names
    ]
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(paths) + MARGIN, hard))
    descriptors = [os.open(path, os.O_RDONLY) for path in paths]
    is_right = all(
        os.pread(descriptor, 4096, 0).decode() in (os.path.basename(path), "")
        for descriptor, path in zip(descriptors, paths, strict=True)
    )
    os.write(told, b"%8d" % len(descriptors))
    os.read(held_out, 1)
    os._exit(not is_right)


if __name__ == "__main__":
    main(sys.argv[1:])
