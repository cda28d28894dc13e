"""Any name of an attribute has a value of bounded size, or none."""

import stat

from cvmfsexec.format.digest import ContentHash
from cvmfsexec.format.dirent import DirectoryEntry, Flag
from cvmfsexec.format.names import ROOT
from cvmfsexec.format.xattr import serialize_xattrs
from cvmfsexec.repository.lookup import Location
from cvmfsexec.repository.slot import Slot
from cvmfsexec.vfs.extended_attributes import (
    PAGE_BYTES,
    ExtendedAttributes,
    Sources,
)

HEADING_BYTES = 100
ENTRY = DirectoryEntry(
    *(1, b"x", 10, stat.S_IFREG | 0o644, 0, 0, Flag.FILE, 1, 0, 0),
    *(b"", b"\1" * 20, serialize_xattrs({b"user.mine~3": b"m"}), 0, 0, 0, 0),
)
SLOT = Slot(1, ROOT, ROOT, ContentHash(bytes(20)), 0, 0, is_bind=False)
ATTRIBUTES = ExtendedAttributes(
    {b"user.long": lambda: "x" * 100_001, b"user.empty": str},
    Sources(
        chunk_list=lambda _: [("aa", 0, 10)] * 5000,
        cached_hash=lambda _: None,
        catalog_counters=lambda _: "",
        external_url=lambda _: "",
    ),
    lambda _: True,
)


def target(data: bytes) -> None:
    """Raise only on a finding."""
    value = ATTRIBUTES.find(Location(b"/x", SLOT, ENTRY), data)
    assert value is None or len(value) <= PAGE_BYTES + HEADING_BYTES
