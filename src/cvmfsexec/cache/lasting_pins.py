"""Objects that the user wants to keep: a second link makes them stay.

``cvmfsexec.pinned/<hash>`` is a hard link to the object. To remove an object that has
another name would free nothing, so nobody who makes room does; there is no list that
could get lost, and whoever removes the link ends the pin. It needs no process.

What is in use is pinned by the ledger, and only for as long: see ``Quota.in_use``.
"""

import contextlib
import os
from collections.abc import Iterator

from cvmfsexec.errors import FormatError
from cvmfsexec.format.digest import ContentHash

DIRECTORY = "cvmfsexec.pinned"


def pin_for_good(directory: int, content_hash: ContentHash) -> bool:
    """Keep an object from being removed to make room; again changes nothing.

    Args:
        directory: Descriptor of the cache directory.
        content_hash: Names the object.

    Returns:
        Whether it is pinned now; else it is not in the cache.

    Raises:
        OSError: As the kernel says.
    """
    with contextlib.suppress(FileExistsError):
        os.mkdir(DIRECTORY, 0o700, dir_fd=directory)
    try:
        os.link(
            content_hash.cache_path(),
            _path(content_hash),
            src_dir_fd=directory,
            dst_dir_fd=directory,
        )
    except FileNotFoundError:
        return False
    except FileExistsError:
        return _is_same_file(directory, content_hash) or _link_anew(
            directory, content_hash
        )
    return True


def unpin(directory: int, content_hash: ContentHash) -> bool:
    """Take that back; return whether it was pinned.

    Raises:
        OSError: As the kernel says.
    """
    try:
        os.unlink(_path(content_hash), dir_fd=directory)
    except FileNotFoundError:
        return False
    return True


def pinned_for_good(directory: int) -> frozenset[ContentHash]:
    """Return what is pinned like this."""
    return frozenset(_pinned(directory))


def size_of(directory: int, content_hash: ContentHash) -> int:
    """Return the size of an object in a cache directory; 0 if it is not there."""
    try:
        return os.stat(content_hash.cache_path(), dir_fd=directory).st_size
    except OSError:
        return 0


def _pinned(directory: int) -> Iterator[ContentHash]:
    try:
        descriptor = os.open(
            DIRECTORY, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory
        )
    except OSError:
        return  # nobody ever pinned anything
    try:
        for name in os.listdir(descriptor):
            with contextlib.suppress(FormatError):  # not ours
                yield ContentHash.parse(name)
    finally:
        os.close(descriptor)


def _is_same_file(directory: int, content_hash: ContentHash) -> bool:
    try:
        pinned = os.stat(_path(content_hash), dir_fd=directory)
        stored = os.stat(content_hash.cache_path(), dir_fd=directory)
    except FileNotFoundError:
        return False
    return os.path.samestat(pinned, stored)


def _link_anew(directory: int, content_hash: ContentHash) -> bool:
    """Pin what took the place of an object that was pinned once."""
    unpin(directory, content_hash)
    return pin_for_good(directory, content_hash)


def _path(content_hash: ContentHash) -> str:
    return f"{DIRECTORY}/{content_hash}"
