"""``cvmfsexec [options] [repository ...] -- [command [arguments]]``.

The start of this module's ``main`` is what every job waits for: it parses by hand and
imports nothing that a warm start does not need (docs/adr/0002).

Source: docs/reference/cvmfsexec.md.
"""

import gc
import os
import sys
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from cvmfsexec.cli import exit_codes
from cvmfsexec.cli.given_environment import given_environment
from cvmfsexec.cli.report import (
    replace_missing_streams,
    report_error,
    set_verbosity,
)
from cvmfsexec.configuration.locate import ConfigurationRoot
from cvmfsexec.errors import ConfigurationError, CvmfsError

USAGE = """\
Usage: cvmfsexec [-vN] [-m e2fs_image] [--dist DIR] [repository ...] -- [command ...]
       cvmfsexec --join SESSION -- [command ...]
"""

HELP = (
    USAGE
    + """
Run a command with CernVM-FS repositories mounted below /cvmfs, without root.
The default command is $SHELL. REPOSITORY@TAG or REPOSITORY@2026-01-31 mounts a
revision of the past.

  -v               print the version and exit
  -N               no interface for mounting more repositories from inside
  -m IMAGE         keep the cache in a scratch file system image
  --dist DIR       use DIR/etc/cvmfs for configuration and DIR/var for the cache
                   (default: $CVMFSEXEC_DIST, then dist/ beside this command)
  --name SESSION   name the session, so that other commands can join it
  --join SESSION   run the command in a session that is there already
  --wait SECONDS   how long --join waits for a session to be there and ready
                   (default: not at all, and 60)
  --bind SRC:DST[:ro]
                   show a file or directory, one of a repository for example, at a
                   second place as well; may be given several times
  --on-demand      mount any other repository when something of it is used first
  --report FILE    write an HTML page about the job when it has ended: what was
                   requested, how fast it came, what was read, what failed
  --trace FILE     write down which files and directories are touched, for
                   'cvmfs prefetch --replay FILE' on the next node
  --replace-native show nothing of a /cvmfs that the host has itself
  --mode N         insist on mode 2 or 3 (default: 3 if it works, else 2)
  --verbose        say on stderr what is going on
  --debug          say everything
  --help           this text

Exit status: that of the command, or 128+n if signal n ended it; see
docs/reference/exit-status.md for what stands for a failure before it started.
"""
)


if TYPE_CHECKING:
    from cvmfsexec.format.pinned_name import Pin
    from cvmfsexec.namespaces.steps import BindElsewhere

_SECONDS_DIGITS_MAX = 6


class UsageError(ConfigurationError):
    """The command line cannot be understood."""


class Arguments(NamedTuple):
    """What the command line asks for.

    Attributes:
        repositories: Names as typed, in order.
        command: Words of the command; empty for the default shell.
        has_interface: The command may ask for more repositories.
        is_on_demand: Repositories are mounted as they are used.
        verbosity: 0 quiet, 1 verbose, 2 debug.
    """

    repositories: tuple[str, ...]
    command: tuple[str, ...]
    dist: str | None = None
    image: str | None = None
    mode: str | None = None
    replaces_native: bool = False
    name: str = ""
    joined: str | None = None
    wait: str | None = None
    trace: str | None = None
    report: str | None = None
    binds: tuple[str, ...] = ()
    has_interface: bool = True
    is_on_demand: bool = False
    verbosity: int = 0
    wants_version: bool = False
    wants_help: bool = False


_WITH_VALUE = {
    "--dist": "dist",
    "--join": "joined",
    "--mode": "mode",
    "--name": "name",
    "--report": "report",
    "--trace": "trace",
    "--wait": "wait",
}
_REPEATED = {"--bind": "binds"}
_NOT_WITH_JOIN = (
    "binds",
    "dist",
    "image",
    "is_on_demand",
    "mode",
    "name",
    "replaces_native",
    "report",
    "trace",
)
_FLAGS: dict[str, tuple[str, object]] = {
    "--help": ("wants_help", True),
    "--version": ("wants_version", True),
    "--on-demand": ("is_on_demand", True),
    "--replace-native": ("replaces_native", True),
    "--verbose": ("verbosity", 1),
    "--debug": ("verbosity", 2),
}


def parse(words: list[str]) -> Arguments:
    """Read the words after the command's name.

    Raises:
        UsageError: Unknown option, missing value, or no ``--``.
    """
    rest = list(words)
    found = _take_options(rest)
    if _is_question(found):
        return Arguments((), (), **found)  # type: ignore[arg-type]
    _check_mode(str(found.get("mode", "3")))
    if "--" not in rest:
        raise UsageError("'--' is missing between the repositories and the command")
    border = rest.index("--")
    repositories = rest[:border]
    for name in repositories:
        if name.startswith("-"):
            raise UsageError(f"option {name} must come before the repositories")
    _check_join(found, repositories)
    return Arguments(tuple(repositories), tuple(rest[border + 1 :]), **found)  # type: ignore[arg-type]


def _check_join(found: dict[str, object], repositories: list[str]) -> None:
    if "joined" not in found:
        if "wait" in found:
            raise UsageError("--wait is about --join")
    elif repositories or not found.keys().isdisjoint(_NOT_WITH_JOIN):
        raise UsageError(
            "a session is joined as it is: no repositories, and no options but --wait"
        )


def _check_mode(mode: str) -> None:
    if mode == "1":
        raise UsageError("mode 1 mounts for all programs: use mountrepo instead")
    if mode == "4":
        raise UsageError("mode 4 needs Apptainer: use singcvmfs instead")
    if mode not in ("2", "3"):
        raise UsageError(f"there is no mode {mode}")


def _take_options(rest: list[str]) -> dict[str, object]:
    """Take options off the front, up to one that asks a question and nothing else."""
    found: dict[str, object] = {}
    while rest and rest[0].startswith("-") and rest[0] != "--":
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if word in _FLAGS:
            key, setting = _FLAGS[word]
            found[key] = setting
        elif name in _WITH_VALUE:
            found[_WITH_VALUE[name]] = value if equals else _value(word, rest)
        elif name in _REPEATED:
            key, one = _REPEATED[name], value if equals else _value(word, rest)
            found[key] = (*found.get(key, ()), one)  # type: ignore[misc]
        elif not word.startswith("--") and word != "-":
            _short_options(word, rest, found)
        else:
            raise UsageError(f"unknown option {word}")
        if _is_question(found):
            break
    return found


def _is_question(found: dict[str, object]) -> bool:
    return "wants_version" in found or "wants_help" in found


def _value(option: str, rest: list[str]) -> str:
    if not rest or rest[0] == "--":
        raise UsageError(f"option {option} needs a value")
    return rest.pop(0)


def _short_options(word: str, rest: list[str], found: dict[str, object]) -> None:
    letters = word[1:]
    while letters and not _is_question(found):
        letter, letters = letters[0], letters[1:]
        if letter == "v":
            found["wants_version"] = True
        elif letter == "m":
            found["image"] = letters or _value("-m", rest)
            return
        elif letter == "h":
            found["wants_help"] = True
        elif letter == "N":
            found["has_interface"] = False
        else:
            raise UsageError(f"unknown option -{letter}")


def main() -> NoReturn:
    """Run the command line and exit.

    Taking an interpreter down in order takes as long as a tenth of a warm start, and
    there is nothing left to be put in order.
    """
    # A collection during the imports finds nothing and takes a tenth of the start.
    # Every process that lives on switches the collector on again.
    gc.disable()
    replace_missing_streams()
    status = _main(sys.argv[1:])
    try:
        sys.stdout.flush()
    except OSError:
        status = status or exit_codes.UNKNOWN_ERROR
    os._exit(status)


def _main(words: list[str]) -> int:
    try:
        arguments = parse(words)
    except UsageError as error:
        sys.stderr.write(f"cvmfsexec: {error}\n{USAGE}")
        return exit_codes.USAGE
    if arguments.wants_version or arguments.wants_help:
        from cvmfsexec import __version__

        sys.stdout.write(f"{__version__}\n" if arguments.wants_version else HELP)
        return exit_codes.OK
    try:
        return _run(arguments, given_environment())
    except CvmfsError as error:
        report_error("cvmfsexec", error)
        return exit_codes.exit_status_of(error)
    except KeyboardInterrupt:
        return exit_codes.INTERRUPTED


def _run(arguments: Arguments, environment: dict[str, str]) -> int:
    from cvmfsexec.session import ExecRequest, run

    set_verbosity("cvmfsexec", arguments.verbosity)
    cwd = working_directory()
    if arguments.joined is not None:
        return _join(arguments, environment, cwd)
    names, typed_pins = _names_and_pins(arguments.repositories)
    root, first, repositories = _repositories(arguments, names)
    if arguments.trace is not None and root is not None:
        root = root._replace(given_trace=_checked_trace(arguments.trace, cwd))
    _arrange_interface(arguments, environment)
    request = ExecRequest(
        repositories=repositories,
        configuration_repository=first,
        command=arguments.command or (_default_shell(),),
        cwd=cwd,
        environment=environment,
        uid=os.getuid(),
        gid=os.getgid(),
        replaces_native=arguments.replaces_native,
        mode=int(arguments.mode or 0),
        name=_checked_name(arguments.name),
        image=os.path.join(cwd, arguments.image) if arguments.image else "",
        binds=tuple(_bind(text, cwd) for text in arguments.binds),
        has_interface=arguments.has_interface,
        is_on_demand=arguments.is_on_demand,
        pins=_pins(repositories, typed_pins),
    )
    if arguments.report is None:
        return run(request, root, exit_codes.exit_status_of)
    from cvmfsexec.cli.job_report import run_and_report

    return run_and_report(
        os.path.join(cwd, arguments.report),
        request,
        lambda recorded: run(recorded, root, exit_codes.exit_status_of),
    )


def _checked_trace(typed: str, cwd: str) -> str:
    """Return the path of a trace, which is begun; what is in it already stays."""
    path = os.path.join(cwd, typed)
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644))
    except OSError as error:
        raise ConfigurationError(
            f"--trace {typed}: cannot be written: {error.strerror}"
        ) from error
    return path


def _arrange_interface(arguments: Arguments, environment: dict[str, str]) -> None:
    """Let the command ask for more repositories, of this session and no other."""
    from cvmfsexec.cli.inside import leave_outer_session, offer_commands

    leave_outer_session(environment)
    if arguments.has_interface:
        offer_commands(environment, os.path.dirname(os.path.realpath(sys.argv[0])))


def _join(arguments: Arguments, environment: dict[str, str], cwd: str) -> int:
    from cvmfsexec.namespaces.join import Errand, Patience, run_joined

    command = arguments.command or (_default_shell(),)
    patience = Patience()
    if arguments.wait is not None:
        wait_s = _seconds(arguments.wait)
        patience = Patience(wait_s, wait_s)
    gc.enable()
    errand = Errand(command, environment, cwd)
    return run_joined(arguments.joined or "", errand, patience)


def _seconds(text: str) -> float:
    if not text.isdecimal() or len(text) > _SECONDS_DIGITS_MAX:
        raise ConfigurationError(f"--wait {text}: not a number of seconds")
    return float(text)


def _checked_name(name: str) -> str:
    if not name:
        return ""
    from cvmfsexec.namespaces.meeting import check_name

    return check_name(name)


def _bind(text: str, cwd: str) -> "BindElsewhere":
    from cvmfsexec.namespaces.steps import BindElsewhere

    source, _, rest = text.partition(":")
    target, _, how = rest.partition(":")
    target = os.path.normpath(target) if target.startswith("/") else ""
    if not source or target.strip("/") == "" or how not in ("", "ro", "rw"):
        raise ConfigurationError(
            f"--bind {text}: not SOURCE:TARGET, SOURCE:TARGET:ro, or SOURCE:TARGET:rw",
            hint="the target is an absolute path, and neither has a ':' in it",
        )
    source = os.path.normpath(os.path.join(cwd, source))
    return BindElsewhere(source, target, is_read_only=how == "ro")


def _names_and_pins(
    typed: tuple[str, ...],
) -> tuple[tuple[str, ...], tuple["Pin | None", ...]]:
    """Take revisions off the names of repositories; most have none."""
    if not any("@" in text for text in typed):
        return typed, (None,) * len(typed)
    from cvmfsexec.format.pinned_name import parse_pinned_name

    parsed = [parse_pinned_name(text) for text in typed]
    return tuple(one.name for one in parsed), tuple(one.pin for one in parsed)


def _pins(
    repositories: tuple[str, ...], typed: tuple["Pin | None", ...]
) -> dict[str, "Pin"]:
    """Return the revisions by repository, each of which can be shown in one only."""
    wanted: dict[str, Pin | None] = {}
    for fqrn, pin in zip(repositories, typed, strict=True):
        other = wanted.setdefault(fqrn, pin)
        if other != pin:
            both = " and ".join(
                "the newest" if one is None else one.value for one in (other, pin)
            )
            raise ConfigurationError(
                f"{fqrn} is asked for in two revisions, {both}",
                hint="a session shows one of them; start another session for the other",
            )
    return {fqrn: pin for fqrn, pin in wanted.items() if pin is not None}


def _repositories(
    arguments: Arguments, typed: tuple[str, ...]
) -> tuple[ConfigurationRoot | None, str, tuple[str, ...]]:
    """Return the configuration, the configuration repository, and what to mount."""
    from cvmfsexec.cli.configuration import configuration_root
    from cvmfsexec.configuration.evaluate import complete_name, config_repository_of

    try:
        root = configuration_root(arguments.dist)
    except ConfigurationError:
        if arguments.repositories or arguments.dist is not None:
            raise
        return None, "", ()  # nothing to mount, so nothing to configure
    first = config_repository_of(root, os.environ) or ""
    names = (complete_name(name, root, os.environ) for name in typed)
    return root, first, tuple(names)


def working_directory() -> str:
    """Return where the user is.

    Raises:
        ConfigurationError: It was removed.
    """
    try:
        return os.getcwd()
    except OSError as error:
        # Anywhere else, what the command does to relative paths could do harm.
        raise ConfigurationError(
            f"cannot tell the working directory: {error.strerror}",
            hint="it was removed; change to one that exists",
        ) from error


def _default_shell() -> str:
    shell = os.environ.get("SHELL")
    if shell:
        return shell
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_shell or "/bin/sh"
    except KeyError:
        return "/bin/sh"
