"""The files of a dist, and how they come to lie there: all at once, or not at all.

They are written to a directory beside, which is renamed at the end. Who is killed
leaves that directory; a later one removes it.
"""

import contextlib
import fcntl
import os
import shutil
import time
from typing import TYPE_CHECKING

from cvmfsexec.errors import DistributionError, FormatError
from cvmfsexec.format.archive import ArchiveEntry, EntryKind, check_entries

if TYPE_CHECKING:
    from collections.abc import Iterator

CONFIGURATION = b"etc/cvmfs/"

_ASIDE = ".making-"
_LEFT_AFTER_S = 60


def configuration_of(entries: tuple[ArchiveEntry, ...]) -> tuple[ArchiveEntry, ...]:
    """Return what lies below ``etc/cvmfs``, with paths from there.

    Links of which the target is absolute become relative, so that they mean the same
    in the dist.

    Raises:
        FormatError: A link leads elsewhere.
    """
    below = (entry for entry in entries if entry.path.startswith(CONFIGURATION))
    return tuple(
        _tamed(entry._replace(path=entry.path.removeprefix(CONFIGURATION)))
        for entry in below
    )


def merge(configurations: list[tuple[ArchiveEntry, ...]]) -> tuple[ArchiveEntry, ...]:
    """Put configurations of several packages together.

    Raises:
        FormatError: They contradict each other.
    """
    merged: dict[bytes, ArchiveEntry] = {}
    for entry in (entry for entries in configurations for entry in entries):
        earlier = merged.setdefault(entry.path, entry)
        if earlier != entry:
            raise FormatError(f"two packages bring different {entry.path.decode()!r}")
    check_entries(merged.values())
    return tuple(merged.values())


def write_dist(dist: str, entries: tuple[ArchiveEntry, ...]) -> None:
    """Make a dist of exactly these entries, and of directories for them.

    Raises:
        DistributionError: It cannot be written, or there is one already.
    """
    try:
        with _writable_by_us_alone(), _aside(dist) as aside:
            for entry in entries:
                _write(aside, entry)
            os.rename(aside, dist)
    except OSError as error:
        if os.path.lexists(dist):
            raise already_exists(dist) from error
        raise DistributionError(
            f"cannot write {dist}: {error.strerror}",
            hint="make room, or choose another place with --dist",
        ) from error


def already_exists(dist: str) -> DistributionError:
    """Return what to say where there is something already."""
    return DistributionError(
        f"{dist} already exists",
        hint="remove or rename it first, or choose another place with --dist",
    )


def _tamed(entry: ArchiveEntry) -> ArchiveEntry:
    """Refuse a link that leaves the tree; ``..`` counts only at its beginning.

    In the middle it could follow a link. At the beginning it cannot: what lies below a
    link is refused elsewhere.
    """
    if entry.kind is not EntryKind.LINK:
        return entry
    depth = entry.path.count(b"/")
    target = entry.target
    if target.startswith(b"/" + CONFIGURATION):
        target = b"../" * depth + target.removeprefix(b"/" + CONFIGURATION)
    parts = target.rstrip(b"/").split(b"/")
    upwards = 0
    while upwards < len(parts) and parts[upwards] == b"..":
        upwards += 1
    is_odd = any(part in {b"", b".."} or b"\0" in part for part in parts[upwards:])
    if is_odd or upwards > depth:
        raise FormatError(
            f"a package links {entry.path[:80]!r} to {entry.target[:80]!r}, which is "
            "not in its configuration"
        )
    return entry._replace(target=target)


def _write(top: str, entry: ArchiveEntry) -> None:
    path = os.path.join(top, os.fsdecode(entry.path))
    if entry.kind is EntryKind.DIRECTORY:
        os.makedirs(path, exist_ok=True)
        return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if entry.kind is EntryKind.LINK:
        os.symlink(entry.target, path)
        return
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    mode = 0o777 if entry.is_executable else 0o666
    with open(os.open(path, flags, mode), "wb") as stream:
        stream.write(entry.content)
        stream.flush()
        os.fsync(
            stream.fileno()
        )  # some file systems notice only now that they are full


@contextlib.contextmanager
def _writable_by_us_alone() -> "Iterator[None]":
    """Let no file be writable by others: there are keys, and a cache in time."""
    mask = os.umask(0o022)
    os.umask(mask | 0o022)
    try:
        yield
    finally:
        os.umask(mask)


@contextlib.contextmanager
def _aside(dist: str) -> "Iterator[str]":
    """Make a directory beside a dist; it is gone at the end unless it was renamed."""
    parent, name = os.path.split(dist)
    os.makedirs(parent, exist_ok=True)
    prefix = f".{name}{_ASIDE}"
    for other in os.listdir(parent):
        if other.startswith(prefix):
            _remove_if_left(os.path.join(parent, other))
    aside = os.path.join(parent, f"{prefix}{os.getpid()}")
    os.mkdir(aside)
    descriptor = os.open(aside, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # some file systems have no locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield aside
    finally:
        os.close(descriptor)
        shutil.rmtree(aside, ignore_errors=True)


def _remove_if_left(directory: str) -> None:
    """Remove what somebody has left who was killed, and holds no lock any more.

    What is new may be somebody's who is about to lock it.
    """
    with contextlib.suppress(OSError):
        if time.time() - os.lstat(directory).st_mtime < _LEFT_AFTER_S:
            return
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(directory, ignore_errors=True)
        finally:
            os.close(descriptor)
