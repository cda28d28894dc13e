"""Collect what a self-extracting file carries: the runtime, and a dist.

::

    bin/python               the interpreter, which only the loader beside it can start
    bin/python3              starts it: sys.executable
    lib/                     dynamic loader, libc and all other shared libraries
    lib/python3.N/           the standard library, compiled and trimmed
    packages/                cvmfsexec and what it imports
    commands/                what is placed beside the runtime (settlement.py)
    launch                   what starts a command
    dist/                    the configuration

The source is the running interpreter, where it is installed, or what ``target`` has
unpacked.
"""

import os
import re
from typing import TYPE_CHECKING, NamedTuple

from cvmfsexec.distribution.bytecode import compile_module
from cvmfsexec.distribution.interpreter import (
    Interpreter,
    Source,
    running_interpreter,
)
from cvmfsexec.distribution.libraries import Libraries, find_libraries, read_elf
from cvmfsexec.distribution.member import Kind, Member
from cvmfsexec.errors import DistributionError, FormatError
from cvmfsexec.format.elf import MAGIC, loaded_part, parse_elf

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

COMMANDS = {
    "cvmfs": "main",
    "cvmfsexec": "exec_cmd",
    "makedist": "makedist_cmd",
    "mountrepo": "mountrepo_cmd",
    "singcvmfs": "singcvmfs_cmd",
    "umountrepo": "umountrepo_cmd",
}
"""The commands, and the modules of ``cvmfsexec.cli`` that they are."""

PACKAGES = ("cffi", "cryptography", "deflate", "pycurl", "tqdm")
"""Distributions that we import, and that those import."""

_PAC_ENGINES = {"x86_64": ("pacparser", "dukpy")}
_PAC_ENGINES_ELSEWHERE = ("dukpy", "pacparser")
"""One of them runs proxy configuration files; the first has wheels for few machines."""

_IF_INSTALLED = ("zstandard",)
"""What newer versions of Python have themselves."""

_STANDARD_LIBRARY_WITHOUT = re.compile(
    r"(__pycache__|_aix_support|_bootsubprocess|_osx_support|_pydecimal|_pyio|config-"
    r".*|curses|dbm|dist-packages|distutils|ensurepip|idlelib|imghdr|lib2to3|mailcap"
    r"|msilib|nntplib|pydoc|pydoc_data|site-packages|sitecustomize|telnetlib|test"
    r"|tests|tkinter|turtle|turtledemo|unittest|venv|wsgiref|xdrlib|xmlrpc)(\.py)?"
)
_EXTENSIONS_WITHOUT = re.compile(
    r"_?xx|_test|_ctypes_test|_curses|_tkinter|_dbm|_gdbm|nis\b|ossaudiodev|readline"
    r"|audioop|_crypt\b|_codecs_|_lsprof"
)
_PACKAGES_WITHOUT = re.compile(
    r"(^|/)(tests?|__pycache__)/|\.(pyi|typed|h|c)$|^zstandard/(_cffi|backend_cffi)"
)
_KEPT_METADATA = re.compile(r"\.dist-info/(licenses/|LICEN|COPYING)")
_OWN_DIRECTORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_CLIENT = "dist/usr/bin/cvmfs2"
_DIST_WITHOUT = ("cvmfs", "var")
"""Mount points; caches, logs and what runs."""


class Bundle(NamedTuple):
    """What goes into a file.

    Attributes:
        members: In no order.
        machine: For which it is.
    """

    members: list[Member]
    machine: str


def collect(dist: str, source: Source | None = None) -> Bundle:
    """Collect an interpreter with packages, this package, and a dist.

    Args:
        dist: Directory that holds ``etc/cvmfs``.
        source: What to collect; None for what is running.

    Raises:
        DistributionError: Something cannot be found, read or compiled.
    """
    try:
        runtime, machine = _collect_runtime(source)
        members = list(_dist(dist))
        if source is not None:
            _check_machine(runtime, machine)
        _check_client(members, machine)
        return Bundle([*runtime, *members], machine)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        message = f"cannot pack: {where}{error.strerror}"
        raise DistributionError(message) from error


def template(name: str, **values: str) -> bytes:
    """Return one of the scripts beside this module, with its blanks filled in."""
    with open(os.path.join(os.path.dirname(__file__), name), encoding="utf-8") as file:
        text = file.read()
    for key, value in values.items():
        text = text.replace(f"@{key.upper()}@", value)
    return text.encode()


def _collect_runtime(source: Source | None) -> tuple[list[Member], str]:
    unpacked = os.path.dirname(os.path.dirname(_OWN_DIRECTORY))
    if source is None:
        if os.path.isfile(os.path.join(unpacked, "launch")):
            return _copy_runtime(unpacked)
        source = Source(running_interpreter(), tuple(installed_packages()))
    interpreter = source.interpreter
    files = dict(_standard_library(interpreter))
    files |= {f"packages/{path}": file for path, file in _carried(source.packages)}
    files |= dict(_own_package())
    modules = [path for path in files.values() if _is_shared_object(path)]
    libraries = find_libraries(
        interpreter.program,
        modules,
        root=interpreter.root,
        before=interpreter.library_directories,
    )
    members = [_member(path, file) for path, file in files.items()]
    # Without this directory each start would complain, and the program may have all.
    members.append(Member(f"{interpreter.place}/lib-dynload/.directory"))
    members += [
        Member(f"lib/{name}", content=_read(path), is_executable=True)
        for name, path in libraries.by_name.items()
    ]
    members += _starters(interpreter.program, libraries)
    return [_trimmed(member) for member in members], libraries.machine


def _copy_runtime(top: str) -> tuple[list[Member], str]:
    """Collect the runtime of the file that we were unpacked from."""
    members = [
        Member(path, content=_read(source), is_executable=os.access(source, os.X_OK))
        for path in _walk(top)
        if not path.startswith("dist/")
        for source in (os.path.join(top, path),)
    ]
    return members, read_elf(os.path.join(top, "bin/python")).machine


def _starters(program: str, libraries: Libraries) -> "Iterator[Member]":
    loader = _read(libraries.loader)
    if b"--argv0" not in loader:
        raise DistributionError(
            f"{libraries.loader} cannot start the interpreter from elsewhere",
            hint="pack on a system with glibc 2.33 or later",
        )
    name = libraries.loader_name
    yield Member(f"lib/{name}", content=loader, is_executable=True)
    yield Member("bin/python", content=_read(program), is_executable=True)
    script = template("python.sh", loader=name)
    yield Member("bin/python3", content=script, is_executable=True)
    yield Member("launch", content=template("launch.sh", loader=name))
    for command, module in COMMANDS.items():
        script = template("command.sh", command=command, module=module)
        yield Member(f"commands/{command}", content=script, is_executable=True)


def _standard_library(interpreter: Interpreter) -> "Iterator[tuple[str, str]]":
    """Yield paths in the bundle, and of the files that go there."""
    top, place = interpreter.standard_library, interpreter.place
    for path in _walk(top):
        name = path.partition("/")[0]
        if (
            not _STANDARD_LIBRARY_WITHOUT.fullmatch(name)
            and name != "lib-dynload"
            and path.endswith(".py")
            and "/test/" not in path
            and "/tests/" not in path
        ):
            yield f"{place}/{path}", os.path.join(top, path)
    extensions = interpreter.extensions
    for name in sorted(os.listdir(extensions)):
        if name.endswith(".so") and not _EXTENSIONS_WITHOUT.match(name):
            yield f"{place}/lib-dynload/{name}", os.path.join(extensions, name)


def required_packages(architecture: str) -> tuple[str, ...]:
    """Return requirements for packages of a machine, in the versions that run here."""
    from importlib import metadata

    engine = _PAC_ENGINES.get(architecture, _PAC_ENGINES_ELSEWHERE)[0]
    optional = (name for name in _IF_INSTALLED if _is_installed(name))
    return tuple(
        f"{name}=={metadata.version(name)}" if _is_installed(name) else name
        for name in (*PACKAGES, engine, *optional)
    )


def installed_packages() -> "Iterator[tuple[str, str]]":
    """Yield paths below a directory of packages, and the files that are there.

    Raises:
        DistributionError: A package is not installed.
    """
    from importlib import metadata

    engines = _PAC_ENGINES.get(os.uname().machine, _PAC_ENGINES_ELSEWHERE)
    optional = [one for one in engines if _is_installed(one)][:1]
    optional += [name for name in _IF_INSTALLED if _is_installed(name)]
    for name in (*PACKAGES, *optional):
        try:
            files = metadata.distribution(name).files or []
        except metadata.PackageNotFoundError as error:
            message = f"cannot pack: the package {name} is not installed"
            raise DistributionError(message) from error
        for file in files:
            yield file.as_posix(), os.fspath(file.locate())


def _carried(
    packages: "Iterable[tuple[str, str]]",
) -> "Iterator[tuple[str, str]]":
    """Yield those files of packages that are needed."""
    for path, file in packages:
        is_outside = path.startswith(("../", "/"))
        is_metadata = ".dist-info/" in path and not _KEPT_METADATA.search(path)
        if not is_outside and not is_metadata and not _PACKAGES_WITHOUT.search(path):
            yield path, file


def _is_installed(name: str) -> bool:
    from importlib import metadata

    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _own_package() -> "Iterator[tuple[str, str]]":
    for path in _walk(_OWN_DIRECTORY):
        if path.endswith((".py", ".sh")):
            yield f"packages/cvmfsexec/{path}", os.path.join(_OWN_DIRECTORY, path)


def _dist(top: str) -> "Iterator[Member]":
    if not os.path.isdir(os.path.join(top, "etc/cvmfs")):
        raise DistributionError(
            f"there is no dist to pack: {top} has no etc/cvmfs",
            hint="make it first: makedist {default|egi|none|osg}",
        )
    for directory, subdirectories, files in os.walk(top):
        if directory == top:
            subdirectories[:] = [n for n in subdirectories if n not in _DIST_WITHOUT]
        for name in subdirectories + files:
            source = os.path.join(directory, name)
            path = f"dist/{os.path.relpath(source, top)}"
            if os.path.islink(source):
                yield Member(path, Kind.LINK, os.fsencode(os.readlink(source)))
            elif os.path.isdir(source):
                yield Member(path, Kind.DIRECTORY)
            elif os.path.isfile(source):
                yield Member(
                    path,
                    content=_read(source),
                    is_executable=os.access(source, os.X_OK),
                )


def _check_machine(members: list[Member], machine: str) -> None:
    """Refuse programs and libraries for another machine, wherever they come from.

    Raises:
        DistributionError: There is one.
    """
    for member in members:
        other = _machine_of(member)
        if other not in {None, machine}:
            raise DistributionError(f"{member.path} is for {other}, not for {machine}")


def _check_client(members: list[Member], machine: str) -> None:
    """Refuse the original client of another machine.

    Raises:
        DistributionError: It is one.
    """
    for member in members:
        other = _machine_of(member) if member.path == _CLIENT else None
        if other not in {None, machine}:
            raise DistributionError(
                f"the dist has the original client for {other}, not for {machine}",
                hint="make another one: makedist --client original -m TYPE …",
            )


def _machine_of(member: Member) -> str | None:
    """Return the machine that a program or library is for; None if it is neither."""
    if not member.content.startswith(MAGIC):
        return None
    try:
        return parse_elf(member.content).machine
    except FormatError as error:
        raise DistributionError(f"cannot pack {member.path}: {error}") from error


def _walk(top: str) -> "Iterator[str]":
    """Yield the paths of files below a directory, relative to it."""
    for directory, subdirectories, files in os.walk(top):
        subdirectories[:] = sorted(n for n in subdirectories if n != "__pycache__")
        for name in sorted(files):
            yield os.path.relpath(os.path.join(directory, name), top)


def _is_shared_object(path: str) -> bool:
    return ".so" in os.path.basename(path) and not path.endswith((".py", ".pyc"))


def _member(path: str, source: str) -> Member:
    content = _read(source)
    if not path.endswith(".py"):
        return Member(path, content=content, is_executable=_is_shared_object(path))
    name = re.sub(r"^(packages|[^/]+/python[^/]+)/", "", path)
    return Member(f"{path}c", content=compile_module(content, name))


def _trimmed(member: Member) -> Member:
    """Return a member without what only debuggers read."""
    if not member.content.startswith(MAGIC):
        return member
    try:
        return member._replace(content=loaded_part(member.content))
    except FormatError:
        return member  # whatever it is, nobody loads it


def _read(path: str) -> bytes:
    with open(path, "rb") as stream:
        return stream.read()
