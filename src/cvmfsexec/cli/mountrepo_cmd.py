"""``mountrepo REPOSITORY``: mount for all programs of the user, until unmounted.

Inside of a session it asks the session instead.

Source: docs/reference/mountrepo.md.
"""

import os
import signal
import sys
from typing import Any, NamedTuple, NoReturn

from cvmfsexec.cli import exit_codes
from cvmfsexec.cli.inside import is_inside, request_mount
from cvmfsexec.cli.report import replace_missing_streams, report_error, set_verbosity
from cvmfsexec.errors import CvmfsError

USAGE = "Usage: mountrepo [options] repository.name\n"

HELP = (
    USAGE
    + """
Mount a CernVM-FS repository by fusermount at dist/cvmfs/repository.name, for all
programs of this user, until it is unmounted by umountrepo. The repository that
configures it is mounted first. If it is mounted already, all is well.

  --dist DIR       as for cvmfsexec
  --allow-other    other users may read; /etc/fuse.conf must permit it
  --verbose        say on stderr what is going on
  --debug          say everything
  --help           this text
"""
)


class Arguments(NamedTuple):
    """What the command line asks for.

    Attributes:
        repository: Name as typed.
        verbosity: 0 quiet, 1 verbose, 2 debug.
    """

    repository: str = ""
    dist: str | None = None
    allow_other: bool = False
    verbosity: int = 0
    wants_help: bool = False


def parse(words: list[str]) -> Arguments | None:
    """Read the words after the command's name; ``None`` if they are not understood."""
    arguments = Arguments()
    rest = list(words)
    while rest and rest[0].startswith("-"):
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if name == "--dist" and (equals or rest):
            arguments = arguments._replace(dist=value if equals else rest.pop(0))
        elif word in _FLAGS:
            arguments = arguments._replace(**_FLAGS[word])
        else:
            return None
    if arguments.wants_help:
        return arguments
    return arguments._replace(repository=rest[0]) if len(rest) == 1 else None


_FLAGS: dict[str, dict[str, Any]] = {
    "--allow-other": {"allow_other": True},
    "--debug": {"verbosity": 2},
    "--help": {"wants_help": True},
    "--verbose": {"verbosity": 1},
}


def main() -> NoReturn:
    """Run the command line and exit."""
    replace_missing_streams()
    # Where it is ignored, the kernel forgets how the helper has ended.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        status = _main(sys.argv[1:])
    except KeyboardInterrupt:
        status = exit_codes.INTERRUPTED
    sys.exit(status)


def _main(words: list[str]) -> int:
    arguments = parse(words)
    if arguments is None:
        sys.stderr.write(USAGE)
        return exit_codes.USAGE
    if arguments.wants_help:
        sys.stdout.write(HELP)
        return exit_codes.OK
    set_verbosity("mountrepo", arguments.verbosity)
    if is_inside(os.environ):
        return request_mount(arguments.repository, os.environ)
    try:
        _mount(arguments)
    except CvmfsError as error:
        report_error("mountrepo", error)
        return exit_codes.exit_status_of(error)
    return exit_codes.OK


def _mount(arguments: Arguments) -> None:
    from cvmfsexec import log
    from cvmfsexec.cli.configuration import configuration_root
    from cvmfsexec.configuration.evaluate import complete_name, config_repository_of
    from cvmfsexec.configuration.mount_places import prepare_mount_place
    from cvmfsexec.host_mounts import MountRequest, mount
    from cvmfsexec.namespaces.fusermount import Fusermount

    root = configuration_root(arguments.dist)
    fqrn = complete_name(arguments.repository, root, os.environ)
    place = prepare_mount_place(root)
    if os.path.realpath(root.dist) != place.top:
        log.warning("%s cannot be written: mounting below %s", root.dist, place.top)
    request = MountRequest(
        root,
        place,
        dict(os.environ),
        os.getuid(),
        os.getgid(),
        Fusermount(os.environ.get("PATH", "")),
        allow_other=arguments.allow_other,
    )
    first = config_repository_of(root, os.environ) or ""
    mount(request, fqrn, first, exit_codes.exit_status_of)
