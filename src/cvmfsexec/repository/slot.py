"""A catalog's place in the tree of a repository.

A path in the repository and a path in a catalog differ only below a bind mountpoint:
there the catalog speaks of paths as if it were mounted at the root.
"""

from typing import NamedTuple

from cvmfsexec.format.digest import ContentHash
from cvmfsexec.format.names import PathHash, path_hash


class Slot(NamedTuple):
    """One catalog at one place of the tree.

    Attributes:
        number: Identity; never reused.
        mountpoint: Where the catalog's root appears in the repository.
        prefix: Path of the catalog's root as the catalog itself writes it.
        content_hash: Its object.
        size_bytes: Uncompressed; 0 if nobody announced it.
        parent: Number of the slot that refers to it; 0 for the root.
        is_bind: Whether it is bound here from elsewhere.
    """

    number: int
    mountpoint: bytes
    prefix: bytes
    content_hash: ContentHash
    size_bytes: int
    parent: int
    is_bind: bool

    def catalog_path(self, path: bytes) -> bytes:
        """Translate a repository path at or below the mountpoint."""
        return self.prefix + path[len(self.mountpoint) :]

    def hash_of(self, path: bytes) -> PathHash:
        """Hash a repository path the way this catalog knows it."""
        return path_hash(self.prefix + path[len(self.mountpoint) :])

    def repository_path(self, catalog_path: bytes) -> bytes:
        """Translate a path that this catalog wrote."""
        return self.mountpoint + catalog_path[len(self.prefix) :]
