"""Any bytes are a Debian package whose entries stay in their tree, or a FormatError."""

from cvmfsexec.errors import FormatError
from cvmfsexec.format.deb import parse_deb


def target(data: bytes) -> None:
    """Raise only on a finding."""
    try:
        package = parse_deb(data)
    except FormatError:
        return
    assert package.name
    for entry in package.entries:
        assert not entry.path.startswith(b"/")
        assert b".." not in entry.path.split(b"/")
