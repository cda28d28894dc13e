"""How one client comes from one revision to another while it is mounted."""

from cvmfsexec.repository.catalog_tree import CatalogTree
from cvmfsexec.repository.revision import Revision


class MountedRevisions:
    """The revisions of one mount, one after the other."""

    def __init__(self, tree: CatalogTree) -> None:
        """Begin with what a tree shows."""
        self._tree = tree

    def newer(self, shown: Revision) -> Revision | None:  # noqa: ARG002
        """Return what is to be shown instead; ``None`` if nothing is."""
        return None

    def show(self, revision: Revision) -> Revision:
        """Show another revision from now on, and return it with its number."""
        return revision

    def ttl_s(self) -> int | None:
        """Return what the root catalog shown says; ``None`` if it does not."""
        return self._tree.catalog(self._tree.root).ttl_s
