"""Any bytes are a tar archive, of which each name can be written, or a FormatError."""

from cvmfsexec.errors import FormatError
from cvmfsexec.format.archive import check_entries
from cvmfsexec.format.tar import parse_tar


def target(data: bytes) -> None:
    """Raise only on a finding."""
    try:
        entries = parse_tar(data)
    except FormatError:
        return
    check_entries(entries)
    assert all(b".." not in entry.path.split(b"/") for entry in entries)
