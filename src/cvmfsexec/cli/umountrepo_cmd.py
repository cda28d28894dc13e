"""``umountrepo [-z] {REPOSITORY|-a}``: undo ``mountrepo``.

Inside of a session it asks the session instead.

Source: docs/reference/mountrepo.md.
"""

import os
import sys
from typing import Any, NoReturn

from cvmfsexec.cli import exit_codes
from cvmfsexec.cli.inside import is_inside, request_unmount
from cvmfsexec.cli.mount_words import Arguments, MountWords, read_options, run_command
from cvmfsexec.cli.report import write_message
from cvmfsexec.errors import CvmfsError

USAGE = "Usage: umountrepo [options] [-z] {repository.name|-a}\n"

HELP = (
    USAGE
    + """
Unmount what mountrepo has mounted for this dist.

  -a               all repositories, the latest first
  -z               lazily: at once from its place, for good when nobody uses it
  --dist DIR       as for cvmfsexec
  --verbose        say on stderr what is going on
  --help           this text
"""
)


_FLAGS: dict[str, dict[str, Any]] = {
    "-a": {"wants_all": True},
    "-z": {"is_lazy": True},
    "-az": {"wants_all": True, "is_lazy": True},
    "-za": {"wants_all": True, "is_lazy": True},
    "--help": {"wants_help": True},
    "--verbose": {"verbosity": 1},
}


def parse(words: list[str]) -> Arguments | None:
    """Read the words after the command's name; ``None`` if they are not understood."""
    read = read_options(words, _FLAGS)
    if read is None:
        return None
    arguments, rest = read
    if arguments.wants_help or (arguments.wants_all and not rest):
        return arguments
    is_one = len(rest) == 1 and not arguments.wants_all
    return arguments._replace(repository=rest[0]) if is_one else None


def main() -> NoReturn:
    """Run the command line and exit."""
    run_command(MountWords("umountrepo", USAGE, HELP), parse, _unmount)


def _unmount(arguments: Arguments) -> int:
    """Unmount what was asked for; the answer is the worst exit status."""
    if is_inside(os.environ):
        return request_unmount(
            arguments.repository, os.environ, is_lazy=arguments.is_lazy
        )
    from cvmfsexec.cli.configuration import configuration_root
    from cvmfsexec.configuration.evaluate import complete_name, config_repository_of
    from cvmfsexec.configuration.mount_places import mount_places
    from cvmfsexec.host_mounts import mounted

    root = configuration_root(arguments.dist)
    mountpoints = mounted(mount_places(root), os.getuid())
    if arguments.wants_all:
        first = config_repository_of(root, os.environ) or ""
        mountpoints.sort(key=lambda path: os.path.basename(path) == first)
    else:
        fqrn = complete_name(arguments.repository, root, os.environ)
        mountpoints = [one for one in mountpoints if os.path.basename(one) == fqrn][:1]
        if not mountpoints:
            sys.stderr.write(f"{fqrn} not mounted\n")
            return exit_codes.UNKNOWN_ERROR
    statuses = [_unmount_one(one, is_lazy=arguments.is_lazy) for one in mountpoints]
    return max(statuses, default=exit_codes.OK)


def _unmount_one(mountpoint: str, *, is_lazy: bool) -> int:
    from cvmfsexec.host_mounts import unmount
    from cvmfsexec.namespaces.fusermount import Fusermount

    fqrn = os.path.basename(mountpoint)
    print("Lazily unmounting" if is_lazy else "Unmounting", fqrn, flush=True)
    helper = Fusermount(os.environ.get("PATH", ""))
    try:
        unmount(helper, mountpoint, is_lazy=is_lazy)
    except CvmfsError as error:
        write_message("umountrepo", str(error), error.hint)
        return exit_codes.exit_status_of(error)
    return exit_codes.OK
