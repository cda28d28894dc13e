"""``singcvmfs …``: run a container with repositories in it (mode 4).

What the container program and the payload get is what was typed and set here: this
process becomes the container program, so that signals and exit status are its own.

Source: docs/reference/singcvmfs.md.
"""

import os
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

from cvmfsexec import __version__
from cvmfsexec.cli import exit_codes
from cvmfsexec.cli.given_environment import given_environment
from cvmfsexec.cli.report import (
    replace_missing_streams,
    report_error,
    set_verbosity,
    write_message,
)
from cvmfsexec.errors import ConfigurationError, CvmfsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cvmfsexec.apptainer.command_line import CommandLine
    from cvmfsexec.apptainer.composition import ServerKind
    from cvmfsexec.apptainer.launch import CacheImage
    from cvmfsexec.apptainer.program import ContainerProgram
    from cvmfsexec.configuration.locate import ConfigurationRoot

_NAME = "singcvmfs"

USAGE = (
    "Usage: singcvmfs [-V] [global options] {exec|instance|run|shell|version} ...\n"
    "       singcvmfs [global options] command ...     (with SINGCVMFS_IMAGE)\n"
)

HELP = (
    USAGE
    + """
Run Apptainer or Singularity, with CernVM-FS repositories mounted below /cvmfs in the
container. Options and arguments are those of Apptainer.

  -V               print the version and exit
  --help           this text

Variables:
  SINGCVMFS_REPOSITORIES   names of the repositories, with commas between them
  SINGCVMFS_IMAGE          image for the short form, which runs the command in it
  SINGCVMFS_CACHEDIR       directory for the cache (default: dist/var/lib/cvmfs)
  SINGCVMFS_CACHEIMAGE     ext3 image for the cache; SINGCVMFS_CACHEDIR is in it
  SINGCVMFS_LOGDIR         directory for logs (default: log)
  SINGCVMFS_LOGLEVEL       debug: file servers write everything to a log
  SINGCVMFS_OPTSFILE       settings, instead of dist/etc/cvmfs/default.local
  SINGCVMFS_SINGOPTS       more options for Apptainer
  SINGCVMFS_SERVER         host or container: where file servers run
  SINGCMD                  program to run instead of singularity or apptainer
  CVMFSEXEC_DIST           directory of the configuration (default: dist)

Exit status: that of the container program; see docs/reference/exit-status.md for what
stands for a failure before it started.
"""
)

_EXT_MAGIC = b"\x53\xef"
_EXT_MAGIC_OFFSET = 1080


def main() -> NoReturn:
    """Run the command line and exit."""
    replace_missing_streams()
    words = sys.argv[1:]
    if words[:1] == ["--serve"]:
        from cvmfsexec.cli.fusemount_cmd import run

        run(words[1:])
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(_main(tuple(words)))


def _main(words: tuple[str, ...]) -> int:
    from cvmfsexec.apptainer.command_line import UsageError, parse

    if words[:1] == ("-V",):
        print(__version__)
        return exit_codes.OK
    if words[:1] in (("-h",), ("--help",)):
        print(HELP, end="")
        return exit_codes.OK
    environment = given_environment()
    try:
        line = parse(words, environment.get("SINGCVMFS_IMAGE", ""))
    except UsageError as error:
        sys.stderr.write(f"{_NAME}: {error}\n{USAGE}")
        return exit_codes.USAGE
    set_verbosity(_NAME, 0)
    try:
        return _run(line, environment)
    except CvmfsError as error:
        report_error(_NAME, error)
        return exit_codes.exit_status_of(error)


def _run(line: "CommandLine", environment: dict[str, str]) -> int:
    from cvmfsexec.apptainer.program import find_program

    search_path = environment.get("PATH", os.defpath)
    program = find_program(search_path, environment.get("SINGCMD", ""))
    from cvmfsexec.apptainer.stored_image import repository_of, words_to_join

    if not line.starts_container:
        words = words_to_join(line, environment)
        return _become((program.path, *words), environment)
    fqrn = repository_of(line.image or "")
    if fqrn:
        return _run_stored(fqrn, line, program, environment)
    words = _with_repositories(line, program, environment)
    return _become(words, environment)


def _run_stored(
    fqrn: str,
    line: "CommandLine",
    program: "ContainerProgram",
    environment: dict[str, str],
) -> int:
    """Run a container whose image lies in a repository."""
    from cvmfsexec.apptainer.stored_image import words_in_session
    from cvmfsexec.cli.stored_image import StoredContainer, run_container

    options = _options(environment)
    root = _root(environment)
    container = StoredContainer(
        line,
        (program.path, *words_in_session(line, options, environment)),
        fqrn,
        _names(environment),
        root,
        _cache_image(environment),
    )
    return run_container(container, environment)


def _names(environment: "Mapping[str, str]") -> tuple[str, ...]:
    """Return the names of the repositories that are wanted, as they were typed."""
    typed = environment.get("SINGCVMFS_REPOSITORIES", "")
    return tuple(name for name in typed.replace(",", " ").split() if name)


def _options(environment: "Mapping[str, str]") -> tuple[str, ...]:
    return tuple(environment.get("SINGCVMFS_SINGOPTS", "").split())


def _with_repositories(
    line: "CommandLine", program: "ContainerProgram", environment: dict[str, str]
) -> tuple[str, ...]:
    from cvmfsexec.apptainer.installation import check_mounts
    from cvmfsexec.apptainer.launch import Order, compose, decide_kind, make_place
    from cvmfsexec.apptainer.preparation import Wanted, prepare

    names = _names(environment)
    if not names:
        raise ConfigurationError(
            "SINGCVMFS_REPOSITORIES is not set",
            hint="name the repositories to mount, with commas between them",
        )
    undecided = Order(
        program,
        line,
        _options(environment),
        environment,
        os.path.realpath(sys.argv[0]),
        _kind(environment),
        _cache_image(environment),
    )
    # What cannot be is told before anybody waits for a server.
    check_mounts(program)
    order = decide_kind(undecided)
    root = _root(environment)
    place = make_place(environment, line)
    configurations = prepare(Wanted(names, root, environment))
    _share_binds(environment)
    return compose(order, configurations, place)


def _root(environment: "Mapping[str, str]") -> "ConfigurationRoot":
    """Return where the configuration is, and what takes the place of its parts."""
    from cvmfsexec.cli.configuration import configuration_root

    root = configuration_root(None)
    options = environment.get("SINGCVMFS_OPTSFILE", "")
    if options and not os.path.isfile(options):
        raise ConfigurationError(f"SINGCVMFS_OPTSFILE={options}: there is no such file")
    cache = environment.get("SINGCVMFS_CACHEDIR", "")
    if environment.get("SINGCVMFS_CACHEIMAGE"):
        cache = ""  # it is in the image
    return root._replace(
        given_site_defaults=os.path.abspath(options) if options else "",
        given_cache=_directory("SINGCVMFS_CACHEDIR", cache),
        given_logs=_directory(
            "SINGCVMFS_LOGDIR", environment.get("SINGCVMFS_LOGDIR", "")
        ),
        wants_debug_logs=_is_debugging(environment),
    )


def _directory(variable: str, path: str) -> str:
    """Return an absolute path that can be written to, or nothing for nothing."""
    from cvmfsexec.configuration.storage import can_write_below

    if not path:
        return ""
    path = os.path.abspath(path)
    if not can_write_below(path):
        raise ConfigurationError(
            f"{variable}={path}: cannot be written to, or is not a directory"
        )
    return path


def _kind(environment: "Mapping[str, str]") -> "ServerKind | None":
    from cvmfsexec.apptainer.composition import ServerKind

    value = environment.get("SINGCVMFS_SERVER", "")
    if not value:
        return None
    try:
        return ServerKind(value)
    except ValueError as error:
        raise ConfigurationError(
            f"SINGCVMFS_SERVER={value}: neither host nor container"
        ) from error


def _is_debugging(environment: "Mapping[str, str]") -> bool:
    value = environment.get("SINGCVMFS_LOGLEVEL", "")
    if value not in ("", "debug"):
        raise ConfigurationError(
            f"SINGCVMFS_LOGLEVEL={value}: the only level is debug",
            hint="leave it out for the usual messages",
        )
    return bool(value)


def _cache_image(environment: "Mapping[str, str]") -> "CacheImage | None":
    from cvmfsexec.apptainer.launch import CacheImage

    value = environment.get("SINGCVMFS_CACHEIMAGE", "")
    if not value:
        return None
    path = os.path.abspath(value)
    what = f"SINGCVMFS_CACHEIMAGE={value}"
    try:
        with open(path, "rb") as image:
            image.seek(_EXT_MAGIC_OFFSET)
            is_ext = image.read(len(_EXT_MAGIC)) == _EXT_MAGIC
    except OSError as error:
        raise ConfigurationError(f"{what}: {error.strerror}") from error
    if not is_ext:
        raise ConfigurationError(
            f"{what}: not an ext3 image",
            hint=f"make one: truncate -s 10G {value}; mkfs.ext3 -d DIRECTORY {value}",
        )
    directory = environment.get("SINGCVMFS_CACHEDIR") or "/"
    if not directory.startswith("/"):
        raise ConfigurationError(
            f"SINGCVMFS_CACHEDIR={directory}: with an image, it is a path in that, "
            "and begins with /"
        )
    return CacheImage(path, directory)


def _share_binds(environment: dict[str, str]) -> None:
    """Let any program see the user's binds, whatever variable has them."""
    from cvmfsexec.apptainer.program import BIND_VARIABLES

    binds = next(filter(None, map(environment.get, BIND_VARIABLES)), "")
    if binds:
        environment.update(dict.fromkeys(BIND_VARIABLES, binds))


def _become(words: tuple[str, ...], environment: dict[str, str]) -> int:
    """Become the container program; return only if that is not possible."""
    from cvmfsexec.namespaces.signals import SignalState, hand_back

    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    hand_back(SignalState(frozenset(mask), frozenset()))
    try:
        os.execve(words[0], words, environment)  # noqa: S606 -- no shell is wanted
    except OSError as error:
        write_message(_NAME, f"cannot execute {words[0]}: {error.strerror}")
        return exit_codes.CANNOT_EXECUTE
