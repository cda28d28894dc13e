"""What a file for a certain interpreter, perhaps of another architecture, is made of.

The interpreter is an archive that the user names, dynamic loader and libc are packages
of a distribution for the same architecture, and what we import are wheels for it.
Nothing of it is ever run here.
"""

import os
import re
from typing import TYPE_CHECKING, NamedTuple

from cvmfsexec.distribution import relocatable, wheels
from cvmfsexec.distribution.bundle import installed_packages, required_packages
from cvmfsexec.distribution.downloads import Means, read_checked, read_package
from cvmfsexec.distribution.interpreter import Interpreter, Source, running_version
from cvmfsexec.distribution.library_files import libraries_among
from cvmfsexec.errors import DistributionError, FormatError, IntegrityError
from cvmfsexec.format.elf import MAGIC, parse_elf
from cvmfsexec.format.package import parse_package

if TYPE_CHECKING:
    from cvmfsexec.distribution.sources import Place

LIBRARY = re.compile(
    rb"(?:usr/)?lib(?:64)?/(?:[a-z0-9_]+-linux-gnu[a-z0-9_]*/)?([^/]+\.so[^/]*)"
)
"""Where packages have shared libraries; the group is the name."""

_LIBC = "libc.so.6"
_LIBC_VERSION = re.compile(rb"GNU C Library [^\n]{0,200}version 2\.([0-9]{1,3})\b")


class Target(NamedTuple):
    """For what a file is to be.

    Attributes:
        architecture: As ``uname -m`` has it.
        host: That of this machine.
        python: Archive of a relocatable Python.
        libraries: Packages with dynamic loader, libc and what else is missing; may be
            none for this machine's architecture, whose own are taken then.
    """

    architecture: str
    host: str
    python: "Place"
    libraries: tuple["Place", ...] = ()


def prepare(target: Target, means: Means, directory: str) -> Source:
    """Get everything, check what it is for, and unpack it.

    Args:
        target: What is wanted.
        means: How it is got.
        directory: Empty; everything is unpacked there.

    Raises:
        CvmfsError: Something cannot be had, is malformed, or for something else.
    """
    if target.architecture != target.host and not target.libraries:
        raise DistributionError(
            f"a file for {target.architecture} needs the libc of a system of that "
            "architecture",
            hint="give its packages with --libc, on Debian: apt-get download "
            "libc6:ARCHITECTURE libgcc-s1:ARCHITECTURE (docs/reference/makedist.md)",
        )
    try:
        interpreter = _interpreter(target, means, os.path.join(directory, "python"))
        if not target.libraries:
            return Source(interpreter, tuple(installed_packages()))
        root = os.path.join(directory, "system")
        glibc_minor = _write_libraries(target, means, root)
        interpreter = interpreter._replace(root=root)
        if target.architecture == target.host:
            return Source(interpreter, tuple(installed_packages()))
        platform = wheels.Platform(target.architecture, running_version(), glibc_minor)
        return Source(interpreter, _wheels(platform, os.path.join(directory, "wheels")))
    except OSError as error:
        message = f"cannot unpack to {directory}: {error.strerror}"
        raise DistributionError(message) from error


def _interpreter(target: Target, means: Means, directory: str) -> Interpreter:
    place = target.python
    parse = relocatable.parse_interpreter_archive
    try:
        archive = parse(
            read_checked(place, means, relocatable.ARCHIVE_BYTES_MAX, parse)
        )
        machine = parse_elf(archive.program).machine
    except FormatError as error:
        message = f"{place} is no archive of a relocatable Python: {error}"
        raise FormatError(message, hint=error.hint) from error
    if machine != target.architecture:
        raise DistributionError(
            f"{place} has a Python for {machine}, not for {target.architecture}"
        )
    if archive.version != running_version():
        raise DistributionError(
            f"{place} has Python {archive.version}, and modules are compiled by "
            f"{running_version()} here",
            hint=f"take an archive of Python {running_version()}, or run makedist by "
            f"Python {archive.version}",
        )
    return relocatable.unpack_interpreter(archive, directory)


def _write_libraries(target: Target, means: Means, root: str) -> int:
    """Write libraries to a root; return the minor version of its glibc."""
    glibc_minor = None
    known: set[str] = set()
    for place in target.libraries:
        for name, content in _libraries(target, place, means).items():
            if name == _LIBC and (match := _LIBC_VERSION.search(content)):
                glibc_minor = int(match[1])
            if name not in known:
                known.add(name)
                relocatable.write_file(os.path.join(root, "lib", name), content)
    if glibc_minor is None:
        raise DistributionError(
            f"no package given by --libc has the {_LIBC} of glibc",
            hint="it is in libc6 of Debian, in glibc of Red Hat and SUSE",
        )
    return glibc_minor


def _libraries(target: Target, place: "Place", means: Means) -> dict[str, bytes]:
    try:
        package = parse_package(read_package(place, means))
    except (FormatError, IntegrityError) as error:
        raise type(error)(f"{place}: {error}", hint=error.hint) from error
    found = libraries_among(package.entries, LIBRARY)
    for name, content in list(found.items()):
        machine = machine_of(content)
        if not machine:
            del found[name]  # a script of the linker
        elif machine != target.architecture:
            raise DistributionError(
                f"{place} has {name} for {machine}, not for {target.architecture}"
            )
    if not found:
        raise DistributionError(f"{place} has no shared libraries")
    return found


def machine_of(content: bytes) -> str:
    """Return for which machine a program or library is; empty if it is neither."""
    if not content.startswith(MAGIC):
        return ""
    try:
        return parse_elf(content).machine
    except FormatError:
        return ""


def _wheels(platform: wheels.Platform, directory: str) -> tuple[tuple[str, str], ...]:
    downloaded = os.path.join(directory, "downloaded")
    os.makedirs(downloaded)
    requirements = required_packages(platform.architecture)
    packages: dict[str, str] = {}
    for wheel in wheels.download_wheels(requirements, platform, downloaded):
        with open(wheel, "rb") as stream:
            data = stream.read()
        try:
            entries = wheels.parse_wheel(data)
        except FormatError as error:
            raise FormatError(f"{os.path.basename(wheel)}: {error}") from error
        for entry in entries:
            path = os.fsdecode(entry.path)
            machine = machine_of(entry.content)
            if machine not in ("", platform.architecture):
                raise DistributionError(
                    f"{os.path.basename(wheel)} has {path} for {machine}, not for "
                    f"{platform.architecture}"
                )
            if path not in packages:
                packages[path] = os.path.join(directory, "unpacked", path)
                relocatable.write_file(packages[path], entry.content)
    return tuple(packages.items())
