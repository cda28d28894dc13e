"""Where packages with configuration are: official places, a mirror, files at hand.

Configuration packages are for every architecture and operating system, so that the
newest of any place will do. A place whose URL ends in ``/`` is a directory; the newest
package of the wanted name in it counts.
"""

import os
import re
from typing import NamedTuple

from cvmfsexec.distribution.client_packages import parse_file_name
from cvmfsexec.errors import ConfigurationError
from cvmfsexec.format.package import version_key
from cvmfsexec.network.download import is_url

CONFIGURATIONS = ("default", "egi", "none", "osg")

_CERN = "https://ecsft.cern.ch/dist/cvmfs/cvmfs-config/"
_OSG = "https://repo.opensciencegrid.org/osg"
_EGI = "https://repository.egi.eu"

OFFICIAL: dict[str, tuple[str, ...]] = {
    "default": (
        _CERN,
        f"{_CERN}cvmfs-config-default-latest.noarch.rpm",
        f"{_CERN}cvmfs-config-default_latest_all.deb",
        "https://cvmrepo.web.cern.ch/cvmrepo/yum/cvmfs/EL/9/x86_64/",
    ),
    "osg": (
        f"{_OSG}/24-main/el9/release/x86_64/Packages/c/",
        f"{_OSG}/24-main/el8/release/x86_64/Packages/c/",
        f"{_OSG}/23-main/el9/release/x86_64/Packages/c/",
        f"{_OSG}/23-main/el9/release/x86_64/",
    ),
    "egi": (
        f"{_EGI}/repository/umd/5/al9/release/x86_64/",
        f"{_EGI}/sw/production/umd/5/al9/release/x86_64/",
        f"{_EGI}/sw/production/umd/4/centos7/x86_64/updates/",
        _CERN,
    ),
}
"""Places by configuration, best first."""

WHERE_TO_LOOK = {
    "default": "https://cernvm.cern.ch/fs/",
    "osg": "https://repo.opensciencegrid.org/",
    "egi": "https://repository.egi.eu/",
}
"""Where people learn that a place has moved."""

_ENDS = (".rpm", ".deb")
_FILE_NAME = re.compile(
    r"(?P<name>cvmfs-config-[a-z0-9]+(?:-[a-z]+)*)"
    r"(?:-(?P<rpm>[0-9][^/]*)\.noarch\.rpm|_(?P<deb>[0-9][^/]*)_all\.deb)"
)
_ARCHIVE_NAME = re.compile(r"[^/]*[0-9]+\.[0-9]+\.[0-9][^/]*\.tar\.[a-z]+")


class Place(NamedTuple):
    """A place that may have a package.

    Attributes:
        path: Of a local file or directory; empty for a URL.
        url: Of a package, or of a directory, which ends in ``/``.
    """

    path: str = ""
    url: str = ""

    @property
    def is_remote(self) -> bool:
        """Whether somebody has to be asked."""
        return bool(self.url)

    def below(self, name: str) -> "Place":
        """Return the place of a file in a directory."""
        if not self.is_remote:
            return Place(path=os.path.join(self.path, name))
        from urllib.parse import quote

        return Place(url=self.url + quote(name))

    def __str__(self) -> str:
        return self.url or self.path


def place_of(word: str) -> Place:
    """Return the place that a user means.

    Raises:
        ConfigurationError: A URL that is none, or a file that is not there.
    """
    scheme, separator, rest = word.partition("://")
    if is_url(word):
        is_package = word.endswith(_ENDS) or word.endswith("/")
        return Place(url=word if is_package else f"{word}/")
    if separator:
        if scheme.lower() != "file" or not rest.startswith("/"):
            raise ConfigurationError(
                f"{word} is no place for packages",
                hint="use https://, http://, file:/// or a path",
            )
        from urllib.parse import unquote

        word = unquote(rest)
    if not os.path.exists(word):
        raise ConfigurationError(f"{word or 'the empty name'} does not exist")
    return Place(path=os.path.abspath(word))


def place_of_file(word: str) -> Place:
    """Return the place of one file that a user means.

    Raises:
        ConfigurationError: A URL that is none, or a file that is not there.
    """
    place = place_of(word)
    if place.is_remote:
        return Place(url=word)
    if not os.path.isfile(place.path):
        raise ConfigurationError(f"{word} is not a file")
    return place


def official_places(configuration: str) -> tuple[Place, ...]:
    """Return where the packages of a configuration are published."""
    return tuple(Place(url=url) for url in OFFICIAL.get(configuration, ()))


def package_name(configuration: str) -> str:
    """Return what the package of a configuration is called."""
    return f"cvmfs-config-{configuration}"


def newest_packages(names: list[str], wanted: str) -> list[str]:
    """Return file names of the newest package of a name; of every name if empty.

    An RPM package is preferred, since it has digests of itself.
    """
    found: dict[str, tuple[object, str]] = {}
    for file_name in names:
        match = _FILE_NAME.fullmatch(file_name)
        if match is None or (wanted and match["name"] != wanted):
            continue
        version = (match["rpm"] or match["deb"]).partition("-")[0]
        rank = (version_key(version), bool(match["rpm"]), version_key(file_name))
        best = found.get(match["name"])
        if best is None or rank > best[0]:  # type: ignore[operator]
            found[match["name"]] = rank, file_name
    return sorted(file_name for _, file_name in found.values())


def is_lasting_name(file_name: str) -> bool:
    """Whether a file of this name stays as it is: it has a version in it."""
    patterns = (_FILE_NAME, _ARCHIVE_NAME)
    if any(pattern.fullmatch(file_name) for pattern in patterns):
        return True
    return parse_file_name(file_name) is not None
