import stat
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.errors import FormatError
from cvmfsexec.format.digest import ContentHash, HashAlgorithm
from cvmfsexec.format.dirent import (
    EMPTY_LISTING,
    Compression,
    DirectoryEntry,
    Flag,
    Listing,
    check_entries,
    check_entry,
    check_listing,
)
from cvmfsexec.format.names import NO_PARENT, ROOT, path_hash

DIGEST = bytes(range(20))
FILE = DirectoryEntry(
    row=7,
    name=b"file",
    size=10,
    mode=stat.S_IFREG | 0o644,
    mtime_s=1_700_000_000,
    mtime_ns=1,
    flags=Flag.FILE,
    hardlinks=1,
    uid=1000,
    gid=1000,
    symlink=b"",
    digest=DIGEST,
    xattr=None,
    md5_1=1,
    md5_2=2,
    parent_1=3,
    parent_2=4,
)
ROOT_ENTRY = FILE._replace(
    name=ROOT,
    mode=stat.S_IFDIR | 0o755,
    flags=Flag.DIRECTORY,
    digest=None,
    md5_1=path_hash(ROOT).md5_1,
    md5_2=path_hash(ROOT).md5_2,
    parent_1=NO_PARENT.md5_1,
    parent_2=NO_PARENT.md5_2,
)


@pytest.mark.parametrize(
    ("flags", "kind"),
    [
        (0, "is_regular"),
        (4, "is_regular"),
        (68, "is_regular"),
        (65540, "is_regular"),
        (12, "is_symlink"),
        (13, "is_symlink"),
        (28, "is_symlink"),
        (20, "is_special"),
        (21, "is_special"),
        (1, "is_directory"),
        (3, "is_directory"),
        (33, "is_directory"),
        (16385, "is_directory"),
        (32771, "is_directory"),
    ],
)
def test_every_entry_has_exactly_one_kind(flags: int, kind: str) -> None:
    entry = FILE._replace(flags=flags)
    kinds = ("is_regular", "is_symlink", "is_special", "is_directory")
    assert [name for name in kinds if getattr(entry, name)] == [kind]


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        (Flag.NESTED_MOUNTPOINT, "is_nested_mountpoint"),
        (Flag.NESTED_ROOT, "is_nested_root"),
        (Flag.CHUNKED, "is_chunked"),
        (Flag.EXTERNAL, "is_external"),
        (Flag.BIND_MOUNTPOINT, "is_bind_mountpoint"),
        (Flag.HIDDEN, "is_hidden"),
        (Flag.DIRECT_IO, "has_direct_io"),
    ],
)
def test_flag_is_seen_when_set_and_only_then(flags: int, name: str) -> None:
    assert getattr(FILE._replace(flags=flags), name)
    assert not getattr(FILE._replace(flags=~flags), name)


@pytest.mark.parametrize(
    ("flags", "algorithm", "compression"),
    [
        (4, HashAlgorithm.SHA1, Compression.ZLIB),
        (516, HashAlgorithm.SHAKE128, Compression.ZLIB),
        (4 + 0x100, HashAlgorithm.RMD160, Compression.ZLIB),
        (2628, HashAlgorithm.SHAKE128, Compression.NONE),
        (2180, HashAlgorithm.SHA1, Compression.NONE),
    ],
)
def test_hash_and_compression_are_fields_of_the_flags(
    flags: int, algorithm: HashAlgorithm, compression: Compression
) -> None:
    entry = FILE._replace(flags=flags)
    assert entry.hash_algorithm is algorithm
    assert entry.compression is compression
    assert entry.content_hash == ContentHash(DIGEST, algorithm)


def test_unknown_hash_algorithm_is_refused_on_use() -> None:
    entry = FILE._replace(flags=4 + 0x300)
    check_entry(entry)
    with pytest.raises(FormatError, match="hash algorithm 3"):
        _ = entry.content_hash


def test_unknown_compression_is_refused_on_use() -> None:
    entry = FILE._replace(flags=4 + 0x1000)
    check_entry(entry)
    with pytest.raises(FormatError, match="compression 2"):
        _ = entry.compression


@pytest.mark.parametrize("digest", [None, b"", bytes(20)])
def test_null_digest_names_no_object(digest: bytes | None) -> None:
    assert FILE._replace(digest=digest).content_hash is None


@pytest.mark.parametrize(
    ("hardlinks", "group", "linkcount"),
    [
        (0, 0, 1),
        (1, 0, 1),
        (30064771075, 7, 3),
        (7 << 32, 7, 1),
        (-1, 0xFFFFFFFF, 0xFFFFFFFF),
    ],
)
def test_hardlinks_are_a_group_and_a_count(
    hardlinks: int, group: int, linkcount: int
) -> None:
    entry = FILE._replace(hardlinks=hardlinks)
    assert (entry.hardlink_group, entry.linkcount) == (group, linkcount)


def test_path_hashes_are_pairs() -> None:
    assert FILE.path_hash == (1, 2)
    assert FILE.parent_hash == (3, 4)


SOUND: dict[str, dict[str, Any]] = {
    "file": {},
    "file without flags": {"flags": 0},
    "empty file": {"size": 0},
    "file without object": {"digest": None},
    "zero-length digest": {"digest": b""},
    "setuid and sticky": {"mode": stat.S_IFREG | 0o7777},
    "no permissions": {"mode": stat.S_IFREG},
    "nobody": {"uid": 2**32 - 1, "gid": 2**32 - 1},
    "last row": {"row": 2**32 - 1},
    "huge": {"size": 2**63 - 1},
    "before 1970": {"mtime_s": -1},
    "xattr": {"xattr": b"\1\0"},
    "long name": {"name": b"n" * 255},
    "odd name": {"name": b"\xff\n ..."},
    "link": {"flags": 12, "mode": stat.S_IFLNK | 0o777, "symlink": b"../../x"},
    "fifo": {"flags": 20, "mode": stat.S_IFIFO | 0o600},
    "device": {"flags": 20, "mode": stat.S_IFBLK | 0o600, "size": 286327664},
    "directory": {"flags": 1, "mode": stat.S_IFDIR | 0o755},
    "nested mountpoint": {"flags": 3, "mode": stat.S_IFDIR | 0o755},
    "bind mountpoint": {"flags": 16385, "mode": stat.S_IFDIR | 0o755},
    "flag of the future": {"flags": 4 | 1 << 30},
}

UNSOUND: dict[str, dict[str, Any]] = {
    "row 0": {"row": 0},
    "row beyond an inode": {"row": 2**32},
    "negative size": {"size": -1},
    "negative nanoseconds": {"mtime_ns": -1},
    "a second of nanoseconds": {"mtime_ns": 1_000_000_000},
    "negative uid": {"uid": -1},
    "uid too large": {"uid": 2**32},
    "negative gid": {"gid": -1},
    "gid too large": {"gid": 2**32},
    "short digest": {"digest": b"\1" * 16},
    "long digest": {"digest": b"\1" * 21},
    "negative flags": {"flags": -4},
    "mode beyond 16 bits": {"mode": stat.S_IFREG | 0x10000},
    "negative mode": {"mode": -1},
    "mode without type": {"mode": 0o644},
    "file that is a directory": {"mode": stat.S_IFDIR | 0o755},
    "file that is a device": {"mode": stat.S_IFCHR | 0o666},
    "link that is a file": {"flags": 12},
    "directory that is a file": {"flags": 1},
    "special file that is a directory": {"flags": 20, "mode": stat.S_IFDIR},
    "mountpoint that is a file": {"flags": 4 | 2},
    "bind mountpoint that is a file": {"flags": 4 | 0x4000},
    "no name": {"name": b""},
    "dot": {"name": b"."},
    "dot dot": {"name": b".."},
    "slash": {"name": b"a/b"},
    "NUL": {"name": b"a\0"},
    "long name": {"name": b"n" * 256},
    "two names in one": {"name": b"/"},
    **{
        f"{kind} {field}": {field: value}
        for kind, value in (("text", b"1"), ("float", 4.0), ("null", None))
        for field in DirectoryEntry._fields
        if type(value) is not type(getattr(FILE, field))
        and (field, value) not in (("digest", None), ("xattr", b"1"))
    },
}


@pytest.mark.parametrize("change", SOUND.values(), ids=SOUND)
def test_sound_entry_is_accepted_alone_and_in_a_listing(change: dict[str, Any]) -> None:
    entry = FILE._replace(**change)
    check_entry(entry)
    check_entries([FILE, entry, FILE])


@pytest.mark.parametrize("change", UNSOUND.values(), ids=UNSOUND)
def test_unsound_entry_is_refused_alone_and_in_a_listing(
    change: dict[str, Any],
) -> None:
    entry = FILE._replace(**change)
    with pytest.raises(FormatError, match=r"^entry ") as alone:
        check_entry(entry)
    with pytest.raises(FormatError) as listed:
        check_entries([FILE, entry, FILE])
    assert str(listed.value) == str(alone.value)
    with pytest.raises(FormatError):
        check_entries([entry])


def test_root_may_be_without_a_name() -> None:
    check_entry(ROOT_ENTRY)
    check_entries([ROOT_ENTRY, FILE])


def test_nested_root_may_have_any_name() -> None:
    entry = ROOT_ENTRY._replace(md5_1=1, flags=Flag.DIRECTORY | Flag.NESTED_ROOT)
    check_entry(entry)
    check_entries([entry, FILE])


def test_empty_listing_is_sound() -> None:
    check_entries([])


def test_names_that_pretend_to_be_others_are_refused() -> None:
    """Two wrongs must not hide each other where names are checked joined."""
    for names in ((b"a/b", b""), (b"", b"/"), (b"a/", b""), (b".", b"/..")):
        with pytest.raises(FormatError):
            check_entries([FILE._replace(name=name) for name in names])


numbers = st.sampled_from([-1, 0, 1, 4, 20, 2**31, 2**32 - 1, 2**32, 10**9, 0o100644])
cells = st.one_of(numbers, st.none(), st.binary(max_size=3), st.just(4.0))
changes = st.dictionaries(st.sampled_from(DirectoryEntry._fields), cells, max_size=2)


@given(st.lists(changes, max_size=4))
def test_listing_is_sound_if_and_only_if_each_entry_is(
    wanted: list[dict[str, Any]],
) -> None:
    entries = [FILE._replace(**change) for change in wanted]
    assert _accepts_all(entries) == all(map(_accepts, entries))


def _accepts(entry: DirectoryEntry) -> bool:
    try:
        check_entry(entry)
    except FormatError:
        return False
    return True


def _accepts_all(entries: list[DirectoryEntry]) -> bool:
    try:
        check_entries(entries)
    except FormatError:
        return False
    return True


def _listing_of(entries: list[DirectoryEntry]) -> Listing:
    columns: Any = zip(*entries, strict=True)
    return Listing(*list(columns)[: len(Listing._fields)])


listed_changes = st.dictionaries(st.sampled_from(Listing._fields), cells, max_size=2)


@given(st.lists(listed_changes, min_size=1, max_size=4))
def test_columns_are_sound_if_and_only_if_each_entry_is(
    wanted: list[dict[str, Any]],
) -> None:
    entries = [FILE._replace(**change) for change in wanted]
    listing = _listing_of(entries)
    if all(map(_accepts, entries)):
        check_listing(listing)
    else:
        with pytest.raises(FormatError):
            check_listing(listing)


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"a\0", b"n" * 256])
def test_nothing_in_a_listing_may_pretend_to_be_a_top_directory(name: bytes) -> None:
    top = ROOT_ENTRY._replace(name=name)
    with pytest.raises(FormatError):
        check_listing(_listing_of([FILE, top]))
    nested = ROOT_ENTRY._replace(name=name, flags=Flag.DIRECTORY | Flag.NESTED_ROOT)
    with pytest.raises(FormatError):
        check_listing(_listing_of([FILE, nested]))


def test_a_listing_can_be_empty_or_cut_down() -> None:
    check_listing(EMPTY_LISTING)
    listing = _listing_of([FILE, FILE._replace(row=8, name=b"other")])
    assert listing.where([False, True]).name == (b"other",)
    assert listing.where([False, False]) == EMPTY_LISTING
