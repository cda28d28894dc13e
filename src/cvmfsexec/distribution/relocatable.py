"""Archives of a relocatable CPython, as the project python-build-standalone makes them.

Those called ``install_only``::

    python/bin/python3.11
    python/lib/python3.11/…       modules; shared objects among them in lib-dynload
    python/lib/lib….so…           libraries that only it has

Of such an archive no more is written to a disk than goes into a bundle.
"""

import os
import re
from typing import TYPE_CHECKING, NamedTuple

from cvmfsexec.distribution.interpreter import Interpreter
from cvmfsexec.distribution.library_files import libraries_among
from cvmfsexec.errors import FormatError
from cvmfsexec.format.archive import ArchiveEntry, EntryKind
from cvmfsexec.format.compression import decompress
from cvmfsexec.format.tar import parse_tar

if TYPE_CHECKING:
    from collections.abc import Iterator

ARCHIVE_BYTES_MAX = 256 << 20
_UNPACKED_BYTES_MAX = 768 << 20
"""Four times what such an archive holds with the symbols of debuggers."""

_PROGRAM = re.compile(rb"python/bin/python(3\.[0-9]{1,3})")
_LIBRARY = re.compile(rb"python/lib/([^/]+\.so[^/]*)")


class InterpreterArchive(NamedTuple):
    """What a bundle takes out of an archive.

    Attributes:
        version: Such as ``3.11``.
        program: The interpreter.
        modules: Contents by path below ``python/lib``.
        libraries: Contents by name.
    """

    version: str
    program: bytes
    modules: dict[str, bytes]
    libraries: dict[str, bytes]


def parse_interpreter_archive(data: bytes) -> InterpreterArchive:
    """Read an archive.

    Raises:
        FormatError: It is none, of another layout, damaged, or too much.
        ConfigurationError: A library for its compression is missing.
    """
    entries = parse_tar(decompress(data, _UNPACKED_BYTES_MAX))
    version, program = _program(entries)
    modules = dict(_modules(entries, f"python/lib/python{version}/".encode()))
    if f"python{version}/os.py" not in modules:
        raise _strange(f"python/lib/python{version}/os.py")
    return InterpreterArchive(
        version, program, modules, libraries_among(entries, _LIBRARY)
    )


def unpack_interpreter(archive: InterpreterArchive, directory: str) -> Interpreter:
    """Write an interpreter to an empty directory.

    Raises:
        OSError: It cannot be written.
    """
    name = f"python{archive.version}"
    program = os.path.join(directory, "bin", name)
    write_file(program, archive.program)
    lib = os.path.join(directory, "lib")
    for path, content in (*archive.modules.items(), *archive.libraries.items()):
        write_file(os.path.join(lib, path), content)
    modules = os.path.join(lib, name)
    extensions = os.path.join(modules, "lib-dynload")
    os.makedirs(extensions, exist_ok=True)  # everything may be in the program
    return Interpreter(program, modules, extensions, f"lib/{name}", (lib,))


def write_file(path: str, content: bytes) -> None:
    """Write a file that is not there, and directories for it.

    Raises:
        OSError: It cannot be written.
    """
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "xb") as stream:
        stream.write(content)


def _program(entries: tuple[ArchiveEntry, ...]) -> tuple[str, bytes]:
    found = [
        (match[1].decode(), entry.content)
        for entry in entries
        if entry.kind is EntryKind.FILE and (match := _PROGRAM.fullmatch(entry.path))
    ]
    if len(found) != 1:
        raise _strange("python/bin/python3.N")
    return found[0]


def _modules(
    entries: tuple[ArchiveEntry, ...], top: bytes
) -> "Iterator[tuple[str, bytes]]":
    for entry in entries:
        is_wanted = entry.path.startswith(top) and entry.path.endswith((b".py", b".so"))
        if is_wanted and entry.kind is EntryKind.FILE:
            path = os.fsdecode(entry.path.removeprefix(b"python/lib/"))
            yield path, entry.content


def _strange(missing: str) -> FormatError:
    return FormatError(
        f"there is no {missing} in it",
        hint="take one that is called install_only, or install_only_stripped",
    )
