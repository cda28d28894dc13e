"""Files that are asked for by URL, and those that are at hand: the same to a caller."""

import os
from typing import TYPE_CHECKING, NamedTuple

from cvmfsexec.distribution.sources import is_lasting_name
from cvmfsexec.errors import (
    ConfigurationError,
    DistributionError,
    FormatError,
    IntegrityError,
)
from cvmfsexec.format.directory_listing import LISTING_BYTES_MAX, packages_in_listing
from cvmfsexec.format.package import PACKAGE_BYTES_MAX, parse_package

if TYPE_CHECKING:
    from collections.abc import Callable

    from cvmfsexec.distribution.package_store import PackageStore
    from cvmfsexec.distribution.sources import Place
    from cvmfsexec.network.download import Downloader


class Means(NamedTuple):
    """How packages are got."""

    downloader: "Downloader"
    store: "PackageStore"


def download(url: str, means: Means, limit_bytes: int) -> bytes:
    """Download a file, or continue to.

    Raises:
        TransferError: It cannot be had.
        ObjectTooLargeError: It has more bytes.
        DistributionError: There is no room for it.
    """
    try:
        with means.store.open_part(url) as part:
            means.downloader.download(url, part, limit_bytes)
            part.seek(0)
            return part.read()
    except OSError as error:
        raise no_room(url, error) from error


def read_checked(
    place: "Place", means: Means, limit_bytes: int, check: "Callable[[bytes], object]"
) -> bytes:
    """Return the bytes of one file, wherever it is.

    What has a version in its name is kept, and so is a part of it.

    Args:
        place: Where it is.
        means: How it is got.
        limit_bytes: The file may have so many.
        check: Refuses by a FormatError or an IntegrityError what is not whole; a file
            that is at hand is left to the caller.

    Raises:
        ConfigurationError: It cannot be read.
        FormatError: It has more bytes; or what came is not whole.
        IntegrityError: What came is not whole.
        TransferError: It cannot be downloaded.
        DistributionError: There is no room for it.
    """
    if not place.is_remote:
        data = read_file(place, limit_bytes)
        if len(data) > limit_bytes:
            raise FormatError(f"{place} has more than {limit_bytes} bytes")
        return data
    kept = means.store.read(place.url, limit_bytes)
    if kept is not None:
        try:
            check(kept)
        except (FormatError, IntegrityError):
            means.store.forget(place.url)
        else:
            return kept
    if not is_lasting_name(place.url.rpartition("/")[2]):
        means.store.forget_part(place.url)
        return download(place.url, means, limit_bytes)
    return _download_to_keep(place.url, means, limit_bytes, check)


def read_package(place: "Place", means: Means) -> bytes:
    """Return the bytes of a package, which are whole as far as it can tell.

    Raises:
        CvmfsError: It cannot be had, or what came is damaged.
    """
    return read_checked(place, means, PACKAGE_BYTES_MAX, parse_package)


def names_at(place: "Place", means: Means) -> list[str] | None:
    """Return the names of the files in a directory; ``None`` if it is a file.

    Raises:
        CvmfsError: The directory cannot be read.
    """
    if place.is_remote:
        if not place.url.endswith("/"):
            return None
        return list(packages_in_listing(_listing(place.url, means)))
    if not os.path.isdir(place.path):
        return None
    try:
        return os.listdir(place.path)
    except OSError as error:
        raise unreadable(place, error) from error


def _download_to_keep(
    url: str, means: Means, limit_bytes: int, check: "Callable[[bytes], object]"
) -> bytes:
    """Download a file; once more if what was resumed turns out to be bad."""
    data = download(url, means, limit_bytes)
    try:
        check(data)
    except (FormatError, IntegrityError):
        means.store.forget_part(url)
        data = download(url, means, limit_bytes)
        check(data)
    means.store.keep(url, data)
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


def read_file(place: "Place", limit_bytes: int) -> bytes:
    """Return the bytes of a local file, and of a longer one one byte too many.

    Raises:
        ConfigurationError: It cannot be read.
    """
    try:
        with open(place.path, "rb") as stream:
            return stream.read(limit_bytes + 1)
    except OSError as error:
        raise unreadable(place, error) from error


def unreadable(place: "Place", error: OSError) -> ConfigurationError:
    """Return what to say of a place that is at hand, and yet is not."""
    return ConfigurationError(f"cannot read {place}: {error.strerror}")


def no_room(url: str, error: OSError) -> DistributionError:
    """Return what to say if what was downloaded cannot be put down."""
    return DistributionError(f"cannot write what comes from {url}: {error.strerror}")
