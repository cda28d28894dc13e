"""On what kind of file system a directory lies, by the name that the kernel gives it.

The mount table knows it better than ``statfs``: file systems of FUSE have one number in
common, and their names here.

Source: proc_pid_mountinfo(5).
"""

import os

NETWORK_TYPES = frozenset(
    {
        "9p",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "fuse.beegfs",
        "fuse.ceph",
        "fuse.glusterfs",
        "fuse.juicefs",
        "fuse.sshfs",
        "gpfs",
        "lustre",
        "nfs",
        "nfs4",
        "ocfs2",
        "orangefs",
        "panfs",
        "smb3",
        "virtiofs",
        "wekafs",
    }
)

_TABLE = "/proc/self/mountinfo"
_SEPARATOR = b" - "
_DEVICE_FIELD = 2


def network_type_of(directory: int) -> str | None:
    """Return the name of a network file system; ``None`` for a local one.

    Args:
        directory: Descriptor of the directory.
    """
    name = file_system_type_of(directory)
    return name if name in NETWORK_TYPES else None


def file_system_type_of(directory: int) -> str:
    """Return the name of a directory's file system, or an empty text."""
    try:
        device = os.fstat(directory).st_dev
        with open(_TABLE, "rb") as table:
            return type_of_device(table.read(), os.major(device), os.minor(device))
    except OSError:
        return ""  # no /proc, or a masked one; or the file system is lost


def type_of_device(table: bytes, major: int, minor: int) -> str:
    """Return the file system of a device, as a mount table names it."""
    wanted = b"%d:%d" % (major, minor)
    for line in table.splitlines():
        before, separator, after = line.partition(_SEPARATOR)
        fields = before.split(b" ", _DEVICE_FIELD + 1)
        if (
            separator
            and len(fields) > _DEVICE_FIELD
            and fields[_DEVICE_FIELD] == wanted
        ):
            return after.split(b" ", 1)[0].decode("ascii", "replace")
    return ""
