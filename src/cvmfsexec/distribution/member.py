"""One member of an archive, before it is written."""

from enum import Enum
from typing import NamedTuple

SHORT_DIGEST_LENGTH = 16
"""Hexadecimal digits that name a runtime."""


class Kind(Enum):
    """What a member is."""

    FILE = "file"
    LINK = "link"
    DIRECTORY = "directory"


class Member(NamedTuple):
    """A file, a symbolic link or a directory.

    Attributes:
        path: Relative to the archive's root.
        kind: What it is.
        content: Of a file; of a link, where it points.
        is_executable: Whether a file can be run.
    """

    path: str
    kind: Kind = Kind.FILE
    content: bytes = b""
    is_executable: bool = False
