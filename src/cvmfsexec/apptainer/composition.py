"""What is executed: the words of ``apptainer``, with repositories added.

The value of ``--fusemount`` is split twice: at commas, as a line of CSV, and then at
white space, without any quotes. What cannot be a word is spelled out for a shell.

Source: docs/reference/singcvmfs.md, "The file server".
"""

import os
import string
from enum import Enum
from typing import NamedTuple

from cvmfsexec.errors import ConfigurationError

RUNTIME_PLACE = "/.singcvmfs"
"""Where a container that brings nothing finds our interpreter and its libraries."""

IMAGE_PLACE = "/var/lib/cvmfs"
"""Where a cache image is mounted in the container, as the original has it."""

_PLAIN = frozenset(string.ascii_letters + string.digits + "/._-+:=%@~")
_NOT_IN_BINDS = frozenset(',:\\"')


class ServerKind(Enum):
    """Where the file servers run; the values are prefixes of ``--fusemount``."""

    HOST = "host"
    CONTAINER = "container"


class Bind(NamedTuple):
    """A path of the host that the container has as well.

    Attributes:
        source: On the host.
        target: In the container.
        is_read_only: Nothing can be written to it there.
        options: More options, as they follow the target.
    """

    source: str
    target: str
    is_read_only: bool = False
    options: str = ""


def fusemount_words(
    kind: ServerKind, server: tuple[str, ...], mountpoint: str
) -> tuple[str, ...]:
    """Return the option that lets a program serve a mount.

    Args:
        kind: Where it runs.
        server: Its words; the container program adds more.
        mountpoint: Where it is mounted in the container; a plain word.
    """
    if not all(map(_is_plain, server)):
        # Only what runs on the host has words that others have chosen.
        server = _spelled_out(server)
    value = f"{kind.value}:{' '.join(server)} {mountpoint}"
    if "," in value or '"' in value:
        quoted = value.replace('"', '""')
        value = f'"{quoted}"'
    return ("--fusemount", value)


def bind_words(bind: Bind) -> tuple[str, ...]:
    """Return the option that shows a path of the host in the container.

    Raises:
        ConfigurationError: It cannot be written as one.
    """
    for path in (bind.source, bind.target):
        if not _NOT_IN_BINDS.isdisjoint(path):
            raise ConfigurationError(
                f'{path} cannot be shown in a container: its name has one of , : \\ "',
                hint="move it, or use a link to it",
            )
    mode = ":ro" if bind.is_read_only else ""
    options = f":{bind.options}" if bind.options else ""
    return ("-B", f"{bind.source}:{bind.target}{mode}{options}")


def without_covered(binds: tuple[Bind, ...]) -> tuple[Bind, ...]:
    """Return the binds that are needed if what is below another is there anyway."""
    kept: list[Bind] = []
    for bind in sorted(set(binds), key=lambda one: (len(one.target), one.is_read_only)):
        if not any(_covers(other, bind) for other in kept):
            kept.append(bind)
    return tuple(kept)


def container_server(runtime: str) -> tuple[str, ...]:
    """Return the words that start our file server in a container.

    Args:
        runtime: Where the bundle lies on the host; in the container it is at its place.

    Raises:
        ConfigurationError: There is no loader in it.
    """
    place = RUNTIME_PLACE
    try:
        names = sorted(os.listdir(os.path.join(runtime, "lib")))
    except OSError as error:
        raise ConfigurationError(f"cannot read {runtime}: {error.strerror}") from error
    loader = next((name for name in names if name.startswith("ld-")), None)
    if loader is None:
        raise ConfigurationError(f"{runtime} has no dynamic loader")
    return (
        f"{place}/lib/{loader}",
        "--library-path",
        f"{place}/lib",
        "--argv0",
        f"{place}/bin/python3",
        f"{place}/bin/python",
        "-I",
        "-S",
        "-X",
        "utf8",
        f"{place}/packages/cvmfsexec/cli/fusemount_cmd.pyc",
    )


def _covers(other: Bind, bind: Bind) -> bool:
    below = os.path.relpath(bind.target, other.target)
    return (
        not below.startswith("..")
        and os.path.normpath(os.path.join(other.source, below)) == bind.source
        and (bind.is_read_only or not other.is_read_only)
        and not (bind.options or other.options)
    )


def _is_plain(word: str) -> bool:
    return bool(word) and _PLAIN.issuperset(word)


def _spelled_out(words: tuple[str, ...]) -> tuple[str, ...]:
    """Return words that let the host's shell run others, which hold anything.

    The shell reads its own words from escapes, as its ``printf`` writes them, and gets
    what the container program adds as arguments.
    """
    script = "exec " + " ".join(map(_quoted, words)) + ' "$@"'
    escaped = "".join(f"\\0{byte:03o}" for byte in os.fsencode(script))
    return (
        "/bin/sh",
        "-c",
        f"eval${{IFS}}\"$(printf${{IFS}}%b${{IFS}}'{escaped}')\"",
        "sh",
    )


def _quoted(word: str) -> str:
    return "'" + word.replace("'", "'\\''") + "'"
