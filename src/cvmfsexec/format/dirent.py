"""Directory entries: one row of a catalog's table ``catalog``.

An entry describes itself twice, by ``flags`` and by the type bits of ``mode``;
:func:`check_entry` refuses one that contradicts itself, so that the rest of the code
may use either. Listings are long, and checking must not cost more than reading:
:func:`check_entries` and :func:`check_listing` look at whole columns, and ask for
details only when something is wrong.

Source: docs/reference/repository-format.md, "Catalogs", "Flags" and "hardlinks".
"""

import stat
from collections.abc import Iterable, Sequence
from enum import IntEnum
from itertools import chain, compress
from typing import Any, NamedTuple, NoReturn

from cvmfsexec.errors import FormatError
from cvmfsexec.format.digest import DIGEST_BYTES, ContentHash, HashAlgorithm
from cvmfsexec.format.names import (
    NAME_BYTES_MAX,
    ROOT,
    PathHash,
    check_entry_name,
    path_hash,
)

ROW_MAX = 2**32 - 1  # a row is the lower half of an inode number
ID_MAX = 2**32 - 1  # uid_t and gid_t

HASH_SHIFT = 8
HASH_MASK = 0x700
COMPRESSION_SHIFT = 11
COMPRESSION_MASK = 0x3800


class Flag:
    """Bits of ``flags``; between them lie the hash and compression fields."""

    DIRECTORY = 0x1
    NESTED_MOUNTPOINT = 0x2
    FILE = 0x4
    SYMLINK = 0x8
    SPECIAL = 0x10
    NESTED_ROOT = 0x20
    CHUNKED = 0x40
    EXTERNAL = 0x80
    BIND_MOUNTPOINT = 0x4000
    HIDDEN = 0x8000
    DIRECT_IO = 0x10000


class Compression(IntEnum):
    """How a file's objects are stored; the value is that of the entry flag bits."""

    ZLIB = 0
    NONE = 1


_ALGORITHMS = tuple(HashAlgorithm)
_COMPRESSIONS = tuple(Compression)

# A link carries FILE too, so the order of the test matters: link, special, directory.
_KIND_MASK = Flag.SYMLINK | Flag.SPECIAL | Flag.DIRECTORY
_SPECIAL_MASK = Flag.SYMLINK | Flag.SPECIAL
_DIRECTORY_ONLY = Flag.NESTED_MOUNTPOINT | Flag.NESTED_ROOT | Flag.BIND_MOUNTPOINT


class DirectoryEntry(NamedTuple):
    """One entry, in the column order of the catalog reader's SELECT.

    Attributes:
        row: Number of the row in its catalog, 1 to 2**32 - 1.
        name: Last component of the path; empty for the repository root only.
        size: Bytes of the uncompressed content; of a device, its ``st_rdev``.
        mode: ``st_mode`` with type bits.
        mtime_s: UNIX seconds.
        mtime_ns: Nanoseconds to add, 0 to 999999999.
        flags: Bits of :class:`Flag`, and hash and compression fields.
        hardlinks: Group in the upper, link count in the lower 32 bits.
        uid: Owner as published.
        gid: Group as published.
        symlink: Raw target, before expansion; empty for what is no link.
        digest: 20 bytes, or ``None`` or empty where there is no object.
        xattr: Packed extended attributes, see :mod:`cvmfsexec.format.xattr`.
        md5_1: First half of the path hash.
        md5_2: Second half.
        parent_1: First half of the directory's path hash.
        parent_2: Second half.
    """

    row: int
    name: bytes
    size: int
    mode: int
    mtime_s: int
    mtime_ns: int
    flags: int
    hardlinks: int
    uid: int
    gid: int
    symlink: bytes
    digest: bytes | None
    xattr: bytes | None
    md5_1: int
    md5_2: int
    parent_1: int
    parent_2: int

    @property
    def is_symlink(self) -> bool:
        """Whether this is a symbolic link."""
        return self.flags & Flag.SYMLINK != 0

    @property
    def is_special(self) -> bool:
        """Whether this is a fifo, socket or device; ``mode`` tells which."""
        return self.flags & _SPECIAL_MASK == Flag.SPECIAL

    @property
    def is_directory(self) -> bool:
        """Whether this is a directory."""
        return self.flags & _KIND_MASK == Flag.DIRECTORY

    @property
    def is_regular(self) -> bool:
        """Whether this is a regular file."""
        return self.flags & _KIND_MASK == 0

    @property
    def is_nested_mountpoint(self) -> bool:
        """Whether the directory's content is in a nested catalog."""
        return self.flags & Flag.NESTED_MOUNTPOINT != 0

    @property
    def is_nested_root(self) -> bool:
        """Whether this is a nested catalog's own top directory, seen from inside."""
        return self.flags & Flag.NESTED_ROOT != 0

    @property
    def is_bind_mountpoint(self) -> bool:
        """Whether another revision's root catalog is to appear here."""
        return self.flags & Flag.BIND_MOUNTPOINT != 0

    @property
    def is_chunked(self) -> bool:
        """Whether the content is in the table ``chunks``, not under ``digest``."""
        return self.flags & Flag.CHUNKED != 0

    @property
    def is_external(self) -> bool:
        """Whether the content is fetched by path from an external server."""
        return self.flags & Flag.EXTERNAL != 0

    @property
    def is_hidden(self) -> bool:
        """Whether listings leave the entry out; it can be looked up all the same."""
        return self.flags & Flag.HIDDEN != 0

    @property
    def has_direct_io(self) -> bool:
        """Whether reads shall bypass the kernel's page cache."""
        return self.flags & Flag.DIRECT_IO != 0

    @property
    def linkcount(self) -> int:
        """Number of names, as ``st_nlink``; a stored 0 means 1."""
        return self.hardlinks & 0xFFFFFFFF or 1

    @property
    def hardlink_group(self) -> int:
        """Number of the hardlink group within the directory; 0 for none."""
        return self.hardlinks >> 32 & 0xFFFFFFFF

    @property
    def hash_algorithm(self) -> HashAlgorithm:
        """Algorithm of the content hash and of the chunks' hashes.

        Raises:
            FormatError: The bits name no algorithm that is known here.
        """
        number = (self.flags & HASH_MASK) >> HASH_SHIFT
        if number >= len(_ALGORITHMS):
            raise FormatError(f"entry {self.name!r}: unknown hash algorithm {number}")
        return _ALGORITHMS[number]

    @property
    def compression(self) -> Compression:
        """How the object or the chunks are stored.

        Raises:
            FormatError: The bits name no compression that is known here.
        """
        number = (self.flags & COMPRESSION_MASK) >> COMPRESSION_SHIFT
        if number >= len(_COMPRESSIONS):
            raise FormatError(f"entry {self.name!r}: unknown compression {number}")
        return _COMPRESSIONS[number]

    @property
    def content_hash(self) -> ContentHash | None:
        """Name of the object with the content; ``None`` where there is none.

        A regular file that is not chunked must have one, even an empty file. That of
        a chunked file is legacy, and no such object need exist.

        Raises:
            FormatError: The hash algorithm is unknown.
        """
        if not self.digest or not any(self.digest):
            return None
        return ContentHash(self.digest, self.hash_algorithm)

    @property
    def path_hash(self) -> PathHash:
        """Hash of the entry's own path."""
        return PathHash(self.md5_1, self.md5_2)

    @property
    def parent_hash(self) -> PathHash:
        """Hash of the path of the directory that holds the entry."""
        return PathHash(self.parent_1, self.parent_2)


class Listing(NamedTuple):
    """Entries of a directory, column by column: what ``stat`` shows of them.

    A listing is long, and what is done to a column at once is done in C. Each attribute
    holds that attribute of every :class:`DirectoryEntry`, in the order of the rows.
    """

    row: tuple[int, ...]
    name: tuple[bytes, ...]
    size: tuple[int, ...]
    mode: tuple[int, ...]
    mtime_s: tuple[int, ...]
    mtime_ns: tuple[int, ...]
    flags: tuple[int, ...]
    hardlinks: tuple[int, ...]
    uid: tuple[int, ...]
    gid: tuple[int, ...]
    symlink: tuple[bytes, ...]

    def where(self, is_wanted: Iterable[bool]) -> "Listing":
        """Return a listing of some of the entries."""
        wanted = tuple(is_wanted)
        columns: Any = (tuple(compress(column, wanted)) for column in self)
        return Listing(*columns)


EMPTY_LISTING = Listing(*[()] * len(Listing._fields))


def check_entry(entry: DirectoryEntry) -> None:
    """Refuse an entry that contradicts itself or would harm whoever uses it.

    Raises:
        FormatError: A value has the wrong type or is out of its range, the type bits
            of the mode disagree with the flags, or the name is forbidden.
    """
    try:
        if tuple(map(type, entry)) not in _ENTRY_TYPES:
            _refuse_types(entry)
        if not _numbers_are_sound(entry):
            _refuse_numbers(entry)
        if not _kind_agrees(entry.mode, entry.flags):
            _refuse_kind(entry)
        if not entry.flags & Flag.NESTED_ROOT and entry[13:15] != _ROOT_HASH:
            check_entry_name(entry.name)
    except FormatError as error:
        raise FormatError(f"entry {entry.row} ({entry.name!r:.80}): {error}") from None


def check_entries(entries: Sequence[DirectoryEntry]) -> None:
    """Refuse a listing with an entry that :func:`check_entry` refuses.

    Raises:
        FormatError: As :func:`check_entry`, for the first such entry.
    """
    if entries and not _columns_are_sound(tuple(zip(*entries, strict=True))):
        for entry in entries:
            check_entry(entry)


def check_listing(listing: Listing) -> None:
    """Refuse a listing with an entry that :func:`check_entry` refuses.

    What is no part of a listing (content, attributes, path hash) is checked when the
    entry itself is read; nothing here may be a top directory, so all need names.

    Raises:
        FormatError: As :func:`check_entry`, for the first such entry.
    """
    if not listing.row or _listing_is_sound(listing):
        return
    for values in zip(*listing, strict=True):
        check_entry(DirectoryEntry._make(values + _UNLISTED))
    raise FormatError("a listing has a forbidden name")


_UNLISTED = (None, None, 0, 0, 0, 0)
_ROOT_HASH = path_hash(ROOT)
_NANOSECONDS_MAX = 999_999_999
_MODE_MAX = 0o177777
_REGULAR_TYPES = frozenset({stat.S_IFREG})
_DIRECTORY_TYPES = frozenset({stat.S_IFDIR})
_LINK_TYPES = frozenset({stat.S_IFLNK})
_SPECIAL_TYPES = frozenset({stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK})
_MODE_TYPES = {
    0: _REGULAR_TYPES,
    Flag.DIRECTORY: _DIRECTORY_TYPES,
    Flag.SPECIAL: _SPECIAL_TYPES,
    Flag.SPECIAL | Flag.DIRECTORY: _SPECIAL_TYPES,
    Flag.SYMLINK: _LINK_TYPES,
    Flag.SYMLINK | Flag.DIRECTORY: _LINK_TYPES,
    Flag.SYMLINK | Flag.SPECIAL: _LINK_TYPES,
    Flag.SYMLINK | Flag.SPECIAL | Flag.DIRECTORY: _LINK_TYPES,
}
_NONE = type(None)
_INTEGERS = frozenset({int})
_TEXTS = frozenset({bytes})
_BLOBS = frozenset({bytes, _NONE})
_DIGEST_LENGTHS = frozenset({DIGEST_BYTES})

# SQLite's columns hold any type, whatever they were declared as.
_ENTRY_TYPES = frozenset(
    (int, bytes, *[int] * 8, bytes, digest, xattr, *[int] * 4)
    for digest in _BLOBS
    for xattr in _BLOBS
)


def _numbers_are_sound(entry: DirectoryEntry) -> bool:
    row, _, size, _, _, mtime_ns, _, _, uid, gid, _, digest, *_ = entry
    return (
        1 <= row <= ROW_MAX
        and size >= 0
        and 0 <= mtime_ns <= _NANOSECONDS_MAX
        and 0 <= uid <= ID_MAX
        and 0 <= gid <= ID_MAX
        and (not digest or len(digest) == DIGEST_BYTES)
    )


def _kind_agrees(mode: int, flags: int) -> bool:
    types = _MODE_TYPES[flags & _KIND_MASK]
    return (
        0 <= mode <= _MODE_MAX
        and stat.S_IFMT(mode) in types
        and flags >= 0
        and (types is _DIRECTORY_TYPES or not flags & _DIRECTORY_ONLY)
    )


def _refuse_types(entry: DirectoryEntry) -> NoReturn:
    told = (f"{name} {type(value).__name__}" for name, value in entry._asdict().items())
    raise FormatError(f"a column has the wrong type: {', '.join(told)}")


def _refuse_numbers(entry: DirectoryEntry) -> NoReturn:
    names = ("row", "size", "mtime_ns", "uid", "gid")
    told = ", ".join(f"{name} {getattr(entry, name)}" for name in names)
    digest_bytes = len(entry.digest or b"")
    raise FormatError(f"a value out of range: {told}, digest of {digest_bytes} bytes")


def _refuse_kind(entry: DirectoryEntry) -> NoReturn:
    raise FormatError(f"mode {entry.mode:o} disagrees with flags {entry.flags:#x}")


def _columns_are_sound(columns: tuple[tuple[Any, ...], ...]) -> bool:
    """Whether every entry would pass; may say no to a top directory.

    Each expression runs over a column inside the interpreter's C code: 0.4 us per
    entry in all, against 4 us of :func:`check_entry`.
    """
    digests, xattrs = columns[11:13]
    return (
        _listing_is_sound(columns[:11])
        and _INTEGERS.issuperset(map(type, chain(*columns[13:])))
        and _BLOBS.issuperset(map(type, chain(digests, xattrs)))
        and _DIGEST_LENGTHS.issuperset(map(len, filter(None, digests)))
    )


def _listing_is_sound(columns: tuple[tuple[Any, ...], ...]) -> bool:
    rows, names, sizes, modes, _, mtimes_ns, flags, _, uids, gids, symlinks = columns
    if not (
        _INTEGERS.issuperset(map(type, chain(rows, *columns[2:10])))
        and _TEXTS.issuperset(map(type, chain(names, symlinks)))
    ):
        return False
    return (
        min(rows) >= 1
        and max(rows) <= ROW_MAX
        and min(sizes) >= 0
        and min(mtimes_ns) >= 0
        and max(mtimes_ns) <= _NANOSECONDS_MAX
        and min(uids) >= 0
        and max(uids) <= ID_MAX
        and min(gids) >= 0
        and max(gids) <= ID_MAX
        and all(
            _kind_agrees(mode, bits)
            for mode, bits in set(zip(modes, flags, strict=True))
        )
        and _names_are_sound(names)
    )


def _names_are_sound(names: tuple[bytes, ...]) -> bool:
    joined = b"/".join(names)
    return (
        joined.count(b"/") == len(names) - 1
        and b"\0" not in joined
        and b"" not in names
        and b"." not in names
        and b".." not in names
        and max(map(len, names)) <= NAME_BYTES_MAX
    )
