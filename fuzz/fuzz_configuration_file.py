"""Any text is evaluated without a shell, or left to the shell; nothing else.

What is evaluated must be stable: the values, written down literally, are the same
again. (Whether shells agree is a property test; this one must not run foreign text.)
"""

import os

from cvmfsexec.configuration.assignments import assigned_names
from cvmfsexec.configuration.plain import evaluate_plainly

ENVIRONMENT = {"HOME": "/home/user", "CVMFS_FQRN": "x.example.org", "CVMFS_B": " a  b "}


def target(data: bytes) -> None:
    """Raise only on a finding."""
    text = os.fsdecode(data)
    values = evaluate_plainly(text, "/nonexistent", ENVIRONMENT)
    if values is None:
        return
    assert tuple(values) == assigned_names(text)
    literal = "".join(
        f'{n}="{v}"\n' for n, v in values.items() if not set('"$`') & set(v)
    )
    again = evaluate_plainly(literal, "/nonexistent", {})
    assert again is not None
    assert again.items() <= values.items()
