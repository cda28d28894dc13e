"""The shared libraries that programs need, found as their dynamic loader would.

Nothing is executed: the files say what they need, ``/etc/ld.so.conf`` and conventions
say where it lies.
"""

import glob
import os
from typing import TYPE_CHECKING, NamedTuple

from cvmfsexec.errors import DistributionError, FormatError
from cvmfsexec.format.elf import ElfFile, parse_elf

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_CONFIGURATION = "etc/ld.so.conf"
_USUAL = ("lib64", "usr/lib64", "lib", "usr/lib")
_INCLUDE_DEPTH_MAX = 4
_OPENED_LATER = ("libnss_files.so.2", "libnss_dns.so.2", "libgcc_s.so.1")
"""What libc opens only when it needs it; the first two are part of newer ones."""


class Libraries(NamedTuple):
    """What programs need.

    Attributes:
        loader: Path of the dynamic loader.
        loader_name: Name under which programs ask for it.
        by_name: Paths of libraries, by the name under which they are needed.
        machine: For which all of this is, as ``uname -m`` has it.
    """

    loader: str
    loader_name: str
    by_name: dict[str, str]
    machine: str


def find_libraries(
    program: str,
    modules: "Sequence[str]",
    *,
    root: str = "/",
    before: "Sequence[str]" = (),
) -> Libraries:
    """Find everything that a program and its extension modules need.

    Modules may need each other: wheels carry libraries, and know where they lie.

    Args:
        program: Path of the program.
        modules: Paths of shared objects that are carried along, and where they are.
        root: Where the system is.
        before: Directories that are searched before those of the system.

    Raises:
        DistributionError: Something is not there, or the program has no loader.
    """
    main = read_elf(program)
    if not main.interpreter:
        raise DistributionError(f"{program} is not linked to shared libraries")
    system = [*before, *_system_directories(root)]
    carried = {os.path.basename(path) for path in modules}
    loader_name = os.path.basename(main.interpreter)
    found: dict[str, str] = {}
    pending = [program, *modules]
    for path in pending:  # which grows
        elf = read_elf(path)
        own = [_expand(one, path) for one in elf.search_path]
        for name in elf.needed:
            if name in found or name in carried or name == loader_name:
                continue
            place = _find(name, [*own, *system], main)
            found[name] = place or _missing(name, path, root)
            pending.append(found[name])
    for name in _OPENED_LATER:
        if name not in found and (path := _find(name, system, main)):
            found[name] = path
    loader = os.path.join(root, main.interpreter.lstrip("/"))
    if not os.path.isfile(loader):
        loader = _find(loader_name, system, main) or _missing(
            loader_name, program, root
        )
    return Libraries(os.path.realpath(loader), loader_name, found, main.machine)


def read_elf(path: str) -> ElfFile:
    """Read what a file needs.

    Raises:
        DistributionError: It cannot be read, or is no program or library.
    """
    try:
        with open(path, "rb") as stream:
            return parse_elf(stream.read())
    except OSError as error:
        raise DistributionError(f"cannot read {path}: {error.strerror}") from error
    except FormatError as error:
        raise DistributionError(f"{path}: {error}") from error


def _missing(name: str, path: str, root: str) -> str:
    if root == "/":
        raise DistributionError(f"{path} needs {name}, which is not there")
    raise DistributionError(
        f"{os.path.basename(path)} needs {name}, which is not there",
        hint="give the package that has it with --libc as well",
    )


def _expand(directory: str, path: str) -> str:
    origin = os.path.dirname(os.path.realpath(path))
    for token in ("$ORIGIN", "${ORIGIN}"):
        directory = directory.replace(token, origin)
    return os.path.normpath(directory)


def _find(name: str, directories: "Iterable[str]", like: ElfFile) -> str:
    """Return the first library of that name that is for the same machine."""
    for directory in directories:
        path = os.path.join(directory, name)
        if os.path.isfile(path):
            try:
                elf = read_elf(path)
            except DistributionError:
                continue  # a linker script, say
            if (elf.machine, elf.bits) == (like.machine, like.bits):
                return path
    return ""


def _system_directories(root: str) -> "Iterator[str]":
    yield from _configured(os.path.join(root, _CONFIGURATION), root, 0)
    for directory in _USUAL:
        yield os.path.join(root, directory)


def _configured(file: str, root: str, depth: int) -> "Iterator[str]":
    try:
        with open(file, encoding="utf-8", errors="surrogateescape") as stream:
            lines = stream.read().splitlines()
    except OSError:
        return
    for line in lines:
        words = line.partition("#")[0].split()
        if words[:1] == ["include"] and depth < _INCLUDE_DEPTH_MAX:
            for pattern in words[1:]:
                base = root if pattern.startswith("/") else os.path.dirname(file)
                for one in sorted(glob.glob(os.path.join(base, pattern.lstrip("/")))):
                    yield from _configured(one, root, depth + 1)
        elif words and words[0].startswith("/"):
            yield os.path.join(root, words[0].lstrip("/"))
