"""Find the packages of the original client, one for each of its parts.

Places are searched part by part, because they need not be at one: libfuse comes from
the operating system. A place may also be a package itself; what it is called inside
counts then.
"""

import hashlib
from typing import TYPE_CHECKING, NamedTuple

from cvmfsexec.distribution.client_packages import (
    PARTS,
    newest_part,
    official_places,
    programs_of,
)
from cvmfsexec.distribution.downloads import Means, names_at, read_package
from cvmfsexec.distribution.sources import Place
from cvmfsexec.errors import (
    DistributionError,
    FormatError,
    IntegrityError,
    TransferError,
)
from cvmfsexec.format.elf import parse_elf
from cvmfsexec.format.package import Package, parse_package

if TYPE_CHECKING:
    from cvmfsexec.distribution.machine_types import MachineType
    from cvmfsexec.format.archive import ArchiveEntry

_PROGRAM = b"usr/bin/cvmfs2"
_OF_ONE_VERSION = ("cvmfs", "cvmfs-libs", "cvmfs-fuse3")


class Wish(NamedTuple):
    """Which client is wanted.

    Attributes:
        machine: For what.
        version: Of the client; empty for the newest.
        places: Where to look instead of the official places.
    """

    machine: "MachineType"
    version: str = ""
    places: tuple[Place, ...] = ()


class FoundPart(NamedTuple):
    """The package for one part.

    Attributes:
        origin: Where it was.
        package: What it is.
        sha256: Of the file.
        programs: What is taken of it, with paths in a dist.
    """

    origin: str
    package: Package
    sha256: str
    programs: "tuple[ArchiveEntry, ...]"


def find_client(wish: Wish, means: Means) -> tuple[FoundPart, ...]:
    """Return a package for each part.

    Raises:
        CvmfsError: One is not to be had, malformed, or for another machine.
    """
    official = tuple(Place(url=url) for url in official_places(wish.machine))
    search = _Search(wish, means, wish.places or official)
    found = {part: search.find(part) for part in PARTS}
    versions = {
        found[part].package.version.partition("-")[0] for part in _OF_ONE_VERSION
    }
    if len(versions) > 1:
        raise DistributionError(
            "the packages of the original client are of different versions: "
            + ", ".join(sorted(versions)),
            hint="choose one with -v VERSION",
        )
    _check_machine(found["cvmfs"], wish.machine)
    return tuple(found.values())


def is_client_package(place: Place, means: Means) -> bool:
    """Whether a place is itself a package of the client.

    Raises:
        CvmfsError: It is a package that is at hand, and cannot be read.
    """
    if names_at(place, means) is not None:
        return False
    names = {name for names in PARTS.values() for name in names}
    return parse_package(read_package(place, means)).name in names


class _Search:
    """Places, and what is known about them."""

    def __init__(self, wish: Wish, means: Means, places: tuple[Place, ...]) -> None:
        self._wish = wish
        self._means = means
        self._places = places
        self._names: dict[Place, list[str] | None] = {}
        self._failures: dict[Place, tuple[str, ...]] = {}

    def find(self, part: str) -> FoundPart:
        """Return the package for a part, from the first place that has it."""
        tried: list[str] = []
        for place in self._places:
            if place in self._failures:
                tried += self._failures[place]
                continue
            try:
                found = self._at(place, part)
            except TransferError as error:
                self._failures[place] = error.routes or (f"{place}: {error}",)
                tried += self._failures[place]
                continue
            except (FormatError, IntegrityError) as error:
                raise type(error)(f"{place}: {error}", hint=error.hint) from error
            if found is not None:
                return found
            tried.append(
                f"{place}: no package {' or '.join(PARTS[part])} for "
                f"{self._wish.machine} there"
            )
        version = f" {self._wish.version}" if self._wish.version else ""
        raise TransferError(
            f"no package {part}{version} of the original client for "
            f"{self._wish.machine} could be had",
            routes=tuple(tried),
            hint="give the packages cvmfs, cvmfs-libs, cvmfs-fuse3 and fuse3-libs with "
            "--from: files, or a directory; see https://cernvm.cern.ch/fs/",
        )

    def _at(self, place: Place, part: str) -> FoundPart | None:
        if place not in self._names:
            self._names[place] = names_at(place, self._means)
        names = self._names[place]
        if names is not None:
            name = newest_part(names, part, self._wish.machine, self._wish.version)
            if not name:
                return None
            place = place.below(name)
        data = read_package(place, self._means)
        package = parse_package(data)
        if package.name not in PARTS[part]:
            return None
        sha256 = hashlib.sha256(data).hexdigest()
        return FoundPart(str(place), package, sha256, programs_of(package.entries))


def _check_machine(found: FoundPart, machine: "MachineType") -> None:
    program = next((one for one in found.programs if one.path == _PROGRAM), None)
    if program is None:
        raise FormatError(f"{found.origin} has no {_PROGRAM.decode()}")
    try:
        architecture = parse_elf(program.content).machine
    except FormatError as error:
        message = f"{found.origin}: {_PROGRAM.decode()} is no program: {error}"
        raise FormatError(message) from error
    if architecture != machine.architecture:
        raise DistributionError(
            f"{found.origin} is for {architecture}, not for {machine.architecture}"
        )
