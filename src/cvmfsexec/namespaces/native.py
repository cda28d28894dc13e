"""The host's own ``/cvmfs``: what of it a session goes on showing.

A host may have repositories mounted itself; a container may have been given some, or
their files; a session may run inside another one. All that stays visible, each entry
bound below our own ``/cvmfs``. What the session is asked for is taken from there too
if it can be read: it is shared with the others on the host, and warm.

Looking round must do no harm. The mount table tells what is mounted, and asks no file
system anything. An automounter's directory is not even listed: what it has mounted is
kept, and nothing is mounted for our curiosity. Where a server could hang, a child
process asks, and is left alone if no answer comes in time.

This module is imported only where there is a ``/cvmfs`` at all.
"""

import os
from collections.abc import Collection, Iterable
from functools import partial
from typing import NamedTuple

from cvmfsexec import log
from cvmfsexec.errors import NamespaceError
from cvmfsexec.namespaces.inquiry import ask
from cvmfsexec.namespaces.mount_table import Mount, read_mount_table
from cvmfsexec.namespaces.root import (
    NO_NATIVE,
    EntryKind,
    NativeTree,
    RootEntry,
    read_entries,
)

_AUTOFS = "autofs"
_USABLE = b"y"


def read_native(
    directory: str, wanted: Collection[str], table: Iterable[Mount] | None = None
) -> NativeTree:
    """Return what a session keeps of the host's directory.

    Args:
        directory: Where the host has it, ``/cvmfs``.
        wanted: Names that the session needs. Of these only what can be read is in the
            answer; in place of the others something better can be mounted.
        table: What is mounted; read if it is not given.
    """
    if os.path.islink(directory):
        directory = os.path.realpath(directory)
    if not os.path.isdir(directory):
        return NO_NATIVE
    try:
        mounts = _mounts_at(directory, read_mount_table() if table is None else table)
    except NamespaceError as error:
        log.debug("the host's %s is not looked at: %s", directory, error)
        return NO_NATIVE
    entries = _list(directory, mounts)
    doubtful = [name for name in wanted if name in entries]
    usable = _find_usable(directory, doubtful, mounts.below)
    for name in doubtful:
        if name not in usable:
            del entries[name]
    return NativeTree(
        directory,
        tuple(entries[name] for name in sorted(entries)),
        is_automounted=mounts.fstype == _AUTOFS,
    )


def keep_mounted(tree: NativeTree) -> tuple[int, ...]:
    """Keep an automounter from unmounting what is shown, while the answer is open.

    It would unmount it on the host alone: the server would run on for the session, and
    a second one could not start beside it.
    """
    if not tree.is_automounted:
        return ()
    held = []
    for entry in tree.entries:
        try:
            flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
            held.append(os.open(f"{tree.directory}/{entry.name}", flags))
        except OSError as error:
            log.debug("%s is not kept mounted: %s", entry.name, error.strerror)
    return tuple(held)


class _Mounts(NamedTuple):
    """What is mounted at and below a directory.

    Attributes:
        fstype: What is mounted on the directory itself; empty if nothing is.
        below: Names of entries that have a file system mounted on them.
    """

    fstype: str
    below: frozenset[str]


def _mounts_at(directory: str, table: Iterable[Mount]) -> _Mounts:
    """Pick what can be seen: of several mounts at one place, the topmost."""
    prefix = directory.rstrip("/") + "/"
    at_or_below = [
        mount
        for mount in table
        if mount.mountpoint == directory or mount.mountpoint.startswith(prefix)
    ]
    top = _topmost([one for one in at_or_below if one.mountpoint == directory])
    by_name: dict[str, list[Mount]] = {}
    for mount in at_or_below:
        name = mount.mountpoint[len(prefix) :]
        if name and "/" not in name:
            by_name.setdefault(name, []).append(mount)
    below = set()
    for name, stack in by_name.items():
        numbers = {mount.number for mount in stack}
        bottoms = {mount.parent for mount in stack} - numbers
        if top is not None and top.number not in bottoms:
            continue  # covered by what is mounted on the directory
        seen = _topmost(stack)
        if seen is not None and seen.fstype != _AUTOFS:
            below.add(name)
    return _Mounts(top.fstype if top else "", frozenset(below))


def _topmost(stack: list[Mount]) -> Mount | None:
    covered = {mount.parent for mount in stack}
    return next((one for one in reversed(stack) if one.number not in covered), None)


def _list(directory: str, mounts: _Mounts) -> dict[str, RootEntry]:
    entries = {name: RootEntry(name, EntryKind.DIRECTORY) for name in mounts.below}
    if not mounts.fstype:
        # A directory of the root file system; without that nothing would work.
        listing: Collection[RootEntry] = _read_or_nothing(directory)
    elif mounts.fstype == _AUTOFS:
        listing = ()
    else:
        answer = ask({directory: lambda: _write(read_entries(directory))})[directory]
        listing = _read(answer)
    entries.update((entry.name, entry) for entry in listing)
    return entries


def _read_or_nothing(directory: str) -> tuple[RootEntry, ...]:
    try:
        return read_entries(directory)
    except OSError as error:
        log.debug("%s cannot be listed: %s", directory, error.strerror)
        return ()


def _find_usable(
    directory: str, names: Iterable[str], mounted: Collection[str]
) -> set[str]:
    """Return which of these can be read, and hold something."""
    questions = {
        name: partial(_try, f"{directory}/{name}", name in mounted) for name in names
    }
    answers = ask(questions)
    return {name for name, answer in answers.items() if answer == _USABLE}


def _try(path: str, is_mounted: bool) -> bytes:  # noqa: FBT001 -- called above only
    # The kernel may still know attributes and a listing of a dead server.
    os.statvfs(path)
    with os.scandir(path) as entries:
        # An empty directory is a mount point that waits, or nothing at all.
        return _USABLE if next(entries, None) is not None or is_mounted else b""


def _write(entries: Iterable[RootEntry]) -> bytes:
    fields: list[str] = []
    for entry in entries:
        fields += (entry.name, entry.kind.value, entry.points_to)
    return os.fsencode("\0".join(fields))


def _read(answer: bytes) -> list[RootEntry]:
    fields = os.fsdecode(answer).split("\0") if answer else []
    return [
        RootEntry(name, EntryKind(kind), points_to)
        for name, kind, points_to in zip(*[iter(fields)] * 3, strict=True)
    ]
