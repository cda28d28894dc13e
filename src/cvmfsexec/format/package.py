"""Software packages of either kind, and which of two versions is the newer one."""

import re
from typing import NamedTuple

from cvmfsexec.errors import FormatError
from cvmfsexec.format import deb, rpm
from cvmfsexec.format.archive import ArchiveEntry

PACKAGE_BYTES_MAX = 64 << 20

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._-]{0,127}")
_VERSION = re.compile(r"[A-Za-z0-9+._:~^-]{1,127}")
_VERSION_PART = re.compile(r"[0-9]{1,18}|[A-Za-z]{1,127}|[~^]")


class Package(NamedTuple):
    """A package that is whole.

    Attributes:
        name: Such as ``cvmfs-config-default``.
        version: Whatever its kind calls so.
        entries: What it would install.
        signatures: Of an RPM package, each of which speaks for all of it.
        is_rpm: Whether it is of that kind; else it is a Debian package.
    """

    name: str
    version: str
    entries: tuple[ArchiveEntry, ...]
    signatures: tuple[rpm.RpmSignature, ...] = ()
    is_rpm: bool = False


def parse_package(data: bytes) -> Package:
    """Read an RPM or Debian package; which it is, its first bytes say.

    Raises:
        FormatError: It is neither, malformed, or too much.
        IntegrityError: It is damaged.
        ConfigurationError: A library for its compression is missing.
    """
    if len(data) > PACKAGE_BYTES_MAX:
        raise FormatError(f"a package of more than {PACKAGE_BYTES_MAX} bytes")
    if data.startswith(rpm.MAGIC):
        package = Package(*rpm.parse_rpm(data), is_rpm=True)
    elif data.startswith(deb.MAGIC):
        package = Package(*deb.parse_deb(data))
    else:
        raise FormatError("this is neither an RPM nor a Debian package")
    if not _NAME.fullmatch(package.name) or not _VERSION.fullmatch(package.version):
        raise FormatError("a package has an unreasonable name or version")
    return package


def version_key(version: str) -> tuple[tuple[int, int, str], ...]:
    """Return what orders versions: numbers by value, ``~`` before the end.

    Between the versions of a package that are really there this is the order of both
    package managers.
    """
    end = (1, 0, "")
    return (*map(_rank, _VERSION_PART.findall(version)), end)


def _rank(part: str) -> tuple[int, int, str]:
    if part == "~":
        return (0, 0, "")
    if part.isdigit():
        return (4, int(part), "")
    return (2 if part == "^" else 3, 0, part)
