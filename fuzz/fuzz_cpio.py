"""Any bytes are a cpio archive, of which each name can be written, or a FormatError."""

from cvmfsexec.errors import FormatError
from cvmfsexec.format.archive import check_entries
from cvmfsexec.format.cpio import parse_cpio


def target(data: bytes) -> None:
    """Raise only on a finding."""
    try:
        entries = parse_cpio(data)
    except FormatError:
        return
    check_entries(entries)
    assert all(b".." not in entry.path.split(b"/") for entry in entries)
    assert sum(len(entry.target) for entry in entries) <= len(data)
