"""``mountrepo REPOSITORY``: mount for all programs of the user (mode 1); not yet."""

from typing import NoReturn

from cvmfsexec.cli.not_yet import Command, decline

COMMAND = Command(
    name="mountrepo",
    usage="repository.name",
    is_understood=lambda words: len(words) == 1 and not words[0].startswith("-"),
    instead="run programs with the repository mounted: cvmfsexec REPOSITORY -- COMMAND",
)


def main() -> NoReturn:
    """Run the command line and exit."""
    decline(COMMAND)
