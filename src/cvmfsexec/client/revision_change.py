"""How one mount comes from one revision to another.

What is new is found and verified as at the start (``RevisionSelector``), shown by the
file system under the inodes of what was there, and told to the kernel, in this order.
A site that blacklists the revision shown while it is mounted wants nobody to go on with
it: every request fails then, until another one can be shown or the blacklist is taken
back.
"""

from collections.abc import Callable
from typing import Protocol

from cvmfsexec import log
from cvmfsexec.catalog.reader import Catalog
from cvmfsexec.errors import CvmfsError, RevisionBlacklistedError
from cvmfsexec.format.blacklist import Blacklist
from cvmfsexec.repository.catalog_tree import CatalogTree
from cvmfsexec.repository.revision import Revision, RevisionSelector
from cvmfsexec.trust.chain import check_revision
from cvmfsexec.vfs.attributes import ROOT_INODE, Changes
from cvmfsexec.vfs.file_system import RepositoryFileSystem


class Kernel(Protocol):
    """What is to be told that another revision is shown."""

    def tell(self, changes: Changes) -> None:
        """Tell what has changed."""

    def refuse(self, error: CvmfsError | None) -> None:
        """Fail every request from now on; none any more if ``None``."""


class MountedRevisions:
    """The revisions of one mount, one after the other. Used by one thread at a time."""

    def __init__(
        self,
        tree: CatalogTree,
        selector: RevisionSelector,
        read_blacklist: Callable[[], Blacklist],
        admit: Callable[[Catalog], object],
    ) -> None:
        """Begin with what a tree shows.

        Args:
            tree: The catalogs of the mount.
            selector: Decides which revision is believed.
            read_blacklist: Returns what the site refuses at the moment.
            admit: Raises if the user may not have the repository with a root catalog.
        """
        self._tree = tree
        self._selector = selector
        self._read_blacklist = read_blacklist
        self._admit = admit
        self._file_system: RepositoryFileSystem | None = None
        self._kernel: Kernel | None = None
        self._is_refused = False

    def serve(self, file_system: RepositoryFileSystem, kernel: Kernel) -> None:
        """Show revisions in a file system, and tell a kernel."""
        self._file_system = file_system
        self._kernel = kernel

    def newer(self, shown: Revision) -> Revision | None:
        """Return what is to be shown instead; ``None`` if nothing is.

        Without a file system there is nothing to show it in.

        Raises:
            RevisionBlacklistedError: What is shown may not be, and there is nothing
                newer that may.
            CvmfsError: No server can be believed.
        """
        if self._file_system is None:
            return None
        self._selector.blacklist = self._read_blacklist()
        try:
            newer = self._selector.newer(shown)
            if newer is None:
                self._check(shown)
        except CvmfsError as error:
            self._check(shown, error)
            raise
        if newer is None:
            self._allow()
        return newer

    def show(self, revision: Revision) -> Revision:
        """Show another revision from now on, and return it with its number.

        Raises:
            CvmfsError: It cannot be shown; the one before goes on being.
        """
        if self._file_system is None or self._kernel is None:
            return revision
        with self._selector.root_catalog(revision) as catalog:
            if not revision.number:
                revision = revision._replace(number=catalog.revision)
            check_revision(revision.number, self._selector.trust)
            self._admit(catalog)
        if revision.has_alternative_path:
            self._tree.open_by_alternative_path(revision.root_catalog)
        changes = self._file_system.show(
            revision.root_catalog, revision.root_catalog_size
        )
        self._kernel.tell(changes)
        self._allow()
        log.info("switched to catalog revision %d", revision.number)
        return revision

    def ttl_s(self) -> int | None:
        """Return what the root catalog shown says; ``None`` if it does not."""
        return self._tree.catalog(self._tree.root).ttl_s

    def _check(self, shown: Revision, reason: CvmfsError | None = None) -> None:
        """Refuse everything if the revision shown is blacklisted by now."""
        try:
            check_revision(shown.number, self._selector.trust)
        except RevisionBlacklistedError as error:
            self._refuse(error)
            raise error from reason

    def _refuse(self, error: CvmfsError) -> None:
        if self._kernel is None or self._file_system is None or self._is_refused:
            return
        names = [name for _, name, _ in self._file_system.list_(ROOT_INODE, 0)]
        log.error("nothing is shown any more: %s", error)
        self._is_refused = True
        self._kernel.refuse(error)
        self._kernel.tell(Changes([(ROOT_INODE, name) for name in names], []))

    def _allow(self) -> None:
        if self._is_refused and self._kernel is not None:
            self._is_refused = False
            self._kernel.refuse(None)
