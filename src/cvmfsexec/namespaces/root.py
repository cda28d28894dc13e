"""The private root: what will be in it, and how it is built.

The old root's entries are all bound into a tmpfs of our own, except what the session
has in its place: ``/cvmfs`` and other first components of its mount points, and
``/proc`` where there is a pid namespace. What the host has below ``/cvmfs`` is bound
there, beside our own (``native``). First the plan is made, as a list of steps that can
be printed; then it is carried out.

The root is built aside and swapped in by one system call. Until then, file servers
that were started before may go on importing modules from the old one.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from types import MappingProxyType
from typing import NamedTuple

from cvmfsexec.errors import NamespaceError
from cvmfsexec.namespaces.fuse_mount import TryFuse
from cvmfsexec.namespaces.steps import (
    BindElsewhere,
    BindFile,
    BindTree,
    MakeDirectory,
    MakeLink,
    MakeReadOnly,
    MakeWritable,
    MountProc,
    ReceiveOnly,
    ShowMount,
    StackRoot,
    Step,
    SwapRoot,
)

CVMFS = "cvmfs"
SCRATCH = "/e2fs"
"""Where a scratch image is mounted; the one mount point that is at the top."""


class EntryKind(Enum):
    """What an entry of the old root is, as far as it matters for showing it."""

    DIRECTORY = "directory"
    LINK = "link"
    OTHER = "other"


class RootEntry(NamedTuple):
    """An entry of the old root.

    Attributes:
        points_to: The text of a link; empty for the others.
    """

    name: str
    kind: EntryKind
    points_to: str = ""


class NativeTree(NamedTuple):
    """What the host has below ``/cvmfs`` and the session shows.

    Attributes:
        directory: Where the host has it; links are resolved.
        entries: What is shown of it.
        is_automounted: An automounter rules there.
    """

    directory: str = ""
    entries: tuple[RootEntry, ...] = ()
    is_automounted: bool = False

    @property
    def names(self) -> frozenset[str]:
        """Names of all that is shown."""
        return frozenset(entry.name for entry in self.entries)


NO_NATIVE = NativeTree()


class RootPlan(NamedTuple):
    """Steps to a private root.

    Attributes:
        foundation: First steps. They show whether the namespaces can be used at all.
        building: The rest; at its end the root stands.
    """

    foundation: tuple[Step, ...]
    building: tuple[Step, ...]


def read_entries(directory: str = "/") -> tuple[RootEntry, ...]:
    """List a directory, the root by default, dot files and all.

    The kind comes with the listing, so that no automounter is awakened and no dead
    file server is asked.
    """
    with os.scandir(directory) as entries:
        return tuple(sorted(_describe_entry(entry) for entry in entries))


def plan_root(
    entries: Iterable[RootEntry],
    mountpoints: Iterable[str],
    *,
    has_new_proc: bool,
    native: NativeTree = NO_NATIVE,
    shown: Mapping[str, str] = MappingProxyType({}),
    tries_fuse: bool = False,
) -> RootPlan:
    """Plan the private root.

    Args:
        entries: What the old root has.
        mountpoints: Absolute paths of directories to be made for file systems of the
            session; at least two components, like ``/cvmfs/atlas.cern.ch``.
        has_new_proc: There is a pid namespace, and ``/proc`` is to show it.
        native: What of the host's ``/cvmfs`` is shown beside them.
        shown: By mount point, where the host has the mount that is shown there.
        tries_fuse: File servers will mount, so find out early whether they can.

    Raises:
        NamespaceError: A mount point is not such a path.
    """
    own_directories = list_own_directories(mountpoints)
    hidden = {path for path in own_directories if "/" not in path}
    foundation: list[Step] = [ReceiveOnly(), StackRoot()]
    if tries_fuse:
        foundation.insert(1, TryFuse())
    if has_new_proc:
        foundation.append(MountProc("proc"))
        hidden.add("proc")
    building = [
        _show(entry, f"/{entry.name}", entry.name)
        for entry in entries
        if entry.name not in hidden
    ]
    building += [MakeDirectory(path) for path in own_directories]
    building += [
        _show(entry, f"{native.directory}/{entry.name}", f"{CVMFS}/{entry.name}")
        for entry in native.entries
        if f"{CVMFS}/{entry.name}" not in own_directories
    ]
    building += [
        ShowMount(source, mountpoint[1:]) for mountpoint, source in shown.items()
    ]
    building += [SwapRoot(covers_trial=tries_fuse), MakeReadOnly()]
    return RootPlan(tuple(foundation), tuple(building))


def plan_binds(binds: Sequence[BindElsewhere]) -> tuple[Step, ...]:
    """Plan what is shown at second places, once everything else is mounted.

    The root is writable meanwhile; nobody is there yet who could make use of it.
    """
    return (MakeWritable(), *binds, MakeReadOnly()) if binds else ()


def list_own_directories(mountpoints: Iterable[str]) -> list[str]:
    """Return the directories to make, relative to the root, parents first, each once.

    Raises:
        NamespaceError: A mount point is not an absolute, plain path below one of them.
    """
    paths = {CVMFS: None}
    for mountpoint in mountpoints:
        before_first, *parts = mountpoint.split("/")
        is_scratch = mountpoint == SCRATCH
        if (
            before_first
            or (len(parts) < 2 and not is_scratch)
            or not {"", ".", ".."}.isdisjoint(parts)
        ):
            raise NamespaceError(f"{mountpoint!r} cannot be a mount point")
        for end in range(1, len(parts) + 1):
            paths["/".join(parts[:end])] = None
    return list(paths)


def perform(steps: Iterable[Step]) -> None:
    """Carry out steps in order.

    Raises:
        NamespaceError: The kernel refused one; what was done so far stays done, and
            goes away with the namespace.
    """
    umask = os.umask(0o022)
    try:
        for step in steps:
            _perform_one(step)
    finally:
        os.umask(umask)


def _perform_one(step: Step) -> None:
    try:
        step.perform()
    except OSError as error:
        raise NamespaceError(
            f"cannot {step.describe()}: {error.strerror}", errno=error.errno or 0
        ) from error


def _describe_entry(entry: os.DirEntry[str]) -> RootEntry:
    try:
        if entry.is_symlink():
            return RootEntry(entry.name, EntryKind.LINK, os.readlink(entry.path))
        if entry.is_dir(follow_symlinks=False):
            return RootEntry(entry.name, EntryKind.DIRECTORY)
    except OSError:
        # Not even its kind can be told. Most likely a directory, and an empty one in
        # its place is what fits best when it cannot be bound either.
        return RootEntry(entry.name, EntryKind.DIRECTORY)
    return RootEntry(entry.name, EntryKind.OTHER)


def _show(entry: RootEntry, source: str, target: str) -> Step:
    if entry.kind is EntryKind.LINK:
        return MakeLink(target, entry.points_to)
    if entry.kind is EntryKind.DIRECTORY:
        return BindTree(source, target)
    return BindFile(source, target)
