"""A file system that writes down what is touched in it, for who asked for that.

The kernel asks for everything once at least, so what a job has touched is known in the
end: which directories something was looked up or listed in, and which parts of which
files were read. Each is written once, when it happens, in one system call; several file
servers may write to the same file. Where nobody traces, this module is not imported.

Threads: any. Two that touch the same at the same moment may both write it.
"""

import os
import time
from collections.abc import Iterable
from typing import Protocol, Self

from cvmfsexec import log
from cvmfsexec.errors import ConfigurationError, CvmfsError
from cvmfsexec.format.trace import Event, TraceRecord
from cvmfsexec.vfs.attributes import Attributes, FileSystem, FilesystemStatistics

BLOCK_BYTES = 4 << 20
"""Of files, it is written which of these were read: about half a chunk."""

REMEMBERED_MAX = 1_000_000
"""Then everything is forgotten, and written again if it is touched again."""

_INODE_BITS = 64

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC


class FileSystemWithPaths(FileSystem, Protocol):
    """A file system that knows where its inodes are."""

    def path_of(self, inode: int) -> bytes:
        """Return the path of an inode."""


class TracedFileSystem:
    """Passes everything on, and writes it down.

    Args:
        inner: What answers.
        output: Descriptor of the trace; becomes ours.
        fqrn: Said in the trace; empty if one repository has the trace for its own.
    """

    def __init__(self, inner: FileSystemWithPaths, output: int, fqrn: str) -> None:
        self._inner = inner
        self._output = output
        self._fqrn = fqrn
        self._directories: set[int] = set()
        self._links: set[int] = set()
        self._blocks: set[int] = set()  # a tuple would take twice the memory
        self.attributes = inner.attributes
        self.parent = inner.parent
        self.is_listed_now = inner.is_listed_now
        self.getxattr = inner.getxattr
        self.listxattr = inner.listxattr
        self.describe = inner.describe

    @classmethod
    def open(cls, inner: FileSystemWithPaths, path: str, fqrn: str) -> Self:
        """Begin or continue the trace in a file.

        Raises:
            ConfigurationError: It cannot be written.
        """
        try:
            output = os.open(path, _FLAGS, 0o644)
        except OSError as error:
            raise ConfigurationError(
                f"cannot write the trace {path}: {error.strerror}",
                hint="look at --trace and CVMFS_TRACEFILE",
            ) from error
        return cls(inner, output, fqrn)

    def lookup(self, parent: int, name: bytes) -> Attributes | None:
        """See ``FileSystem``."""
        if parent not in self._directories:
            self._enter(parent)
        return self._inner.lookup(parent, name)

    def list_(self, inode: int, after: int) -> Iterable[tuple[int, bytes, Attributes]]:
        """See ``FileSystem``."""
        if inode not in self._directories:
            self._enter(inode)
        return self._inner.list_(inode, after)

    def readlink(self, inode: int) -> bytes | None:
        """See ``FileSystem``."""
        if inode not in self._links:
            _remember(self._links, inode)
            self._write(Event.READLINK, inode)
        return self._inner.readlink(inode)

    def read(self, inode: int, offset: int, size: int) -> bytes | memoryview:
        """See ``FileSystem``."""
        for number in range(
            offset // BLOCK_BYTES, max(offset, offset + size - 1) // BLOCK_BYTES + 1
        ):
            block = number << _INODE_BITS | inode
            if block not in self._blocks:
                _remember(self._blocks, block)
                self._write(Event.OPEN, inode, (number * BLOCK_BYTES, BLOCK_BYTES))
        return self._inner.read(inode, offset, size)

    def statfs(self) -> FilesystemStatistics:
        """See ``FileSystem``."""
        return self._inner.statfs()

    def _enter(self, directory: int) -> None:
        _remember(self._directories, directory)
        self._write(Event.OPENDIR, directory)

    def _write(
        self, event: Event, inode: int, extent: tuple[int, int | None] = (0, None)
    ) -> None:
        if self._output < 0:
            return
        try:
            path = self._inner.path_of(inode)
        except CvmfsError:
            return  # whoever asked is told by what comes now
        at_us = time.time_ns() // 1000
        line = TraceRecord(at_us, event, self._fqrn, path, *extent).serialize()
        try:
            os.write(self._output, line)
        except OSError as error:
            log.warning("the trace ends here: %s", error.strerror)
            self._output = -1


def _remember(seen: set[int], item: int) -> None:
    if len(seen) >= REMEMBERED_MAX:
        seen.clear()
    seen.add(item)
