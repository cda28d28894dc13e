"""The program that runs containers: ``singularity`` or ``apptainer``.

The original runs what is called ``singularity``. So it is the first choice, and most
often it is another name of Apptainer.
"""

import os
import re
import shutil
from typing import NamedTuple

from cvmfsexec.errors import ConfigurationError

PROGRAMS = ("singularity", "apptainer")

BIND_VARIABLES = ("APPTAINER_BINDPATH", "SINGULARITY_BINDPATH")
"""Each program has its own; Apptainer knows the other, too, but complains of it."""

_APPTAINER = "apptainer"
_WITHOUT_HOST_KIND = ((3,), (3, 6))
"""From and below which version ``--fusemount host:`` is not known. Apptainer begins to
count at 1.0, and what Singularity was before 3 has no such mounts at all."""

_PATIENCE_S = 30.0


class ContainerProgram(NamedTuple):
    """What was found.

    Attributes:
        path: Where it is.
        is_apptainer: Whether it is Apptainer, whatever it is called.
    """

    path: str
    is_apptainer: bool


def find_program(search_path: str, wanted: str = "") -> ContainerProgram:
    """Return the program that runs containers.

    Args:
        search_path: Value of ``PATH``.
        wanted: A name or path to insist on; empty for none.

    Raises:
        ConfigurationError: There is none.
    """
    names = (wanted,) if wanted else PROGRAMS
    for name in names:
        path = shutil.which(name, path=search_path)
        if path:
            found = os.path.basename(os.path.realpath(path))
            return ContainerProgram(path, _APPTAINER in (found, name))
    raise ConfigurationError(
        f"there is no {' and no '.join(names)} in PATH",
        hint="install Apptainer, or run without a container: cvmfsexec",
    )


def has_host_kind(program: ContainerProgram) -> bool:
    """Whether a program of the host may serve a mount in a container."""
    if program.is_apptainer:
        return True
    import subprocess

    try:
        done = subprocess.run(
            [program.path, "version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=_PATIENCE_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigurationError(f"cannot run {program.path}: {error}") from error
    first, end = _WITHOUT_HOST_KIND
    return not first <= version_of(done.stdout) < end


def version_of(said: bytes) -> tuple[int, ...]:
    """Return the first two numbers of a version; nothing if there are none."""
    found = re.search(rb"(\d{1,6})\.(\d{1,6})", said[:1000])
    return tuple(int(number) for number in found.groups()) if found else ()
