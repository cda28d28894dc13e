"""``umountrepo [-z] {REPOSITORY|-a}``: undo ``mountrepo``; not yet."""

from typing import NoReturn

from cvmfsexec.cli.not_yet import Command, decline


def _is_understood(words: list[str]) -> bool:
    rest = words[1:] if words[:1] == ["-z"] else words
    return len(rest) == 1 and (rest == ["-a"] or not rest[0].startswith("-"))


COMMAND = Command(
    name="umountrepo",
    usage="[-z] {repository.name|-a}",
    is_understood=_is_understood,
    instead="nothing needs it, because what cvmfsexec mounts ends with its command",
)


def main() -> NoReturn:
    """Run the command line and exit."""
    decline(COMMAND)
