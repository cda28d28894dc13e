"""Images that lie in repositories: which repository, and how they are run.

No container program can open an image before its repository is mounted. So it is
started in a session, as a command of ``cvmfsexec`` would be, and sees all of the
session's ``/cvmfs``. It is told to work without privileges: a program that is owned by
root has no power in a session.

Source: docs/how-to/run-images-from-cvmfs.md.
"""

import os
from collections.abc import Iterable, Mapping

from cvmfsexec.apptainer.command_line import ACTIONS, INSTANCE_PREFIX, CommandLine
from cvmfsexec.errors import ConfigurationError
from cvmfsexec.format.names import check_fqrn

_CVMFS = "/cvmfs"
_WITHOUT_PRIVILEGES = ("-u", "--userns")
_INSTANCE_BYTES_MAX = 1 << 24
_BIND_VARIABLES = (
    "APPTAINER_BIND",
    "APPTAINER_BINDPATH",
    "SINGULARITY_BIND",
    "SINGULARITY_BINDPATH",
)


def repository_of(image: str) -> str:
    """Return the repository that an image lies in, or nothing if it lies in none.

    Args:
        image: As it was typed: a path, which may lead to the repository by links of
            the host, or the address of something else.
    """
    if not image or "://" in image:
        return ""
    try:
        paths = (os.path.normpath(image), os.path.realpath(image))
    except OSError:  # it is relative to a directory that was removed
        return ""
    for path in paths:
        if path.startswith(f"{_CVMFS}/"):
            try:
                return check_fqrn(path.split("/")[2])
            except ConfigurationError:
                return ""
    return ""


def words_in_session(
    line: CommandLine, options: tuple[str, ...], environment: Mapping[str, str]
) -> tuple[str, ...]:
    """Return the words for the container program in a session.

    Args:
        line: What was typed.
        options: More options of the user's.
        environment: May have more binds.
    """
    added = () if _is_among(_WITHOUT_PRIVILEGES, line.options) else ("--userns",)
    binds = [environment.get(name, "") for name in _BIND_VARIABLES]
    if not _is_shown((*options, *line.options, *binds)):
        added = (*added, "--bind", _CVMFS)
    return line.words((*added, *options))


def words_to_join(line: CommandLine, environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the words for the container program where no container is started.

    An instance that works without privileges can be joined only in the same way, and
    the program of an installation with setuid wants to be told.
    """
    name = (line.image or "").removeprefix(INSTANCE_PREFIX)
    is_join = name != (line.image or "") and line.command[0] in ACTIONS
    if (
        is_join
        and not _is_among(_WITHOUT_PRIVILEGES, line.options)
        and _has_own_user_namespace(name, environment)
    ):
        return line.words(("--userns",))
    return line.words()


def _has_own_user_namespace(name: str, environment: Mapping[str, str]) -> bool:
    """Whether an instance says so in the file that Apptainer keeps of it."""
    import json
    import pwd

    if "/" in name:
        return False
    place = environment.get("APPTAINER_CONFIGDIR") or os.path.join(
        environment.get("HOME", ""), ".apptainer"
    )
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
        host = os.uname().nodename
        path = f"{place}/instances/app/{host}/{user}/{name}/{name}.json"
        with open(path, "rb") as file:
            told = json.loads(file.read(_INSTANCE_BYTES_MAX))
    except (KeyError, OSError, ValueError, RecursionError):
        return False
    return isinstance(told, dict) and told.get("userns") is True


def _is_among(wanted: tuple[str, ...], words: Iterable[str]) -> bool:
    return not set(wanted).isdisjoint(words)


def _is_shown(words: Iterable[str]) -> bool:
    """Whether somebody has said what is to be at ``/cvmfs``."""
    for word in words:
        for bind in word.removeprefix("--bind=").removeprefix("-B").split(","):
            source, _, rest = bind.partition(":")
            if (rest.partition(":")[0] or source).rstrip("/") == _CVMFS:
                return True
    return False
