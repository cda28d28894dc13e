"""Make a dist: get packages, believe them, write their configuration.

Nothing is written before everything is there and checked.
"""

import hashlib
import os
from typing import TYPE_CHECKING, NamedTuple

from cvmfsexec.distribution import sources, tree
from cvmfsexec.distribution.downloads import (
    Means,
    download,
    no_room,
    read_file,
    unreadable,
)
from cvmfsexec.distribution.package_signature import check_signature
from cvmfsexec.distribution.trusted_keys import TrustedKey, check_pins, trusted_keys
from cvmfsexec.errors import (
    ConfigurationError,
    FormatError,
    IntegrityError,
    TransferError,
)
from cvmfsexec.format.archive import ArchiveEntry, EntryKind
from cvmfsexec.format.directory_listing import LISTING_BYTES_MAX, packages_in_listing
from cvmfsexec.format.package import PACKAGE_BYTES_MAX, Package, parse_package

if TYPE_CHECKING:
    from collections.abc import Iterator

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
    """

    configuration: str
    dist: str
    machine_type: "MachineType"
    is_for_singularity: bool = False
    places: tuple["Place", ...] = ()
    pins: frozenset[str] | None = None
    gpg_key: str = ""


class Found(NamedTuple):
    """A package that is whole, and has a configuration.

    Attributes:
        origin: Where it was.
        package: What it is.
        sha256: Of the file.
        configuration: What it has below ``etc/cvmfs``.
        keys: Master keys in it.
    """

    origin: str
    package: Package
    sha256: str
    configuration: tuple[ArchiveEntry, ...]
    keys: tuple[TrustedKey, ...]


def find_packages(order: Order, means: Means) -> tuple[Found, ...]:
    """Return the packages whose configuration the dist will have.

    Of a named configuration there is one package, from the first place that has it.
    For ``none`` all packages of all given places count.

    Raises:
        CvmfsError: There is none, or not the right one; a dist is there.
    """
    if os.path.lexists(order.dist):
        raise tree.already_exists(order.dist)
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
            check_pins(name, found.sha256, found.keys, order.pins)


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
    yield b".cvmfsexecdist", f"disttype: {kind}\nmachtype: {machine}\n".encode()


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
                _judge(order, candidate, _get(candidate, means))
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
    if place.is_remote and place.url.endswith("/"):
        names = list(packages_in_listing(_listing(place.url, means)))
        newest = sources.newest_packages(names, _wanted(order))
        return [sources.Place(url=place.url + _escaped(name)) for name in newest]
    if not place.is_remote and os.path.isdir(place.path):
        try:
            names = os.listdir(place.path)
        except OSError as error:
            raise unreadable(place, error) from error
        newest = sources.newest_packages(names, _wanted(order))
        return [sources.Place(path=os.path.join(place.path, name)) for name in newest]
    return [place]


def _get(place: "Place", means: Means) -> bytes:
    """Return the bytes of a package, which are whole as far as it can tell."""
    if not place.is_remote:
        return read_file(place, PACKAGE_BYTES_MAX)
    kept = means.store.read(place.url)
    if kept is not None:
        try:
            parse_package(kept)
        except (FormatError, IntegrityError):
            means.store.forget(place.url)
        else:
            return kept
    return _downloaded(place, means)


def _downloaded(place: "Place", means: Means) -> bytes:
    """Download a package; once more if what was resumed turns out to be bad."""
    if not sources.is_lasting_name(place.url.rpartition("/")[2]):
        means.store.forget_part(place.url)
        return download(place.url, means, PACKAGE_BYTES_MAX)
    data = download(place.url, means, PACKAGE_BYTES_MAX)
    try:
        parse_package(data)
    except (FormatError, IntegrityError):
        means.store.forget_part(place.url)
        data = download(place.url, means, PACKAGE_BYTES_MAX)
        parse_package(data)
    means.store.keep(place.url, data)
    return data


def _listing(url: str, means: Means) -> bytes:
    """Download the page of a directory."""
    import tempfile

    try:
        with tempfile.TemporaryFile() as page:
            means.downloader.download(url, page, LISTING_BYTES_MAX)
            page.seek(0)
            return page.read()
    except OSError as error:
        raise no_room(url, error) from error


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


def _escaped(name: str) -> str:
    from urllib.parse import quote

    return quote(name)
