"""How entries look: owners, modes, sizes, devices, link targets."""

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.catalog.reader import Catalog
from cvmfsexec.format.dirent import DirectoryEntry, Flag, Listing
from cvmfsexec.format.names import path_hash
from cvmfsexec.vfs.attributes import Attributes
from cvmfsexec.vfs.presentation import Presentation
from tests.support.catalog_files import (
    MTIME_S,
    Cells,
    directory,
    entry,
    link,
    write_catalog,
)

SPECIAL = Flag.FILE | Flag.SPECIAL


def presentation(
    variables: Mapping[str, str] | None = None, *, is_world_readable: bool = False
) -> Presentation:
    return Presentation(
        variables=variables or {},
        shown_uid=lambda uid: uid + 10_000,
        shown_gid=lambda gid: gid + 20_000,
        is_world_readable=is_world_readable,
    )


@pytest.fixture
def shown(tmp_path: Path) -> Any:  # noqa: ANN401 -- a function with options
    """Return a function that shows the entry ``/x`` of these cells."""

    def show(cells: Cells, **rules: Any) -> Attributes:  # noqa: ANN401
        view, found = presentation(**rules), read_back(tmp_path, cells)
        attributes = view.attributes(found, 99)
        assert list(view.listed(listing_of([found, found]), [99, 5])) == [
            attributes,
            attributes._replace(inode=5),
        ]
        return attributes

    return show


def listing_of(entries: list[DirectoryEntry]) -> Listing:
    columns: Any = zip(*entries, strict=True)
    return Listing(*list(columns)[: len(Listing._fields)])


def read_back(directory: Path, cells: Cells) -> DirectoryEntry:
    catalog = Catalog.open(write_catalog(directory / "catalog", catalog=[cells]))
    found = catalog.find(path_hash(b"/x"))
    assert found is not None
    catalog.close()
    return found


def test_a_file_is_shown_as_published(shown: Any) -> None:  # noqa: ANN401
    assert shown(entry(b"/x", size=1000)) == Attributes(
        inode=99,
        size=1000,
        blocks=2,
        mtime_s=MTIME_S,
        mtime_ns=123_456_789,
        mode=stat.S_IFREG | 0o644,
        nlink=1,
        uid=11_000,
        gid=21_001,
        rdev=0,
    )


@pytest.mark.parametrize(
    ("size", "blocks"), [(0, 1), (511, 1), (512, 2), (513, 2), (1 << 40, (1 << 31) + 1)]
)
def test_blocks_are_counted_as_the_original_does(
    shown: Any,  # noqa: ANN401
    size: int,
    blocks: int,
) -> None:
    assert shown(entry(b"/x", size=size)).blocks == blocks


@pytest.mark.parametrize(
    ("hardlinks", "nlink"), [(0, 1), (1, 1), (2, 2), (7 << 32 | 3, 3), (7 << 32, 1)]
)
def test_links_are_counted(shown: Any, hardlinks: int, nlink: int) -> None:  # noqa: ANN401
    assert shown(entry(b"/x", hardlinks=hardlinks)).nlink == nlink


@pytest.mark.parametrize("mtime_s", [-1, -(2**40), 0, 2**40])
def test_times_may_be_before_1970(shown: Any, mtime_s: int) -> None:  # noqa: ANN401
    assert shown(entry(b"/x", mtime=mtime_s)).mtime_s == mtime_s


@pytest.mark.parametrize(
    ("cells", "mode"),
    [
        (entry(b"/x", mode=stat.S_IFREG | 0o600), 0o644),
        (entry(b"/x", mode=stat.S_IFREG | 0o4711), 0o4755),
        (entry(b"/x", mode=stat.S_IFREG), 0o444),
        (directory(b"/x", mode=stat.S_IFDIR | 0o700), 0o755),
        (directory(b"/x", mode=stat.S_IFDIR | 0o1733), 0o1777),
    ],
)
def test_everything_can_be_made_readable(
    shown: Any,  # noqa: ANN401
    cells: Cells,
    mode: int,
) -> None:
    assert stat.S_IMODE(shown(cells, is_world_readable=True).mode) == mode


@pytest.mark.parametrize("kind", [stat.S_IFCHR, stat.S_IFBLK])
@pytest.mark.parametrize(
    ("major", "minor"), [(1, 3), (0, 0), (4095, 1_048_575), (136, 256), (259, 65_536)]
)
def test_devices_keep_their_numbers(
    shown: Any,  # noqa: ANN401
    kind: int,
    major: int,
    minor: int,
) -> None:
    cells = entry(
        b"/x",
        mode=kind | 0o600,
        flags=SPECIAL,
        size=os.makedev(major, minor),
        hash=None,
    )
    found = shown(cells)
    assert found.size == 0
    # As the kernel takes it apart: new_decode_dev() of include/linux/kdev_t.h.
    assert (found.rdev & 0xFFF00) >> 8 == major
    assert (found.rdev & 0xFF) | ((found.rdev >> 12) & 0xFFF00) == minor


@pytest.mark.parametrize("kind", [stat.S_IFIFO, stat.S_IFSOCK])
def test_fifos_and_sockets_are_empty(shown: Any, kind: int) -> None:  # noqa: ANN401
    cells = entry(b"/x", mode=kind | 0o600, flags=SPECIAL, size=0, hash=None)
    found = shown(cells)
    assert (found.size, found.rdev, stat.S_IFMT(found.mode)) == (0, 0, kind)


@pytest.mark.parametrize("size", [2**63 - 1, 2**40, 2**32])
def test_a_device_number_that_is_too_large_is_cut(
    shown: Any,  # noqa: ANN401
    size: int,
) -> None:
    cells = entry(b"/x", mode=stat.S_IFCHR, flags=SPECIAL, size=size, hash=None)
    assert 0 <= shown(cells).rdev < 1 << 32


@pytest.mark.parametrize(
    ("target", "expanded"),
    [
        (b"plain", b"plain"),
        (b"$(HERE)/lib", b"/opt/here/lib"),
        (b"$(UNSET:-/default)/lib", b"/default/lib"),
        (b"$(UNSET)lib", b"lib"),
        (b"$(HERE", b"$(HERE"),
        (b"$HERE", b"$HERE"),
        (b"\xff$(BYTES)", b"\xff\xfe"),
    ],
)
def test_a_link_is_as_long_as_what_it_expands_to(
    tmp_path: Path, target: bytes, expanded: bytes
) -> None:
    view = presentation({"HERE": "/opt/here", "BYTES": "\udcfe"})
    found = read_back(tmp_path, link(b"/x", target))
    assert view.link_target(found) == expanded
    assert view.attributes(found, 1).size == len(expanded)
    (listed,) = view.listed(listing_of([found]), [1])
    assert listed == view.attributes(found, 1)


def test_a_listing_of_all_kinds_shows_each_as_it_is_alone(tmp_path: Path) -> None:
    kinds = (
        entry(b"/x", size=1000, hardlinks=7 << 32 | 3),
        directory(b"/x", hardlinks=0),
        link(b"/x", b"$(HERE)/lib"),
        entry(b"/x", mode=stat.S_IFCHR, flags=SPECIAL, size=259, hash=None, uid=3),
        entry(b"/x", mode=stat.S_IFIFO, flags=SPECIAL, size=0, hash=None, gid=4),
    )
    view = presentation({"HERE": "/opt/here"}, is_world_readable=True)
    entries = []
    for number, cells in enumerate(kinds):
        place = tmp_path / str(number)
        place.mkdir()
        entries.append(read_back(place, cells))
    inodes = range(1, len(kinds) + 1)
    shown = list(view.listed(listing_of(entries), inodes))
    assert shown == list(map(view.attributes, entries, inodes))


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_owners_are_those_that_the_rules_say(uid: int, gid: int) -> None:
    view = Presentation(
        variables={}, shown_uid=lambda uid: uid ^ 1, shown_gid=lambda gid: gid // 2
    )
    plain = DirectoryEntry(
        *(1, b"x", 0, stat.S_IFREG, 0, 0, Flag.FILE, 1, uid, gid),
        *(b"", None, None, 0, 0, 0, 0),
    )
    found = view.attributes(plain, 1)
    assert (found.uid, found.gid) == (uid ^ 1, gid // 2)


def test_owners_are_right_however_many_there_are() -> None:
    asked: list[int] = []

    def shown(uid: int) -> int:
        asked.append(uid)
        return uid + 1

    view = Presentation(variables={}, shown_uid=shown, shown_gid=shown)
    plain = DirectoryEntry(
        *(1, b"x", 0, stat.S_IFREG, 0, 0, Flag.FILE, 1, 0, 0),
        *(b"", None, None, 0, 0, 0, 0),
    )
    for _ in range(2):
        for uid in range(10_000):
            assert view.attributes(plain._replace(uid=uid), 1).uid == uid + 1
    view.attributes(plain._replace(uid=9_999), 1)
    assert asked[-1] == 9_999
    assert asked.count(9_999) == 2
