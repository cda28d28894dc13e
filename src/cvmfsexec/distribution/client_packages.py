"""The packages of the original client: what they are called, and what is taken of them.

Programs and libraries go to ``usr`` of a dist, wherever their packages have them.
"""

import re
from typing import TYPE_CHECKING, NamedTuple

from cvmfsexec import log
from cvmfsexec.format.archive import ArchiveEntry, EntryKind, check_entries
from cvmfsexec.format.package import version_key

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cvmfsexec.distribution.machine_types import MachineType

PARTS = {
    "cvmfs": ("cvmfs",),
    "cvmfs-libs": ("cvmfs-libs",),
    "cvmfs-fuse3": ("cvmfs-fuse3",),
    "fuse3-libs": ("fuse3-libs", "libfuse3-3", "libfuse3-4"),
}
"""What the client consists of, and the packages that may be it."""

_CLIENT_FROM = "https://cvmrepo.web.cern.ch/cvmrepo/yum/cvmfs/EL"
_LIBFUSE_FROM = "https://repo.almalinux.org/almalinux"
_DEBIAN_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "ppc64le": "ppc64el"}
_NAME = r"(?P<name>[a-z][a-z0-9]*(?:-[a-z][a-z0-9]*)*(?:-[0-9](?=_))?)"
_VERSION = r"(?P<version>[0-9][A-Za-z0-9.+~:%]*)"
_RELEASE = r"(?:-(?P<release>[A-Za-z0-9.+~_]+))?"
_FILE_NAMES = (
    re.compile(rf"{_NAME}-{_VERSION}{_RELEASE}\.(?P<machine>[a-z0-9_]+)\.rpm"),
    re.compile(rf"{_NAME}_{_VERSION}{_RELEASE}_(?P<machine>[a-z0-9]+)\.deb"),
)
_SYSTEM = re.compile(r"\.(el|sle|suse|fc)([0-9]+)")
_TAKEN = re.compile(rb"(?:usr/)?((?:bin|lib|lib64|libexec)/.+)")
_LEFT_OUT = re.compile(rb".*/\.build-id(/.*)?|.*/(systemd|udev|modules)/.*")
_TOP = b"usr/"


class FileName(NamedTuple):
    """What the name of a package's file says.

    Attributes:
        name: Of the package.
        version: Without release.
        release: May be empty; tells for which system it was built.
        machine: In the words of its kind.
    """

    name: str
    version: str
    release: str
    machine: str


def official_places(machine: "MachineType") -> tuple[str, ...]:
    """Return directories that are searched for all parts, best first."""
    if machine.family != "rhel":
        return ()
    number, architecture = machine.version, machine.architecture
    return (
        f"{_CLIENT_FROM}/{number}/{architecture}/",
        f"{_LIBFUSE_FROM}/{number}/BaseOS/{architecture}/os/Packages/",
        f"{_LIBFUSE_FROM}/{number}/AppStream/{architecture}/os/Packages/",
    )


def parse_file_name(name: str) -> FileName | None:
    """Return what a file's name says, if it is that of a package."""
    matches = (pattern.fullmatch(name) for pattern in _FILE_NAMES)
    match = next((one for one in matches if one is not None), None)
    if match is None:
        return None
    return FileName(
        match["name"], match["version"], match["release"] or "", match["machine"]
    )


def newest_part(
    names: "Iterable[str]", part: str, machine: "MachineType", version: str = ""
) -> str:
    """Return the file with the newest package for a part; empty if there is none.

    Args:
        names: Of files.
        part: One of ``PARTS``.
        machine: What it is for.
        version: The only one that counts, but for libfuse; empty for any.
    """
    best: tuple[object, str] | None = None
    for name in names:
        file = parse_file_name(name)
        if file is None or not _fits(file, part, machine, version):
            continue
        rank = (version_key(file.version), version_key(file.release))
        if best is None or rank > best[0]:  # type: ignore[operator]
            best = rank, name
    return best[1] if best else ""


def programs_of(entries: "Iterable[ArchiveEntry]") -> tuple[ArchiveEntry, ...]:
    """Return programs and libraries, with their paths in a dist.

    Links to what is elsewhere on a system are left out.

    Raises:
        FormatError: Two are to lie at one place.
    """
    taken = []
    for entry in entries:
        match = _TAKEN.fullmatch(entry.path)
        if match is None or _LEFT_OUT.fullmatch(match[1]):
            continue
        if entry.kind is EntryKind.DIRECTORY:
            continue  # each comes with what is in it
        moved = entry._replace(path=_TOP + match[1])
        if entry.kind is EntryKind.LINK:
            target = _target_in_dist(entry, moved)
            if not target:
                log.detail("left out: the link %s", entry.path.decode(errors="replace"))
                continue
            moved = moved._replace(target=target)
        taken.append(moved)
    check_entries(taken)
    return tuple(taken)


def _fits(file: FileName, part: str, machine: "MachineType", version: str) -> bool:
    if file.name not in PARTS[part]:
        return False
    architecture = machine.architecture
    if file.machine not in (architecture, _DEBIAN_MACHINES.get(architecture), "noarch"):
        return False
    if version and part != "fuse3-libs" and file.version != version:
        return False
    built = _SYSTEM.search(f".{file.release}")
    return (
        built is None
        or machine.family == "linux"
        or (
            built[1] == "el"
            and machine.family == "rhel"
            and built[2] == machine.version
        )
        or (built[1] in ("sle", "suse") and machine.family == "suse")
    )


def _target_in_dist(entry: ArchiveEntry, moved: ArchiveEntry) -> bytes:
    """Return where a link is to lead in a dist; empty if out of what is taken."""
    directory = entry.path.rpartition(b"/")[0]
    absolute = entry.target if entry.target.startswith(b"/") else b""
    path = _normal(absolute[1:] if absolute else directory + b"/" + entry.target)
    match = _TAKEN.fullmatch(path)
    if match is None or _LEFT_OUT.fullmatch(match[1]):
        return b""
    upwards = moved.path.count(b"/") - 1
    return b"../" * upwards + match[1]


def _normal(path: bytes) -> bytes:
    """Return a path without ``..``; empty if it leads out."""
    parts: list[bytes] = []
    for part in path.split(b"/"):
        if part == b"..":
            if not parts:
                return b""
            parts.pop()
        elif part not in (b"", b"."):
            parts.append(part)
    return b"/".join(parts)
