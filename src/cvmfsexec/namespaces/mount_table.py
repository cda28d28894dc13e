"""What is mounted where, as the kernel tells a process in ``/proc/self/mountinfo``.

Reading the table asks no file system anything: it cannot hang on a dead server and
wakes no automounter.

Source: proc_pid_mountinfo(5).
"""

import os
import re
from typing import NamedTuple

from cvmfsexec.errors import FormatError, NamespaceError

PATH = "/proc/self/mountinfo"

_SEPARATOR = "-"
_FIELDS_MIN = 6  # before the optional ones
_ESCAPED = re.compile(r"\\([0-7]{3})")


class Mount(NamedTuple):
    """One line of the table.

    Attributes:
        number: Names it as long as it exists.
        parent: Number of the mount that it is mounted on.
        root: Which directory of its file system is seen.
        mountpoint: Where; absolute. Of several at one place, the last one is seen.
        options: Of this mount, such as ``ro``.
        fstype: Such as ``fuse``.
        source: What was mounted, in the file system's own words.
        super_options: Of the file system, such as ``user_id=1000``.
        propagation: To and from other namespaces, such as ``shared:1``.
    """

    number: int
    parent: int
    root: str
    mountpoint: str
    options: tuple[str, ...]
    fstype: str
    source: str
    super_options: tuple[str, ...]
    propagation: tuple[str, ...] = ()

    @property
    def is_fuse(self) -> bool:
        """Whether a program serves it."""
        return self.fstype == "fuse" or self.fstype.startswith("fuse.")

    @property
    def is_shared(self) -> bool:
        """Whether what is mounted on it arrives in other namespaces."""
        return any(one.startswith("shared:") for one in self.propagation)

    def is_below(self, directory: str) -> bool:
        """Whether it is mounted somewhere below a directory, not on it."""
        return self.mountpoint.startswith(directory.rstrip("/") + "/")


def read_mount_table() -> tuple[Mount, ...]:
    """Return what this process sees mounted, in the order of mounting.

    Raises:
        NamespaceError: There is no table, or it is not understood.
    """
    try:
        # Bytes of a path that are no text become surrogates, as in all local paths.
        with open(PATH, "rb") as file:
            return parse_mount_table(os.fsdecode(file.read()))
    except OSError as error:
        raise NamespaceError(
            f"cannot read {PATH}: {error.strerror}", errno=error.errno or 0
        ) from error
    except FormatError as error:
        raise NamespaceError(f"cannot understand {PATH}: {error}") from error


def mount_of(path: str) -> Mount | None:
    """Return the mount in which a file is seen; ``None`` if that is not known.

    Raises:
        NamespaceError: There is no table, or it is not understood.
    """
    try:
        descriptor = os.open(path, os.O_PATH)
    except OSError:
        return None
    try:
        with open(f"/proc/self/fdinfo/{descriptor}", encoding="ascii") as info:
            found = re.search(r"^mnt_id:\s*(\d+)$", info.read(), re.MULTILINE)
    except OSError:
        return None
    finally:
        os.close(descriptor)
    number = int(found[1]) if found else -1
    return next((one for one in read_mount_table() if one.number == number), None)


def parse_mount_table(text: str) -> tuple[Mount, ...]:
    """Read a table.

    Raises:
        FormatError: A line is not what the kernel writes.
    """
    return tuple(_parse_line(line) for line in text.split("\n") if line)


def escape(path: str) -> str:
    """Write a path as the kernel does: blanks and backslashes as octal numbers."""
    return re.sub(r"[ \t\n\\#]", lambda found: f"\\{ord(found[0]):03o}", path)


def _parse_line(line: str) -> Mount:
    fields = line.split(" ")
    try:
        separator = fields.index(_SEPARATOR, _FIELDS_MIN)
        number, parent, _, root, mountpoint, options = fields[:_FIELDS_MIN]
        fstype, source, super_options = fields[separator + 1 :]
        return Mount(
            int(number),
            int(parent),
            _unescape(root),
            _unescape(mountpoint),
            tuple(options.split(",")),
            fstype,
            _unescape(source),
            tuple(super_options.split(",")),
            tuple(fields[_FIELDS_MIN:separator]),
        )
    except ValueError as error:
        raise FormatError(f"not a line of a mount table: {line[:200]!r}") from error


def _unescape(field: str) -> str:
    return _ESCAPED.sub(_byte, field) if "\\" in field else field


def _byte(found: re.Match[str]) -> str:
    number = int(found[1], 8)
    if number >= 0x80:  # the kernel escapes nothing but a few ASCII characters
        raise FormatError(f"unknown escape {found[0]!r}")
    return chr(number)
