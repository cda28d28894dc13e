"""What is told of the program that runs containers."""

import pytest

from cvmfsexec.apptainer.installation import Installation
from cvmfsexec.diagnosis.containers import findings
from cvmfsexec.diagnosis.finding import State

GOOD = Installation(
    "1.4.5",
    "/etc/apptainer/apptainer.conf",
    has_setuid=False,
    allows_fusemount=True,
    allows_pid_namespace=True,
)


def test_version_and_privileges_are_told() -> None:
    (told,) = findings("/usr/bin/apptainer", GOOD)
    assert told.state is State.GOOD
    assert told.text == "/usr/bin/apptainer, version 1.4.5, without setuid"
    (told,) = findings("/usr/bin/apptainer", GOOD._replace(has_setuid=True))
    assert told.text.endswith("with setuid")


@pytest.mark.parametrize(
    ("installation", "setting"),
    [
        (GOOD._replace(allows_fusemount=False), "enable fusemount = no"),
        (GOOD._replace(allows_pid_namespace=False), "allow pid ns = no"),
    ],
)
def test_what_is_forbidden_is_named_with_its_place(
    installation: Installation, setting: str
) -> None:
    _, told = findings("/usr/bin/apptainer", installation)
    assert told.state is State.WARNING
    assert told.text.startswith(f"/etc/apptainer/apptainer.conf has '{setting}'")
    assert told.hint
