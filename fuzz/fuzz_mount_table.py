"""Any text is a mount table, or a FormatError."""

from cvmfsexec.errors import FormatError
from cvmfsexec.namespaces.mount_table import parse_mount_table


def target(data: bytes) -> None:
    """Raise only on a finding."""
    try:
        mounts = parse_mount_table(data.decode("utf-8", "surrogateescape"))
    except FormatError:
        return
    for mount in mounts:
        assert not mount.is_below(mount.mountpoint + "/below")
