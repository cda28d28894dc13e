"""Make a dist: get packages, believe them, write their configuration.

Nothing is written before everything is there and checked.
"""

import hashlib
import os
from typing import TYPE_CHECKING, NamedTuple

from cvmfsexec.configuration.locate import DIST_CARD, ORIGINAL_CLIENT
from cvmfsexec.distribution import sources, tree
from cvmfsexec.distribution.downloads import Means, names_at, read_package
from cvmfsexec.distribution.package_signature import check_signature
from cvmfsexec.distribution.trusted_keys import TrustedKey, check_pins, trusted_keys
from cvmfsexec.errors import (
    ConfigurationError,
    FormatError,
    IntegrityError,
    TransferError,
)
from cvmfsexec.format.archive import ArchiveEntry, EntryKind
from cvmfsexec.format.package import Package, parse_package

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cvmfsexec.distribution.client_search import FoundPart
    from cvmfsexec.distribution.machine_types import MachineType
    from cvmfsexec.distribution.sources import Place

_WPAD = "http://grid-wpad/wpad.dat;http://wpad/wpad.dat"
_CERN_PAC = "http://cernvm-wpad.cern.ch/wpad.dat"
_FNAL_PAC = "http://cernvm-wpad.fnal.gov/wpad.dat"
_DIRECTORIES = (
    b"etc/cvmfs/config.d",
    b"etc/cvmfs/default.d",
    b"etc/cvmfs/domain.d",
    b"etc/cvmfs/keys",
    b"cvmfs",
    b"var/lib/cvmfs",
    b"var/run/cvmfs",
)
_NO_DEFAULTS = (
    b"# Defaults are built in; default.d, domain.d and config.d belong to packages.\n"
    b"# Settings of your own go to default.local.\n"
)


class Order(NamedTuple):
    """What to make.

    Attributes:
        configuration: One of ``sources.CONFIGURATIONS``.
        dist: Absolute path of the directory to make.
        machine_type: Only written down: the client is the same for all.
        is_for_singularity: Whether ``singcvmfs`` is to use it.
        places: Where to look instead of the official places.
        pins: The only packages and keys that are accepted; None for all.
        gpg_key: File with keys, one of which must have signed; empty for none.
        has_original_client: The original client goes into the dist.
        version: Of the original client; empty for the newest.
    """

    configuration: str
    dist: str
    machine_type: "MachineType"
    is_for_singularity: bool = False
    places: tuple["Place", ...] = ()
    pins: frozenset[str] | None = None
    gpg_key: str = ""
    has_original_client: bool = False
    version: str = ""


class Found(NamedTuple):
    """A package that is whole, and has a configuration or programs.

    Attributes:
        origin: Where it was.
        package: What it is.
        sha256: Of the file.
        configuration: What it has below ``etc/cvmfs``.
        keys: Master keys in it.
        programs: What it has of the original client, with paths in a dist.
    """

    origin: str
    package: Package
    sha256: str
    configuration: tuple[ArchiveEntry, ...]
    keys: tuple[TrustedKey, ...]
    programs: tuple[ArchiveEntry, ...] = ()


def find_packages(order: Order, means: Means) -> tuple[Found, ...]:
    """Return the packages whose configuration the dist will have.

    Of a named configuration there is one package, from the first place that has it.
    For ``none`` all packages of all given places count. The packages of the original
    client come after it.

    Raises:
        CvmfsError: There is none, or not the right one; a dist is there.
    """
    if os.path.lexists(order.dist):
        raise tree.already_exists(order.dist)
    if not order.has_original_client:
        return _find_configuration(order, means)
    from cvmfsexec.distribution import client_search

    wish = client_search.Wish(order.machine_type, order.version, order.places)
    parts = client_search.find_client(wish, means)
    others = tuple(
        place
        for place in order.places
        if not client_search.is_client_package(place, means)
    )
    client = tuple(map(_with_programs, parts))
    if order.configuration == "none":
        others = tuple(place for place in others if _has_packages(order, place, means))
    elif order.places and not others:
        raise _nothing(order, [])
    return (*_find_configuration(order._replace(places=others), means), *client)


def _find_configuration(order: Order, means: Means) -> tuple[Found, ...]:
    if order.configuration == "none":
        return tuple(
            found
            for place in order.places
            for found in _first_success(order, means, (place,))
        )
    places = order.places or sources.official_places(order.configuration)
    return tuple(_first_success(order, means, places))


def check(order: Order, packages: tuple[Found, ...]) -> None:
    """Refuse packages that are not what the user says that they must be.

    Raises:
        UntrustedPackageError: One is not signed as it should be, or not pinned.
        ConfigurationError: The key cannot be used.
    """
    for found in packages:
        package = found.package
        if order.gpg_key:
            check_signature(package, order.gpg_key)
        if order.pins is not None:
            name = f"{package.name} {package.version}"
            # Programs are trusted for themselves, whatever keys come with them.
            keys = () if found.programs else found.keys
            check_pins(name, found.sha256, keys, order.pins)


def write(order: Order, packages: tuple[Found, ...]) -> None:
    """Write the dist.

    Raises:
        FormatError: The packages contradict each other.
        DistributionError: It cannot be written, or is there already.
    """
    merged = tree.merge([found.configuration for found in packages])
    files = {
        tree.CONFIGURATION + entry.path: entry._replace(
            path=tree.CONFIGURATION + entry.path
        )
        for entry in merged
    }
    for entry in tree.merge([found.programs for found in packages]):
        files[entry.path] = entry
    files.setdefault(
        b"etc/cvmfs/default.conf", _file(b"etc/cvmfs/default.conf", _NO_DEFAULTS)
    )
    for path, content in _own_files(order):
        files[path] = _file(path, content)
    for path in _DIRECTORIES:
        entry = files.setdefault(path, ArchiveEntry(path, EntryKind.DIRECTORY))
        if entry.kind is EntryKind.FILE:
            raise FormatError(f"a package has a file where {path.decode()} should be")
    tree.write_dist(order.dist, tuple(files.values()))


def _own_files(order: Order) -> "Iterator[tuple[bytes, bytes]]":
    """Yield what the original writes itself, and as it does."""
    machine = order.machine_type
    pacs = (
        (_FNAL_PAC, _CERN_PAC)
        if order.configuration == "osg"
        else (
            _CERN_PAC,
            _FNAL_PAC,
        )
    )
    local = (
        f'CVMFS_HTTP_PROXY="auto;DIRECT"\nCVMFS_PAC_URLS="{_WPAD};{";".join(pacs)}"\n'
    )
    yield b"etc/cvmfs/default.local", local.encode()
    release = f'ID_LIKE="{machine.family}"\nVERSION_ID="{machine.version}"\n'
    yield b"etc/os-release", release.encode()
    kind = "sing" if order.is_for_singularity else "standard"
    card = f"disttype: {kind}\nmachtype: {machine}\n".encode()
    if order.has_original_client:
        card += ORIGINAL_CLIENT + b"\n"
    yield DIST_CARD.encode(), card


def _has_packages(order: Order, place: "Place", means: Means) -> bool:
    """Whether a place has packages with configuration; those of the client do not."""
    return bool(_candidates(order, place, means))


def _with_programs(part: "FoundPart") -> Found:
    configuration = tree.configuration_of(part.package.entries)
    keys = trusted_keys(configuration)
    origin, package, sha256, programs = part
    return Found(origin, package, sha256, configuration, keys, programs)


def _file(path: bytes, content: bytes) -> ArchiveEntry:
    return ArchiveEntry(path, EntryKind.FILE, content)


def _first_success(
    order: Order, means: Means, places: tuple["Place", ...]
) -> list[Found]:
    """Return the packages of the first place that has them whole."""
    tried: list[str] = []
    for place in places:
        try:
            found = [
                _judge(order, candidate, read_package(candidate, means))
                for candidate in _candidates(order, place, means)
            ]
        except TransferError as error:
            tried += error.routes or (f"{place}: {error}",)
        except (FormatError, IntegrityError) as error:
            if len(places) == 1:
                raise _of_place(error, place) from error
            tried.append(f"{place}: {error}")
        else:
            if found:
                return found
            tried.append(f"{place}: no such package there")
    raise _nothing(order, tried)


def _of_place(error: FormatError | IntegrityError, place: "Place") -> Exception:
    return type(error)(f"{place}: {error}", hint=error.hint)


def _nothing(order: Order, tried: list[str]) -> TransferError:
    what = (
        "no configuration package"
        if order.configuration == "none"
        else f"no package {sources.package_name(order.configuration)}"
    )
    site = sources.WHERE_TO_LOOK.get(order.configuration, "")
    look = "" if order.places or not site else f"; if it has moved, look at {site}"
    return TransferError(
        f"{what} could be had",
        routes=tuple(tried),
        hint=f"give a package that you have with --from FILE{look}; behind a proxy, "
        "set https_proxy",
    )


def _wanted(order: Order) -> str:
    """Return the package's name; empty if any will do."""
    if order.configuration == "none":
        return ""
    return sources.package_name(order.configuration)


def _candidates(order: Order, place: "Place", means: Means) -> list["Place"]:
    """Return packages by place."""
    names = names_at(place, means)
    if names is None:
        return [place]
    newest = sources.newest_packages(names, _wanted(order))
    return [place.below(name) for name in newest]


def _judge(order: Order, place: "Place", data: bytes) -> Found:
    """Take a package apart, and refuse it if it is not what it should be."""
    package = parse_package(data)
    wanted = _wanted(order)
    if wanted and package.name != wanted:
        error_class = FormatError if place.is_remote else ConfigurationError
        raise error_class(
            f"{place} is the package {package.name}, and not {wanted}",
            hint="use 'makedist none' for other packages",
        )
    sha256 = hashlib.sha256(data).hexdigest()
    configuration = tree.configuration_of(package.entries)
    if not configuration:
        raise FormatError(f"{place} has no files in /etc/cvmfs")
    keys = trusted_keys(configuration)
    return Found(str(place), package, sha256, configuration, keys)
