"""Files that are asked for by URL, and those that are at hand: the same to a caller."""

from typing import TYPE_CHECKING, NamedTuple

from cvmfsexec.errors import ConfigurationError, DistributionError, FormatError

if TYPE_CHECKING:
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


def read_place(place: "Place", means: Means, limit_bytes: int) -> bytes:
    """Return the bytes of one file, wherever it is.

    Raises:
        ConfigurationError: It cannot be read.
        FormatError: It has more bytes.
        TransferError: It cannot be downloaded.
        DistributionError: There is no room for it.
    """
    if place.is_remote:
        means.store.forget_part(place.url)  # the URL may have another file by now
        return download(place.url, means, limit_bytes)
    data = read_file(place, limit_bytes)
    if len(data) > limit_bytes:
        raise FormatError(f"{place} has more than {limit_bytes} bytes")
    return data


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
