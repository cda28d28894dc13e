"""Any bytes are a catalog, all of which can be read, or one of our errors."""

import tempfile
from contextlib import closing, suppress

from cvmfsexec.catalog.reader import Catalog
from cvmfsexec.errors import CvmfsError
from cvmfsexec.format.dirent import check_entry
from cvmfsexec.format.xattr import parse_xattrs


def target(data: bytes) -> None:
    """Raise only on a finding."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        with suppress(CvmfsError):
            read_everything(file.name)


def read_everything(path: str) -> None:
    """Read a catalog in every way there is.

    Raises:
        CvmfsError: The catalog is damaged.
    """
    with closing(Catalog.open(path)) as catalog:
        catalog.counters()
        for ref in catalog.nested():
            catalog.find_nested(ref.mountpoint)
        for entry in catalog.by_path():
            check_entry(entry)
        for entry in catalog.walk():
            check_entry(entry)
            parse_xattrs(entry.xattr)
            # A damaged tree may hide from a search what a scan comes across.
            found = catalog.find_row(entry.row)
            assert found is None or found.row == entry.row
            catalog.find(entry.path_hash)
            catalog.hardlink_row(entry)
            listing = catalog.listing(entry.path_hash, after_row=0, limit=100)
            rows = [child.row for child in catalog.list_(entry.path_hash)]
            assert list(listing.row) == rows[:100]
            assert rows == sorted(set(rows))
            if entry.is_chunked:
                chunks = catalog.chunks(entry)
                assert sum(chunk.size for chunk in chunks) == entry.size
