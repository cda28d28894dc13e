"""About how many bytes a cache directory holds, without looking at all of it.

Objects are named by hashes, so each of the 256 directories holds the like share.
Some are summed up until enough objects were seen; small caches are counted exactly.
The answer is for ``df``; a quota needs to know better.
"""

import os

ENOUGH_OBJECTS = 2_000  # 5 ms of work; about 5 % off for files of a software tree

_DIRECTORIES = 256
_STRIDE = 97  # odd, so that every directory comes once, and neighbours far apart


def estimate_used_bytes(directory: int, *, enough_objects: int = ENOUGH_OBJECTS) -> int:
    """Return the estimated sum of the sizes of all objects.

    Args:
        directory: Descriptor of the cache directory.
        enough_objects: Look at no more directories once so many were seen.
    """
    objects = total_bytes = visited = 0
    for step in range(_DIRECTORIES):
        if objects >= enough_objects:
            break
        sizes = _sizes(directory, f"{step * _STRIDE % _DIRECTORIES:02x}")
        objects += len(sizes)
        total_bytes += sum(sizes)
        visited += 1
    return total_bytes * _DIRECTORIES // visited


def _sizes(directory: int, name: str) -> list[int]:
    try:
        descriptor = os.open(
            name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory
        )
    except OSError:
        return []  # no object begins with these digits
    try:
        with os.scandir(descriptor) as entries:
            return [size for entry in entries if (size := _size(entry)) is not None]
    finally:
        os.close(descriptor)


def _size(entry: os.DirEntry[str]) -> int | None:
    try:
        return entry.stat(follow_symlinks=False).st_size
    except OSError:
        return None  # removed meanwhile
