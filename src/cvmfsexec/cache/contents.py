"""What a cache directory holds, object by object: one scan for everybody who asks.

The directory is the truth; there is no index. What can be known of an object without
opening it lies in its inode:

* **size**, in decompressed bytes;
* **last use**, as its modification time: objects never change, so the time is free.
  It is set anew when an object is opened whose last use is older than a minute.
  (The access time is not ours: the kernel and backups set it, or nobody does.)
* **volatile**, by the owner's execute bit: from a repository of short-lived content;
* **pinned for good**, by a second link (:mod:`cvmfsexec.cache.lasting_pins`). Backups
  and programs that look for duplicates make others, which mean nothing. Whether a
  catalog is in use only the ledger knows.

A scan takes about a second for 200,000 objects, and may miss what comes and goes
meanwhile.
"""

import os
import re
import stat
from collections.abc import Container, Iterator
from typing import NamedTuple

from cvmfsexec.cache.lasting_pins import has_pin
from cvmfsexec.cache.open_files import close_quietly
from cvmfsexec.format.digest import ContentHash

PREFIXES = tuple(f"{number:02x}" for number in range(256))
"""The directories that hold the objects whose hashes begin so."""

# A link could lead to other files with such names, as git has them.
_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
_VOLATILE = stat.S_IXUSR
_CLOCKS_DIFFER_NS = 86_400 * 10**9  # the file server's may be ahead, but not by that
_NAME = re.compile(r"[0-9a-f]{38}(?:|-rmd160|-shake128)")


class StoredObject(NamedTuple):
    """One object in a cache directory.

    Attributes:
        content_hash: Its name.
        size_bytes: Its size, decompressed.
        last_used_ns: When it was used last, to a minute; nanoseconds since 1970.
        is_volatile: Whether it is removed before all others.
        is_pinned: Whether it may not be removed to make room.
    """

    content_hash: ContentHash
    size_bytes: int
    last_used_ns: int
    is_volatile: bool
    is_pinned: bool


def stored_objects(
    directory: int, in_use: Container[ContentHash] = frozenset()
) -> Iterator[StoredObject]:
    """Yield every object, in no particular order.

    Args:
        directory: Descriptor of the cache directory.
        in_use: Objects that are pinned by living processes; ``Quota.in_use()``.
    """
    for prefix in PREFIXES:
        for name, status in object_files(directory, prefix):
            content_hash = ContentHash.parse(prefix + name)
            yield StoredObject(
                content_hash,
                status.st_size,
                status.st_mtime_ns,
                is_volatile(status),
                content_hash in in_use
                or is_pinned_for_good(directory, f"{prefix}/{name}", status),
            )


def object_files(directory: int, prefix: str) -> list[tuple[str, os.stat_result]]:
    """Return names and facts of the object files in one of the 256 directories.

    Other files, such as pending ones of other programs, are passed over.
    """
    try:
        descriptor = os.open(prefix, _DIRECTORY_FLAGS, dir_fd=directory)
    except OSError:
        return []  # no object begins with these digits
    try:
        with os.scandir(descriptor) as entries:
            return [
                (entry.name, status)
                for entry in entries
                if _NAME.fullmatch(entry.name) and (status := _status(entry))
            ]
    except OSError:
        return []  # a disk that fails
    finally:
        close_quietly(descriptor)


def is_volatile(status: os.stat_result) -> bool:
    """Whether an object is of a repository with short-lived content."""
    return bool(status.st_mode & _VOLATILE)


def is_pinned_for_good(directory: int, path: str, status: os.stat_result) -> bool:
    """Whether an object is kept because the user wants it.

    Args:
        directory: Descriptor of the cache directory.
        path: Of the object, below it.
        status: Of the object.
    """
    return status.st_nlink > 1 and has_pin(directory, path)


def use_for_order_ns(status: os.stat_result, now_ns: int) -> int:
    """Return by which time an object takes its turn to be removed; 0 for the first.

    Whoever uses one whose time is yet to come sets that right. So such a time tells
    that a clock was wrong once, and that nobody has used the object since.
    """
    is_possible = 0 <= status.st_mtime_ns <= now_ns + _CLOCKS_DIFFER_NS
    return status.st_mtime_ns if is_possible else 0


def mark_volatile(descriptor: int) -> None:
    """Let an object that is about to be stored be removed before others.

    Raises:
        OSError: As the kernel says.
    """
    os.fchmod(descriptor, 0o600 | _VOLATILE)


def _status(entry: os.DirEntry[str]) -> os.stat_result | None:
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError:
        return None  # removed meanwhile
    return status if stat.S_ISREG(status.st_mode) else None
