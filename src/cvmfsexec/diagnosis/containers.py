"""The program that runs containers: what it is, and what its admin allows."""

from collections.abc import Iterator

from cvmfsexec.apptainer.installation import Installation
from cvmfsexec.diagnosis.finding import Finding, State

SUBJECT = "container program"


def findings(path: str, installation: Installation) -> Iterator[Finding]:
    """Tell how it is installed.

    Args:
        path: Where the program is.
        installation: What was found out about it.
    """
    privileges = "with setuid" if installation.has_setuid else "without setuid"
    text = f"{path}, version {installation.version}, {privileges}"
    yield Finding(SUBJECT, State.GOOD, text)
    place = installation.configuration
    if not installation.allows_fusemount:
        yield Finding(
            SUBJECT,
            State.WARNING,
            f"{place} has 'enable fusemount = no': singcvmfs can run only images that "
            "lie in repositories",
            "ask the administrator to allow it",
        )
    if not installation.allows_pid_namespace:
        yield Finding(
            SUBJECT,
            State.WARNING,
            f"{place} has 'allow pid ns = no': what a container leaves running goes on "
            "when it has ended",
            "ask the administrator to allow it",
        )
