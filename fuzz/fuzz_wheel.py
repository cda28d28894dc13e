"""Any bytes are a wheel whose files stay in their tree, or a FormatError."""

from cvmfsexec.distribution.wheels import parse_wheel
from cvmfsexec.errors import FormatError


def target(data: bytes) -> None:
    """Raise only on a finding."""
    try:
        entries = parse_wheel(data)
    except FormatError:
        return
    for entry in entries:
        assert not entry.path.startswith(b"/")
        assert b".." not in entry.path.split(b"/")
