"""A file system in memory behind the seam ``vfs.attributes.FileSystem``."""

import stat
from collections.abc import Iterator, Mapping

from cvmfsexec.errors import CvmfsError, FormatError
from cvmfsexec.vfs.attributes import (
    FIRST_COOKIE,
    ROOT_INODE,
    Attributes,
    FilesystemStatistics,
)

MTIME_S = 1_700_000_000

Tree = Mapping[bytes, "Tree | bytes | str | CvmfsError"]
"""Names to contents: a mapping is a directory, bytes a file, text a link's target, an
error what every question about the entry's contents raises."""


class Node:
    """One inode."""

    def __init__(self, inode: int, parent: int, content: object) -> None:
        self.inode = inode
        self.parent = parent
        self.content = content
        self.children: dict[bytes, Node] = {}
        self.names: list[bytes] = []
        self.xattrs: dict[bytes, bytes] = {}
        self.mode = _mode(content)
        self.attributes = self._attributes()

    def chmod(self, mode: int) -> None:
        """Change the permission bits."""
        self.mode = stat.S_IFMT(self.mode) | mode
        self.attributes = self._attributes()

    def _attributes(self) -> Attributes:
        size = 4096
        if isinstance(self.content, bytes | str):
            size = len(self.content)
        return Attributes(
            self.inode, size, 1 + size // 512, MTIME_S, 5, self.mode, 1, 0, 0, 0
        )


def _mode(content: object) -> int:
    if isinstance(content, Mapping):
        return stat.S_IFDIR | 0o755
    if isinstance(content, str):
        return stat.S_IFLNK | 0o777
    return stat.S_IFREG | 0o755


class MemoryFileSystem:
    """Answers from a tree that was given; counts how often listings were begun."""

    def __init__(self, tree: Tree) -> None:
        self.nodes: dict[int, Node] = {}
        self.listings_begun = 0
        self._next = 1 << 32 | 1
        self.root = self._add(ROOT_INODE, ROOT_INODE, tree)

    def node(self, path: bytes) -> Node:
        """Return the node at a path."""
        node = self.root
        for name in path.split(b"/"):
            node = node.children[name] if name else node
        return node

    def lookup(self, parent: int, name: bytes) -> Attributes | None:
        self._check(parent)
        child = self.nodes[parent].children.get(name)
        return None if child is None else child.attributes

    def attributes(self, inode: int) -> Attributes | None:
        node = self.nodes.get(inode)
        return None if node is None else node.attributes

    def list_(self, inode: int, after: int) -> Iterator[tuple[int, bytes, Attributes]]:
        self._check(inode)
        self.listings_begun += 1
        node = self.nodes[inode]
        start = max(after - FIRST_COOKIE + 1, 0)
        children = node.children
        for index in range(start, len(node.names)):
            name = node.names[index]
            yield index + FIRST_COOKIE, name, children[name].attributes

    def is_listed_now(self, inode: int, cookie: int) -> bool:  # noqa: ARG002
        return True

    def parent(self, inode: int) -> int:
        return self._node(inode).parent

    def readlink(self, inode: int) -> bytes | None:
        content = self._check(inode)
        return content.encode() if isinstance(content, str) else None

    def read(self, inode: int, offset: int, size: int) -> bytes | memoryview:
        content = self._check(inode)
        if not isinstance(content, bytes):
            raise FormatError(f"inode {inode} is no file")
        return memoryview(content)[offset : offset + size]

    def getxattr(self, inode: int, name: bytes, gid: int = 0) -> bytes | None:  # noqa: ARG002
        self._check(inode)
        return self.nodes[inode].xattrs.get(name)

    def listxattr(self, inode: int) -> list[bytes]:
        self._check(inode)
        return list(self.nodes[inode].xattrs)

    def describe(self, inode: int) -> str:
        return f"inode {inode:#x}"

    def statfs(self) -> FilesystemStatistics:
        return FilesystemStatistics(1000, 600, len(self.nodes), 7)

    def _check(self, inode: int) -> object:
        content = self._node(inode).content
        if isinstance(content, Exception):
            raise content
        return content

    def _node(self, inode: int) -> Node:
        node = self.nodes.get(inode)
        if node is None:
            raise FormatError(f"there is no inode {inode}")
        return node

    def _add(self, inode: int, parent: int, content: object) -> Node:
        node = Node(inode, parent, content)
        self.nodes[inode] = node
        if isinstance(content, Mapping):
            for name, below in content.items():
                child_inode, self._next = self._next, self._next + 1
                node.children[name] = self._add(child_inode, inode, below)
            node.names = list(node.children)
        return node
