"""How the container program was installed: version, privileges, what its admin allows.

The program itself says where its configuration is and how it was built. Where a setting
of the configuration stands more than once, the last one counts; what is not set is
allowed, as by default.
"""

import os
import stat
from typing import NamedTuple

from cvmfsexec.apptainer.program import ContainerProgram, version_of
from cvmfsexec.errors import ConfigurationError

_PATIENCE_S = 30.0
_CONFIGURATION_BYTES_MAX = 1 << 20
_STARTER = "bin/starter-suid"
_NAMES = ("apptainer", "singularity")
_FUSEMOUNT = "enable fusemount"


class Installation(NamedTuple):
    """What was found.

    Attributes:
        version: As the program tells it.
        configuration: Path of its configuration; empty if it does not tell.
        has_setuid: Whether it can use privileges of root.
        allows_fusemount: Setting ``enable fusemount``.
        allows_pid_namespace: Setting ``allow pid ns``.
    """

    version: str
    configuration: str
    has_setuid: bool
    allows_fusemount: bool
    allows_pid_namespace: bool


def examine(program: ContainerProgram) -> Installation:
    """Ask the program, and read its configuration.

    Raises:
        ConfigurationError: The program does not work.
    """
    said = _run(program, "version")
    if not version_of(said):
        raise ConfigurationError(f"{program.path} tells no version")
    built = read_settings(_run(program, "buildcfg"), "=")
    path = next((built[key] for key in _keys("CONF_FILE") if key in built), "")
    settings = _settings_in(path)
    return Installation(
        said.decode("utf-8", "replace").strip()[:80],
        path,
        _is_allowed(settings, "allow setuid") and _has_starter(built),
        _is_allowed(settings, _FUSEMOUNT),
        _is_allowed(settings, "allow pid ns"),
    )


def check_mounts(program: ContainerProgram) -> None:
    """Refuse a program that may not mount; in doubt, it can say so itself later.

    It is not run, which would take longer than all else before the container: its
    configuration is looked for where it is in most installations.

    Raises:
        ConfigurationError: Its configuration forbids mounts.
    """
    prefix = os.path.dirname(os.path.dirname(os.path.realpath(program.path)))
    etc = "/etc" if prefix in ("/", "/usr") else f"{prefix}/etc"
    name = _NAMES[not program.is_apptainer]
    path = f"{etc}/{name}/{name}.conf"
    if not _is_allowed(_settings_in(path), _FUSEMOUNT):
        raise ConfigurationError(
            f"{program.path} may not mount anything: {path} has '{_FUSEMOUNT} = no'",
            hint="use an image that lies in a repository, or start the container in a "
            "session: cvmfsexec REPOSITORY -- apptainer exec --userns -B /cvmfs …",
        )


def read_settings(text: bytes, separator: str) -> dict[str, str]:
    """Return names and values of lines that have both; any bytes are accepted."""
    found = {}
    for line in text.decode("utf-8", "replace").split("\n"):
        name, equals, value = line.partition(separator)
        if equals and not name.lstrip().startswith("#"):
            found[name.strip()] = value.strip()
    return found


def _run(program: ContainerProgram, word: str) -> bytes:
    import subprocess

    try:
        done = subprocess.run(
            [program.path, word],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=False,
            timeout=_PATIENCE_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigurationError(f"cannot run {program.path}: {error}") from error
    return done.stdout[:_CONFIGURATION_BYTES_MAX]


def _keys(name: str) -> tuple[str, ...]:
    return tuple(f"{program.upper()}_{name}" for program in _NAMES)


def _settings_in(path: str) -> dict[str, str]:
    if not path:
        return {}
    try:
        with open(path, "rb") as file:
            return read_settings(file.read(_CONFIGURATION_BYTES_MAX), " =")
    except (OSError, ValueError):
        return {}


def _is_allowed(settings: dict[str, str], name: str) -> bool:
    return settings.get(name, "yes").lower() != "no"


def _has_starter(built: dict[str, str]) -> bool:
    """Whether there is a program of root's that anybody may use."""
    libexec = built.get("LIBEXECDIR", "")
    for name in _NAMES:
        try:
            status = os.stat(os.path.join(libexec, name, _STARTER))
        except (OSError, ValueError):
            continue
        if status.st_uid == 0 and status.st_mode & stat.S_ISUID:
            return True
    return False
