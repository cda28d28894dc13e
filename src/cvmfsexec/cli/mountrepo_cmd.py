"""``mountrepo REPOSITORY``: mount for all programs of the user, until unmounted.

Inside of a session it asks the session instead.

Source: docs/reference/mountrepo.md.
"""

import os
from typing import Any, NoReturn

from cvmfsexec.cli import exit_codes
from cvmfsexec.cli.inside import is_inside, request_mount
from cvmfsexec.cli.mount_words import Arguments, MountWords, read_options, run_command
from cvmfsexec.errors import ConfigurationError
from cvmfsexec.format.pinned_name import parse_pinned_name

USAGE = "Usage: mountrepo [options] repository.name[@revision]\n"

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


_FLAGS: dict[str, dict[str, Any]] = {
    "--allow-other": {"allow_other": True},
    "--debug": {"verbosity": 2},
    "--help": {"wants_help": True},
    "--verbose": {"verbosity": 1},
}


def parse(words: list[str]) -> Arguments | None:
    """Read the words after the command's name; ``None`` if they are not understood."""
    read = read_options(words, _FLAGS)
    if read is None:
        return None
    arguments, rest = read
    if arguments.wants_help:
        return arguments
    return arguments._replace(repository=rest[0]) if len(rest) == 1 else None


def main() -> NoReturn:
    """Run the command line and exit."""
    run_command(MountWords("mountrepo", USAGE, HELP), parse, _mount)


def _mount(arguments: Arguments) -> int:
    name, pin = parse_pinned_name(arguments.repository)
    if is_inside(os.environ):
        if pin is not None:
            raise ConfigurationError(
                "inside of a session no revision can be chosen",
                hint=f"start one by 'cvmfsexec {arguments.repository} -- …'",
            )
        return request_mount(arguments.repository, os.environ)
    from cvmfsexec import log
    from cvmfsexec.cli.configuration import configuration_root
    from cvmfsexec.configuration.evaluate import complete_name, config_repository_of
    from cvmfsexec.configuration.mount_places import prepare_mount_place
    from cvmfsexec.host_mounts import MountRequest, mount
    from cvmfsexec.namespaces.fusermount import Fusermount

    root = configuration_root(arguments.dist)
    fqrn = complete_name(name, root, os.environ)
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
        pin=pin,
    )
    first = config_repository_of(root, os.environ) or ""
    mount(request, fqrn, first, exit_codes.exit_status_of)
    return exit_codes.OK
