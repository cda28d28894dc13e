"""Types of machines, as the original names them, e.g. ``rhel9-x86_64``.

Ours is one client for every operating system, so that only the architecture matters;
the names stay, because scripts name files after them.

Source: docs/reference/makedist.md, "Machine types".
"""

import re
from typing import TYPE_CHECKING, NamedTuple

from cvmfsexec.errors import DistributionError

if TYPE_CHECKING:
    from collections.abc import Mapping

_ARCHITECTURES = ("x86_64", "aarch64", "ppc64le")

MACHINE_TYPES = (
    "rhel7-x86_64",
    *(f"rhel{n}-{arch}" for n in (8, 9) for arch in _ARCHITECTURES),
    "rhel10-x86_64",
    "suse15-x86_64",
    "suse15-aarch64",
)
"""Those of the original, version 4.51."""

_HOSTS = {
    ("debian", "11"): ("rhel", "8"),
    ("debian", "12"): ("rhel", "9"),
    ("debian", "13"): ("rhel", "9"),
    ("ubuntu", "22"): ("rhel", "9"),
    ("ubuntu", "24"): ("rhel", "9"),
}
_LINE = re.compile(r"""([A-Z_]+)=["']?([A-Za-z0-9 ._-]*)["']?""")


class MachineType(NamedTuple):
    """What a distribution is made for.

    Attributes:
        family: Of the operating system.
        version: Its first number.
        architecture: As the kernel calls it.
    """

    family: str
    version: str
    architecture: str

    def __str__(self) -> str:
        return f"{self.family}{self.version}-{self.architecture}"


def machine_type_of(word: str) -> MachineType:
    """Return a type by its name.

    Raises:
        DistributionError: The original has no such type.
    """
    if word not in MACHINE_TYPES:
        raise DistributionError(
            f"{word} not a supported machine type",
            hint="supported types are: " + " ".join(MACHINE_TYPES),
        )
    system, _, architecture = word.partition("-")
    family = system.rstrip("0123456789")
    return MachineType(family, system.removeprefix(family), architecture)


def machine_type_of_host(os_release: str, architecture: str) -> MachineType:
    """Return the type of a machine; ``linux`` for systems that the original lacks.

    Args:
        os_release: Text of ``/etc/os-release``.
        architecture: What ``uname -m`` says.
    """
    fields = _fields(os_release)
    kinds = f"{fields.get('ID', '')} {fields.get('ID_LIKE', '')}".split()
    version = fields.get("VERSION_ID", "").partition(".")[0]
    known = _HOSTS.get((fields.get("ID", ""), version))
    if known:
        return MachineType(*known, architecture)
    family = next((kind for kind in ("rhel", "suse") if kind in kinds), "")
    if family and version.isdecimal():
        return MachineType(family, version, architecture)
    return MachineType("linux", "", architecture)


def _fields(os_release: str) -> "Mapping[str, str]":
    matches = map(_LINE.fullmatch, map(str.strip, os_release.splitlines()))
    return {match[1]: match[2] for match in matches if match}
