"""``makedist …``: make a dist, or pack one into a single file; not yet."""

import getopt
from typing import NoReturn

from cvmfsexec.cli.not_yet import Command, decline

_CONFIGURATIONS = ("default", "egi", "none", "osg")


def _is_understood(words: list[str]) -> bool:
    try:
        options, rest = getopt.getopt(words, "sv:m:o:")
    except getopt.GetoptError:
        return False
    if any(name == "-o" for name, _value in options):
        return not rest
    return len(rest) == 1 and rest[0] in _CONFIGURATIONS


COMMAND = Command(
    name="makedist",
    usage="[-s] [-v version] [-m machinetype] {default|egi|none|osg} | [-s] -o FILE",
    is_understood=_is_understood,
    instead="write the few files of dist/etc/cvmfs by hand, as "
    "docs/how-to/run-at-a-site.md shows, or use this machine's with --dist /",
    usage_status=2,
)


def main() -> NoReturn:
    """Run the command line and exit."""
    decline(COMMAND)
