"""Any bytes as a root catalog: each question of a kernel has an answer, or an error.

Then the same bytes are another revision. The walk is that of an application: it goes by
what it is told, but not for ever.
"""

import itertools
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress

from cvmfsexec.errors import CvmfsError, TransferError
from cvmfsexec.fetch import ObjectRequest
from cvmfsexec.format.digest import ContentHash
from cvmfsexec.repository.catalog_tree import CatalogTree
from cvmfsexec.vfs.attributes import ROOT_INODE, Attributes, FilesystemStatistics
from cvmfsexec.vfs.descriptors import DescriptorCache
from cvmfsexec.vfs.extended_attributes import ExtendedAttributes, Sources
from cvmfsexec.vfs.file_system import RepositoryFileSystem
from cvmfsexec.vfs.presentation import Presentation

ROOT = ContentHash(b"\1" * 20)
NEXT_ROOT = ContentHash(b"\2" * 20)
ENTRIES_MAX = 50
DEPTH_MAX = 5

NOTHING = Sources(
    chunk_list=lambda _: [],
    cached_hash=lambda _: None,
    catalog_counters=lambda _: "",
    external_url=lambda _: "",
)
PRESENTATION = Presentation(
    variables={"HOME": "/home"},
    shown_uid=lambda uid: uid,
    shown_gid=lambda gid: gid,
    is_world_readable=True,
)


class OneCatalog:
    """Opens the bytes of an input as any root catalog, and has nothing else."""

    def __init__(self, path: str) -> None:
        self._path = path

    def open(
        self,
        request: ObjectRequest,
        missed: Callable[[], object] | None = None,  # noqa: ARG002 -- nobody counts
    ) -> int:
        """Return a descriptor."""
        request.check()
        if request.content_hash not in (ROOT, NEXT_ROOT):
            raise TransferError("nowhere")
        return os.open(self._path, os.O_RDONLY)

    def pin(self, content_hash: ContentHash) -> None:
        """Do nothing: what is there stays."""

    def discard(self, content_hash: ContentHash, damaged: int | None = None) -> None:
        """Do nothing: what is damaged is so for good."""


def target(data: bytes) -> None:
    """Raise only on a finding."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        objects = OneCatalog(file.name)
        tree = CatalogTree(objects, ROOT)
        files = RepositoryFileSystem(
            tree,
            DescriptorCache(objects.open),
            PRESENTATION,
            ExtendedAttributes({}, NOTHING, lambda _: True),
            lambda: FilesystemStatistics(0, 0, 0, 0),
        )
        try:
            _visit(files, ROOT_INODE, DEPTH_MAX)
            _update(files)
        finally:
            tree.close()


def _update(files: RepositoryFileSystem) -> None:
    with suppress(CvmfsError):
        changes = files.show(NEXT_ROOT)
        for directory, name in changes.names:
            assert 0 < directory < 1 << 64
            assert 0 < len(name) < 256
        _visit(files, ROOT_INODE, DEPTH_MAX)


def _visit(files: RepositoryFileSystem, inode: int, depth: int) -> None:
    assert files.describe(inode).isprintable()
    for ask in (files.parent, files.readlink, files.listxattr, files.attributes):
        with suppress(CvmfsError):
            ask(inode)
    with suppress(CvmfsError):
        files.getxattr(inode, b"user.hash")
    with suppress(CvmfsError):
        files.read(inode, 1000, 1 << 20)
    if not depth:
        return
    with suppress(CvmfsError):
        listing = files.list_(inode, 0)
        cookies = []
        for cookie, name, attributes in itertools.islice(listing, ENTRIES_MAX):
            cookies.append(cookie)
            _check(name, attributes)
            with suppress(CvmfsError):
                files.lookup(inode, name)
            _visit(files, attributes.inode, depth - 1)
        assert cookies == sorted(set(cookies))


def _check(name: bytes, attributes: Attributes) -> None:
    assert 0 < len(name) < 256
    assert b"/" not in name
    assert name not in (b".", b"..")
    assert 0 < attributes.inode < 1 << 64
    assert attributes.inode != ROOT_INODE
    assert 0 <= attributes.size < 1 << 63
    assert 0 <= attributes.rdev < 1 << 32
    assert 0 < attributes.nlink < 1 << 32
