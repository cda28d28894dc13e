"""What a kernel keeps of a file system, and forgets when it is told to: a model of it.

It keeps every answer for ever, as the real one does: names with the inodes they lead to
(or that there is none), attributes, and listings.
"""

import stat

from cvmfsexec.errors import CvmfsError
from cvmfsexec.vfs.attributes import ROOT_INODE, Attributes, Changes
from cvmfsexec.vfs.file_system import RepositoryFileSystem


class KernelModel:
    """The kernel of one mount."""

    def __init__(self, file_system: RepositoryFileSystem) -> None:
        self.file_system = file_system
        self.asked = 0
        self.refusal: CvmfsError | None = None
        self._entries: dict[tuple[int, bytes], int | None] = {}
        self._attributes: dict[int, Attributes] = {}
        self._listings: dict[int, list[bytes]] = {}

    def tell(self, changes: Changes) -> None:
        """Forget what has changed."""
        for directory, name in changes.names:
            self.forget(directory, name)
            self._listings.pop(directory, None)
            self._attributes.pop(directory, None)
        for inode in changes.attributes:
            self._attributes.pop(inode, None)

    def refuse(self, error: CvmfsError | None) -> None:
        """Take note that every request is to fail."""
        self.refusal = error

    def forget(self, directory: int, name: bytes) -> None:
        """Drop a name and all that is below it; not what was read of a directory."""
        inode = self._entries.pop((directory, name), None)
        if inode is None:
            return
        self._attributes.pop(inode, None)
        self._listings.pop(inode, None)
        for below in [below for at, below in self._entries if at == inode]:
            self.forget(inode, below)

    def resolve(self, path: bytes) -> int | None:
        """Return the inode at a path."""
        inode: int | None = ROOT_INODE
        for name in filter(None, path.split(b"/")):
            if inode is None or not stat.S_ISDIR(self.attributes(inode).mode):
                return None
            inode = self.lookup(inode, name)
        return inode

    def lookup(self, directory: int, name: bytes) -> int | None:
        """Return the inode of a name."""
        if (directory, name) not in self._entries:
            self.asked += 1
            found = self.file_system.lookup(directory, name)
            self._enter(directory, name, found)
        return self._entries[directory, name]

    def attributes(self, inode: int) -> Attributes:
        """Return the attributes of an inode that exists."""
        if inode not in self._attributes:
            self.asked += 1
            found = self.file_system.attributes(inode)
            assert found is not None
            self._attributes[inode] = found
        return self._attributes[inode]

    def names(self, directory: int) -> list[bytes]:
        """Return the names in a directory."""
        if directory not in self._listings:
            self.asked += 1
            names = []
            for _, name, attributes in self.file_system.list_(directory, 0):
                names.append(name)
                self._enter(directory, name, attributes)
            self._listings[directory] = names
        return self._listings[directory]

    def _enter(self, directory: int, name: bytes, found: Attributes | None) -> None:
        known = self._entries.get((directory, name))
        if known is not None and (found is None or found.inode != known):
            self.forget(directory, name)
        self._entries[directory, name] = None if found is None else found.inode
        if found is not None:
            self._attributes[found.inode] = found
