"""The frame of ``mountrepo`` and ``umountrepo``: options, help, and how they end."""

import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, NoReturn

from cvmfsexec.cli import exit_codes
from cvmfsexec.cli.report import replace_missing_streams, report_error, set_verbosity
from cvmfsexec.errors import CvmfsError


class Arguments(NamedTuple):
    """What a command line asks for.

    Attributes:
        repository: Name as typed; empty for all.
        wants_all: ``-a`` of umountrepo.
        is_lazy: ``-z`` of umountrepo.
        allow_other: Of mountrepo: other users may read.
        dist: Where the dist is, if that was said.
        verbosity: 0 quiet, 1 verbose, 2 debug.
        wants_help: Whether to print the help and nothing else.
    """

    repository: str = ""
    wants_all: bool = False
    is_lazy: bool = False
    allow_other: bool = False
    dist: str | None = None
    verbosity: int = 0
    wants_help: bool = False


class MountWords(NamedTuple):
    """What the user reads of a command.

    Attributes:
        command: Its name.
        usage: One line.
        help: The whole.
    """

    command: str
    usage: str
    help: str


def read_options(
    words: list[str], flags: Mapping[str, Mapping[str, Any]]
) -> tuple[Arguments, list[str]] | None:
    """Read the options before the first other word.

    Args:
        words: What follows the command's name.
        flags: What each option without a value asks for.

    Returns:
        What is asked for and the words that are left; ``None`` if an option is not
        understood.
    """
    arguments = Arguments()
    rest = list(words)
    while rest and rest[0].startswith("-"):
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if name == "--dist" and (equals or rest):
            arguments = arguments._replace(dist=value if equals else rest.pop(0))
        elif word in flags:
            arguments = arguments._replace(**flags[word])
        else:
            return None
    return arguments, rest


def run_command(
    texts: MountWords,
    parse: Callable[[list[str]], Arguments | None],
    act: Callable[[Arguments], int],
) -> NoReturn:
    """Run a command line and exit."""
    replace_missing_streams()
    # Where it is ignored, the kernel forgets how the helper has ended.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        status = _run(texts, parse(sys.argv[1:]), act)
    except KeyboardInterrupt:
        status = exit_codes.INTERRUPTED
    sys.exit(status)


def _run(
    texts: MountWords, arguments: Arguments | None, act: Callable[[Arguments], int]
) -> int:
    if arguments is None:
        sys.stderr.write(texts.usage)
        return exit_codes.USAGE
    if arguments.wants_help:
        sys.stdout.write(texts.help)
        return exit_codes.OK
    set_verbosity(texts.command, arguments.verbosity)
    try:
        return act(arguments)
    except CvmfsError as error:
        report_error(texts.command, error)
        return exit_codes.exit_status_of(error)
