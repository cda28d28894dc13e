"""Objects that the user wants to keep: a second link makes them stay.

``cvmfsexec.pinned/<hash>`` is a hard link to the object. To remove an object that has
another name there would free nothing, so nobody who makes room does; there is no list
that could get lost, and whoever removes the link ends the pin. It needs no process.

An object that turns out to be damaged is removed although it is pinned, and an empty
file stays in place of the link. What is stored under that hash next is pinned again.

What is in use is pinned by the ledger, and only for as long: see ``Quota.in_use``.
"""

import contextlib
import os
import stat
from collections.abc import Iterator

from cvmfsexec.cache.open_files import close_quietly
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
            follow_symlinks=False,
        )
    except FileNotFoundError:
        return False
    except FileExistsError:
        return _is_same_file(directory, content_hash) or _link_anew(
            directory, content_hash
        )
    return True


def pin_if_wished(directory: int, content_hash: ContentHash) -> None:
    """Pin an object that was just stored, if the one before it was pinned.

    Raises:
        OSError: As the kernel says.
    """
    if _exists(directory, _path(content_hash)):
        pin_for_good(directory, content_hash)


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


def keep_wish(directory: int, content_hash: ContentHash) -> None:
    """Let go of the bytes of an object that is no good, but not of its pin.

    Raises:
        OSError: As the kernel says; the pin is as it was.
    """
    path = _path(content_hash)
    if not _exists(directory, path):
        return
    empty = f"{DIRECTORY}/.{content_hash}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    close_quietly(os.open(empty, flags, 0o600, dir_fd=directory))
    os.rename(empty, path, src_dir_fd=directory, dst_dir_fd=directory)


def wished(directory: int) -> Iterator[tuple[ContentHash, os.stat_result]]:
    """Yield what is pinned but not kept: the file under its pin has no other name."""
    for content_hash in _pinned(directory):
        try:
            path = _path(content_hash)
            status = os.stat(path, dir_fd=directory, follow_symlinks=False)
        except OSError:
            continue  # unpinned meanwhile
        if status.st_nlink == 1:
            yield content_hash, status


def restore(directory: int, content_hash: ContentHash) -> None:
    """Give an object that only its pin has kept its place again.

    Raises:
        OSError: As the kernel says; also if a directory is there.
    """
    place = content_hash.cache_path()
    with contextlib.suppress(FileExistsError):
        os.mkdir(os.path.dirname(place), 0o700, dir_fd=directory)
    with contextlib.suppress(FileNotFoundError):
        if not has_file(directory, content_hash):
            os.unlink(place, dir_fd=directory)  # what is called so, and is no object
    os.link(_path(content_hash), place, src_dir_fd=directory, dst_dir_fd=directory)


def has_file(directory: int, content_hash: ContentHash) -> bool:
    """Whether there is a file in the place of an object."""
    try:
        place = content_hash.cache_path()
        status = os.stat(place, dir_fd=directory, follow_symlinks=False)
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode)


def open_pinned(directory: int, content_hash: ContentHash) -> int:
    """Return a descriptor of the file under a pin.

    Raises:
        OSError: As the kernel says.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    return os.open(_path(content_hash), flags, dir_fd=directory)


def has_pin(directory: int, path: str) -> bool:
    """Whether there is a pin for the object in some place below the directory."""
    return _exists(directory, f"{DIRECTORY}/{path.replace('/', '')}")


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
        close_quietly(descriptor)


def _exists(directory: int, path: str) -> bool:
    try:
        os.stat(path, dir_fd=directory, follow_symlinks=False)
    except OSError:
        return False
    return True


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
    """Return the path of a pin."""
    return f"{DIRECTORY}/{content_hash}"
