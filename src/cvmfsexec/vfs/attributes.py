"""What a file system answers with: the seam between the tree and the kernel.

``fuse`` adapts any ``FileSystem`` to kernel requests. It knows inodes, names and
bytes, but no catalogs; an implementation knows no FUSE.

Rules of the seam:

- All methods may be called from several threads at once.
- The kernel keeps every answer, ``None`` included, without end. What a file, a link or
  the like consists of never changes under its inode. A directory can change when
  another revision is shown; then ``Changes`` name everything that is not as it was.
- ``None`` is an answer that a verified catalog gave. What could not be found out is
  raised as a ``CvmfsError``, which an application sees as an I/O error.
"""

from collections.abc import Iterable
from typing import NamedTuple, NewType, Protocol

Inode = NewType("Inode", int)

ROOT_INODE = Inode(1)  # the kernel asks for it without having looked it up

BLOCK_BYTES = 512
"""Unit of ``Attributes.blocks`` and of ``FilesystemStatistics.blocks``."""

FIRST_COOKIE = 3
"""Smallest cookie of a listing; 0 to 2 stand for the start, ``.`` and ``..``."""


class Attributes(NamedTuple):
    """What ``stat`` tells; access and change time equal the modification time.

    Attributes:
        inode: Never 0.
        size: Bytes; for a link the length of its expanded target.
        blocks: Units of 512 bytes.
        mtime_s: Seconds since 1970, may be negative.
        mtime_ns: 0 to 999,999,999.
        mode: Type and permission bits.
        nlink: Links, at least 1.
        uid: Owner, as the user namespace of the mount numbers it.
        gid: Group, likewise.
        rdev: Device number in the kernel's 32-bit encoding; 0 for most.
    """

    inode: int
    size: int
    blocks: int
    mtime_s: int
    mtime_ns: int
    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int


class FilesystemStatistics(NamedTuple):
    """What ``statfs`` tells, in blocks of 512 bytes and numbers of inodes."""

    blocks: int
    free_blocks: int
    files: int
    free_files: int


class Changes(NamedTuple):
    """What is not as it was, now that another revision is shown.

    Attributes:
        names: Inodes of directories, and names in them that lead elsewhere now, or
            nowhere any more, or somewhere at last. What lies below goes with them.
        attributes: Inodes of directories of which other attributes are to be seen.
    """

    names: list[tuple[int, bytes]]
    attributes: list[int]


class FileSystem(Protocol):
    """A read-only tree of inodes.

    Every method raises ``CvmfsError`` where it cannot answer.
    """

    def lookup(self, parent: int, name: bytes) -> Attributes | None:
        """Return the entry of a directory by name, never ``.`` or ``..``."""

    def attributes(self, inode: int) -> Attributes | None:
        """Return an inode's attributes; ``None`` if there is none (any more)."""

    def list_(self, inode: int, after: int) -> Iterable[tuple[int, bytes, Attributes]]:
        """Return a directory's entries as (cookie, name, attributes).

        The result is taken piecemeal, at times by one thread and at times by another
        but never by two at once, and may be dropped unfinished. So a large directory
        is best produced in blocks.

        Args:
            inode: A directory.
            after: Where to go on: the cookie of the last entry seen; below
                ``FIRST_COOKIE`` from the start. Cookies ascend and keep their meaning,
                also when another revision is shown: a listing ends as it began.
        """

    def is_listed_now(self, inode: int, cookie: int) -> bool:
        """Whether a directory is still as it is listed by the one with this cookie.

        If not, the names may be told, but nothing must be kept of their attributes.
        """

    def parent(self, inode: int) -> int:
        """Return the inode of a directory's directory; the root's is the root."""

    def readlink(self, inode: int) -> bytes | None:
        """Return a link's target; ``None`` if the inode is not a link."""

    def read(self, inode: int, offset: int, size: int) -> bytes | memoryview:
        """Return ``size`` bytes of a regular file; fewer only at its end."""

    def getxattr(self, inode: int, name: bytes, gid: int = 0) -> bytes | None:
        """Return the value of an extended attribute; ``None`` if it is not there.

        Args:
            inode: Whose.
            name: Which.
            gid: The group of who asks; some values are not for everybody.
        """

    def listxattr(self, inode: int) -> list[bytes]:
        """Return the names of the extended attributes."""

    def statfs(self) -> FilesystemStatistics:
        """Return how full the file system is."""

    def describe(self, inode: int) -> str:
        """Return what messages call an inode, on one line; this never fails."""
