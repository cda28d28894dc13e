"""Where the parts of an interpreter are, of which a bundle is made."""

import os
import sys
import sysconfig
from typing import NamedTuple


class Interpreter(NamedTuple):
    """Parts of an interpreter, on this machine; it need not run on it.

    Attributes:
        program: Path of the program.
        standard_library: Directory of the modules.
        extensions: Directory of those that are shared objects.
        place: Where the modules are in a bundle, such as ``lib/python3.11``.
        library_directories: Where shared libraries are, before those of the system.
        root: Of the system whose dynamic loader and libc it is to have.
    """

    program: str
    standard_library: str
    extensions: str
    place: str
    library_directories: tuple[str, ...] = ()
    root: str = "/"


class Source(NamedTuple):
    """What a runtime is made of, but for our own package.

    Attributes:
        interpreter: Runs everything.
        packages: Files of other packages: path below a directory of packages, and
            where the file is.
    """

    interpreter: Interpreter
    packages: tuple[tuple[str, str], ...]


def running_interpreter() -> Interpreter:
    """Return the parts of the interpreter that runs this.

    Debian's layout and that of relocatable builds are the same as far as this goes.
    """
    top = sysconfig.get_path("stdlib")
    extensions = sysconfig.get_config_var("DESTSHARED") or ""
    if not os.path.isdir(extensions):
        extensions = os.path.join(top, "lib-dynload")
    return Interpreter(
        program=os.path.realpath(sys.executable),
        standard_library=top,
        extensions=extensions,
        place=f"{sys.platlibdir}/{os.path.basename(top)}",
    )


def running_version() -> str:
    """Return the version that bytecode of ours is for, such as ``3.11``."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"
