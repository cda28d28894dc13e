"""Which small files come after one another: directories in the order of their rows.

That is the order of listings and of inode numbers, so that of ``tar``, ``cp -r`` and
``grep -r``. Catalogs are read in pages; a page is held, never a directory. After each
page comes a ``None``: whoever has seen enough of them without a file can stop, so that
no catalog, however odd, keeps one busy.
"""

from collections.abc import Iterator
from typing import NamedTuple

from cvmfsexec.catalog.reader import Catalog
from cvmfsexec.fetch import ObjectRequest
from cvmfsexec.format.dirent import DirectoryEntry, Flag
from cvmfsexec.format.names import PathHash
from cvmfsexec.repository.objects import file_request

SMALL_FILE_BYTES_MAX = 1 << 20
"""What is larger is rarely read in whole, and keeps a connection from the others."""

_PAGE_ROWS = 64
_DEPTH_MAX = 64  # directories below one another; beyond, a walk goes on beside
_OTHER_STORAGE = (
    Flag.DIRECTORY
    | Flag.SYMLINK
    | Flag.SPECIAL
    | Flag.CHUNKED
    | Flag.EXTERNAL
    | Flag.HIDDEN
)
_ANOTHER_CATALOG = Flag.NESTED_MOUNTPOINT | Flag.BIND_MOUNTPOINT | Flag.HIDDEN


class SmallFile(NamedTuple):
    """A small file that is one object.

    Attributes:
        directory: Hash of its directory's path.
        row: Its row.
        request: Its content.
    """

    directory: PathHash
    row: int
    request: ObjectRequest


def small_files_of(catalog: Catalog, directory: PathHash) -> Iterator[SmallFile | None]:
    """Yield the small files of one directory."""
    for page in _pages(catalog, directory, 0):
        for entry in page:
            file = _small_file(directory, entry)
            if file is not None:
                yield file
        yield None


def small_files_after(
    catalog: Catalog, directory: PathHash, row: int
) -> Iterator[SmallFile | None]:
    """Yield the small files after a row, then those of the directories that follow.

    Directories below are visited where they are met, after the last entry of one the
    one above goes on behind it. Other catalogs are left out.
    """
    yield from _below(catalog, directory, row, 0)
    while True:
        here = catalog.find(directory)
        if here is None or here.path_hash == here.parent_hash or not here.name:
            return
        directory = here.parent_hash
        if catalog.find(directory) is None:
            return  # the catalog begins here
        yield from _below(catalog, directory, here.row, 0)


def _below(
    catalog: Catalog, directory: PathHash, row: int, depth: int
) -> Iterator[SmallFile | None]:
    for page in _pages(catalog, directory, row):
        for entry in page:
            if entry.flags & Flag.DIRECTORY:
                if not entry.flags & _ANOTHER_CATALOG and depth < _DEPTH_MAX:
                    yield from _below(catalog, entry.path_hash, 0, depth + 1)
                continue
            file = _small_file(directory, entry)
            if file is not None:
                yield file
        yield None


def _pages(
    catalog: Catalog, directory: PathHash, row: int
) -> Iterator[list[DirectoryEntry]]:
    while True:
        page = catalog.list_(directory, after_row=row, limit=_PAGE_ROWS)
        yield page
        if len(page) < _PAGE_ROWS:
            return
        row = page[-1].row


def _small_file(directory: PathHash, entry: DirectoryEntry) -> SmallFile | None:
    if entry.flags & _OTHER_STORAGE or not 0 < entry.size <= SMALL_FILE_BYTES_MAX:
        return None
    content_hash = entry.content_hash
    if content_hash is None or content_hash.is_null:
        return None
    return SmallFile(directory, entry.row, file_request(entry, content_hash, b""))
