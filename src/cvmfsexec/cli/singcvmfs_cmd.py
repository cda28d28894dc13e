"""``singcvmfs …``: run a container with repositories in it (mode 4); not yet."""

from typing import NoReturn

from cvmfsexec.cli.not_yet import Command, decline

COMMAND = Command(
    name="singcvmfs",
    usage="[-V] [global options] {exec|instance|run|shell|version ...|command}",
    is_understood=lambda words: any(not word.startswith("-") for word in words),
    instead="start the container from inside: "
    "cvmfsexec REPOSITORY -- apptainer exec -B /cvmfs IMAGE COMMAND",
    version_option="-V",
)


def main() -> NoReturn:
    """Run the command line and exit."""
    decline(COMMAND)
