"""Put what was unpacked into its place, beside what other versions and users put there.

A place holds ``runtime-DIGEST`` for each version that was unpacked in it, which never
changes; ``current``, the name of the last; the commands, which start the current
runtime; and ``dist``, which users edit. A new version updates what in ``dist`` is still
as the version before it brought it. Nothing else is removed: a session may still run
from an older runtime (docs/adr/0020).
"""

import errno
import fcntl
import os
import shutil
import stat
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from cvmfsexec.distribution.member import SHORT_DIGEST_LENGTH
from cvmfsexec.errors import DistributionError

if TYPE_CHECKING:
    from collections.abc import Iterator

_ABANDONED_AFTER_S = 24 * 3600.0
_CHUNK_BYTES = 1 << 20


class _Thing(NamedTuple):
    """What lies at a path, as far as an update must know it."""

    kind: str
    content: bytes
    is_executable: bool = False


def verify(file: str, offset: int, digest: str) -> None:
    """Compare the digest of a file's payload.

    Args:
        file: The self-extracting file.
        offset: Of the payload's first byte, from 1 as ``tail`` counts.
        digest: SHA-256 in hexadecimal.

    Raises:
        DistributionError: It is another.
    """
    from hashlib import sha256

    found = sha256()
    with open(file, "rb") as stream:
        stream.seek(offset - 1)
        while data := stream.read(_CHUNK_BYTES):
            found.update(data)
    if found.hexdigest() != digest:
        raise DistributionError(f"{file} is damaged: its payload has another digest")


def settle(unpacked: str, place: str, digest: str) -> None:
    """Make an unpacked runtime the current one of a place.

    Args:
        unpacked: Directory in the place, with the runtime: a temporary one, or that
            which is in its place already.
        place: Where ``runtime-DIGEST``, ``dist`` and the commands belong.
        digest: SHA-256 of the payload in hexadecimal.

    Raises:
        OSError: It cannot be written.
    """
    name = f"runtime-{digest[:SHORT_DIGEST_LENGTH]}"
    runtime = os.path.join(place, name)
    lock = os.open(os.path.join(place, ".lock"), os.O_CREAT | os.O_RDWR, 0o666)
    try:
        with suppress(OSError):  # not on every file system; each step below is atomic
            fcntl.flock(lock, fcntl.LOCK_EX)
        _remove_abandoned(place)
        before = _current(place)
        if before != name:
            _update_dist(unpacked, os.path.join(place, before) if before else "", place)
        _place_commands(unpacked, place)
        # From here on we can import nothing: it may be our own runtime that moves.
        if os.path.realpath(unpacked) != os.path.realpath(runtime):
            _move(unpacked, runtime)
        _write(os.path.join(place, "current"), _Thing("file", f"{name}\n".encode()))
    finally:
        os.close(lock)


def _move(unpacked: str, runtime: str) -> None:
    mask = os.umask(0o022)
    os.umask(mask)
    os.chmod(unpacked, 0o777 & ~mask)
    try:
        os.rename(unpacked, runtime)
    except OSError as error:
        if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
            raise  # otherwise somebody else was faster


def _current(place: str) -> str:
    try:
        with open(os.path.join(place, "current"), "rb") as stream:
            name = os.fsdecode(stream.readline(100).strip())
    except OSError:
        return ""
    return name if name.startswith("runtime-") and "/" not in name else ""


def _update_dist(runtime: str, before: str, place: str) -> None:
    """Bring ``dist`` from what one version wants to what another wants."""
    dist = os.path.join(place, "dist")
    new = os.path.join(runtime, "dist")
    old = os.path.join(before, "dist") if before and os.path.isdir(dist) else ""
    for directory, _, _ in os.walk(new):
        path = os.path.relpath(directory, new)
        if not old or not os.path.isdir(os.path.join(old, path)):
            os.makedirs(os.path.join(dist, path), exist_ok=True)
    wanted = set(_paths(new))
    for path in sorted(wanted | set(_paths(old) if old else ())):
        target = os.path.join(dist, path)
        is_there, is_wanted = _look(target), _look(os.path.join(new, path))
        was_wanted = _look(os.path.join(old, path)) if old else None
        if is_there == is_wanted or is_there != was_wanted:
            continue  # as it should be, or as the user wants it
        if is_wanted is None:
            os.unlink(target)
        else:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            _write(target, is_wanted)


def _paths(top: str) -> "Iterator[str]":
    """Yield the files and links below a directory, relative to it."""
    for directory, subdirectories, files in os.walk(top):
        for name in files + subdirectories:
            path = os.path.join(directory, name)
            if os.path.islink(path) or name in files:
                yield os.path.relpath(path, top)


def _look(path: str) -> _Thing | None:
    try:
        status = os.lstat(path)
        if stat.S_ISLNK(status.st_mode):
            return _Thing("link", os.fsencode(os.readlink(path)))
        if not stat.S_ISREG(status.st_mode):
            return _Thing("other", b"")
        with open(path, "rb") as stream:
            return _Thing("file", stream.read(), bool(status.st_mode & 0o100))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError:
        return _Thing("other", b"")


def _place_commands(runtime: str, place: str) -> None:
    commands = os.path.join(runtime, "commands")
    for name in sorted(os.listdir(commands)):
        wanted = _look(os.path.join(commands, name))
        target = os.path.join(place, name)
        if wanted is not None and _look(target) != wanted:
            _write(target, wanted)


def _write(path: str, thing: _Thing) -> None:
    """Make or replace a file or link in one step."""
    temporary = f"{path}.{os.getpid()}.new"
    try:
        if thing.kind == "link":
            os.symlink(os.fsdecode(thing.content), temporary)
        else:
            with open(temporary, "wb") as stream:
                stream.write(thing.content)
                if thing.is_executable:
                    mode = stat.S_IMODE(os.fstat(stream.fileno()).st_mode)
                    os.fchmod(stream.fileno(), mode | (mode & 0o444) >> 2)
        os.rename(temporary, path)
    except OSError:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def _remove_abandoned(place: str) -> None:
    """Remove what copies that were killed while unpacking have left."""
    for name in os.listdir(place):
        path = os.path.join(place, name)
        if name.startswith(".unpacking."):
            with suppress(OSError):
                if time.time() - os.stat(path).st_mtime > _ABANDONED_AFTER_S:
                    shutil.rmtree(path)
