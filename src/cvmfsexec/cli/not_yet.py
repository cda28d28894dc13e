"""Commands of the original that this version does not have yet.

Each reads its command line as the original does, so that scripts learn the version, or
what is wrong with their words. Otherwise it says in one sentence what to do instead,
and its exit status is one that no other failure has.

Source: docs/reference/cvmfsexec.md, "Commands that are still to come".
"""

import sys
from collections.abc import Callable
from typing import NamedTuple, NoReturn

from cvmfsexec import __version__
from cvmfsexec.cli import exit_codes
from cvmfsexec.cli.report import write_message


class Command(NamedTuple):
    """One of them.

    Attributes:
        name: What it is called.
        usage: Its arguments.
        is_understood: Whether the original would take these words.
        instead: What a user of this version can do.
        version_option: The word that asks for the version; empty for none.
    """

    name: str
    usage: str
    is_understood: Callable[[list[str]], bool]
    instead: str
    version_option: str = ""


def decline(command: Command) -> NoReturn:
    """Answer the command line, and exit."""
    words = sys.argv[1:]
    usage = f"Usage: {command.name} {command.usage}\n"
    if command.version_option and command.version_option in words[:1]:
        print(__version__)
        sys.exit(exit_codes.OK)
    if words == ["--help"]:
        print(f"{usage}\nNot available in this version: {command.instead}.")
        sys.exit(exit_codes.OK)
    if not command.is_understood(words):
        sys.stderr.write(usage)
        sys.exit(exit_codes.USAGE)
    write_message(command.name, "not available in this version", command.instead)
    sys.exit(exit_codes.NOT_AVAILABLE)
