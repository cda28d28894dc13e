"""Any lines are names of files, and links that stay in a dist."""

from cvmfsexec.distribution.client_packages import (
    PARTS,
    newest_part,
    parse_file_name,
    programs_of,
)
from cvmfsexec.distribution.machine_types import MachineType
from cvmfsexec.errors import FormatError
from cvmfsexec.format.archive import ArchiveEntry, EntryKind

_MACHINE = MachineType("rhel", "9", "x86_64")


def target(data: bytes) -> None:
    """Raise only on a finding."""
    lines = data.split(b"\n")
    names = [line.decode("utf-8", "replace") for line in lines]
    for name in names:
        found = parse_file_name(name)
        assert found is None or "/" not in found.name
    for part in PARTS:
        assert newest_part(names, part, _MACHINE) in ("", *names)
    pairs = zip(lines[::2], lines[1::2], strict=False)
    entries = [
        ArchiveEntry(path, EntryKind.LINK, target=target) for path, target in pairs
    ]
    try:
        taken = programs_of(entries)
    except FormatError:
        return
    for entry in taken:
        assert entry.path.startswith(b"usr/")
        assert not entry.target.startswith(b"/")
