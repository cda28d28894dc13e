"""An independent check of one catalog: see ``check_repository``."""

import sqlite3
import stat
import struct
from collections import Counter, defaultdict
from hashlib import md5
from typing import Any, NamedTuple, Protocol

DIRECTORY, NESTED_MOUNTPOINT, FILE, LINK, SPECIAL, NESTED_ROOT = 1, 2, 4, 8, 16, 32
CHUNKED, EXTERNAL, BIND, HIDDEN, DIRECT_IO = 64, 128, 0x4000, 0x8000, 0x10000

SUFFIXES = ("", "-rmd160", "-shake128")
COUNTERS = (
    "regular", "symlink", "special", "dir", "nested", "chunked", "chunks",
    "file_size", "chunked_size", "xattr", "external", "external_file_size",
)  # fmt: skip

_MARKER = b".cvmfscatalog"
TABLES = {
    b"catalog",
    b"chunks",
    b"nested_catalogs",
    b"bind_mountpoints",
    b"properties",
    b"statistics",
}
_COLUMNS = (
    "name, hash, hardlinks, size, mode, mtime, mtimens, flags, symlink, uid, gid,"
    " xattr, md5path_1, md5path_2, parent_1, parent_2"
)


class Entry(NamedTuple):
    """A row of the table ``catalog``."""

    name: bytes
    digest: bytes | None
    hardlinks: int
    size: int
    mode: int
    mtime: int
    mtimens: int | None
    flags: int
    symlink: bytes
    uid: int
    gid: int
    xattr: bytes | None
    md5path_1: int
    md5path_2: int
    parent_1: int
    parent_2: int

    @property
    def kind(self) -> str:
        """What it is, by the order in which readers test the flags."""
        if self.flags & LINK:
            return "symlink"
        if self.flags & SPECIAL:
            return "special"
        return "dir" if self.flags & DIRECTORY else "regular"

    @property
    def linkcount(self) -> int:
        return self.hardlinks & 0xFFFFFFFF

    @property
    def group(self) -> int:
        return self.hardlinks >> 32

    @property
    def suffix(self) -> str:
        return SUFFIXES[self.flags >> 8 & 7]

    @property
    def is_compressed(self) -> bool:
        return not self.flags >> 11 & 7

    def text_hash(self, digest: bytes) -> str:
        return digest.hex() + self.suffix


class Report(Protocol):
    """Collects what is wrong, and looks into objects."""

    def report(self, where: object, problem: str) -> None:
        """Take note of a problem."""

    def expect(self, condition: object, where: object, problem: str) -> None:
        """Take note of a problem unless the condition holds."""

    def check_content(self, entry: Entry, text: str, letter: str, size: int) -> None:
        """See that an object is there and has the size."""


def path_md5(path: bytes) -> tuple[int, int]:
    """Hash a path as catalogs do."""
    digest = md5(path, usedforsecurity=False).digest()
    first, second = struct.unpack("<qq", digest)
    return first, second


class CatalogCheck:
    """One catalog, read completely."""

    def __init__(
        self, checker: Report, database: sqlite3.Connection, mountpoint: bytes
    ) -> None:
        self._checker = checker
        self._mountpoint = mountpoint
        self.where = mountpoint or b"/"
        self.own: Counter[str] = Counter()
        self.subtree: Counter[str] = Counter()
        self.properties = table(database, "SELECT key, value FROM properties")
        self.statistics = table(database, "SELECT counter, value FROM statistics")
        self.nested = _references(database, "nested_catalogs")
        self.bound = _references(database, "bind_mountpoints")
        self._chunks: dict[tuple[int, int], list[tuple[int, int, bytes]]]
        self._chunks = defaultdict(list)
        for md5_1, md5_2, *chunk in database.execute(
            "SELECT md5path_1, md5path_2, offset, size, hash FROM chunks"
            " ORDER BY offset"
        ):
            self._chunks[md5_1, md5_2].append(tuple(chunk))
        self._entries = {
            (entry.md5path_1, entry.md5path_2): entry
            for entry in map(
                Entry._make,
                database.execute(f"SELECT {_COLUMNS} FROM catalog"),  # noqa: S608
            )
        }
        self._listings: dict[tuple[int, int], list[Entry]] = defaultdict(list)
        for entry in self._entries.values():
            self._listings[entry.parent_1, entry.parent_2].append(entry)

    def find(self, path: bytes) -> Entry | None:
        return self._entries.get(path_md5(path))

    def expect(self, condition: object, where: object, problem: str) -> None:
        self._checker.expect(condition, where, problem)

    def check(self, transition_point: Entry | None) -> None:
        self._check_properties()
        top = self.find(self._mountpoint)
        if top is None:
            self._checker.report(self.where, "has no entry for its top directory")
            return
        self._check_top(top, transition_point)
        found = 1
        self._count(top)
        pending = [(self._mountpoint, top)]
        while pending:
            path, directory = pending.pop()
            listing = self._listing(path)
            found += len(listing)
            self._check_listing(path, directory, listing)
            for entry in listing:
                below = path + b"/" + entry.name
                self._check_entry(below, entry)
                if entry.kind == "dir" and not entry.flags & (NESTED_MOUNTPOINT | BIND):
                    pending.append((below, entry))
        self.expect(found == len(self._entries), self.where, "has unreachable entries")
        mountpoints = sum(
            bool(entry.flags & NESTED_MOUNTPOINT) for entry in self._entries.values()
        )
        self.own["nested"] = len(self.nested)
        self.expect(mountpoints == len(self.nested), self.where, "nested catalogs")

    def check_counters(self) -> None:
        for scope, counters in (("self_", self.own), ("subtree_", self.subtree)):
            for name in COUNTERS:
                stored = self.statistics.get((scope + name).encode())
                self.expect(
                    stored == counters[name],
                    self.where,
                    f"counter {scope}{name} is {stored} and not {counters[name]}",
                )

    def _listing(self, path: bytes) -> list[Entry]:
        own = path_md5(path)
        return [
            entry
            for entry in self._listings[own]
            if (entry.md5path_1, entry.md5path_2) != own
        ]

    def _check_properties(self) -> None:
        properties = self.properties
        self.expect(properties.get(b"schema") == b"2.5", self.where, "schema")
        revision = int(properties.get(b"schema_revision", 0))
        self.expect(revision >= 6, self.where, f"schema revision {revision}")
        self.expect(
            properties.get(b"root_prefix", b"") == self._mountpoint,
            self.where,
            "root prefix",
        )
        for key in (b"revision", b"last_modified"):
            self.expect(properties.get(key, b"").isdigit(), self.where, f"{key!r}")
        previous = properties.get(b"previous_revision", b"0" * 40).decode()
        is_hash = previous[40:] in SUFFIXES and not previous[:40].strip(
            "0123456789abcdef"
        )
        self.expect(is_hash, self.where, "previous revision")

    def _check_top(self, top: Entry, transition_point: Entry | None) -> None:
        is_nested = bool(top.flags & NESTED_ROOT)
        self.expect(is_nested == bool(self._mountpoint), self.where, "nested root flag")
        if not self._mountpoint:
            self.expect(
                (top.parent_1, top.parent_2, top.name) == (0, 0, b""),
                self.where,
                "root entry",
            )
            return
        if transition_point is None:
            self._checker.report(self.where, "has no transition point")
            return
        mask = ~(NESTED_ROOT | NESTED_MOUNTPOINT)
        self.expect(
            transition_point._replace(flags=transition_point.flags & mask)
            == top._replace(flags=top.flags & mask),
            self.where,
            "transition point and top directory differ",
        )
        markers = [e for e in self._listing(self._mountpoint) if e.name == _MARKER]
        self.expect(markers, self.where, "nested catalog without marker")

    def _check_listing(
        self, path: bytes, directory: Entry, listing: list[Entry]
    ) -> None:
        where = path or b"/"
        subdirectories = sum(entry.kind == "dir" for entry in listing)
        self.expect(
            directory.hardlinks == subdirectories + 2,
            where,
            f"link count {directory.hardlinks}",
        )
        groups: dict[int, list[Entry]] = defaultdict(list)
        for entry in listing:
            if entry.kind != "dir" and entry.linkcount > 1:
                self.expect(entry.group, where, "links without a group")
                groups[entry.group].append(entry)
            if entry.name == _MARKER:
                self.expect(path == self._mountpoint != b"", where, "abandoned marker")
        for members in groups.values():
            self.expect(
                len(members) == members[0].linkcount
                and len(set(map(_link_identity, members))) == 1,
                where,
                "hard link group",
            )

    def _check_entry(self, path: bytes, entry: Entry) -> None:
        self.expect(
            (entry.md5path_1, entry.md5path_2) == path_md5(path), path, "path hash"
        )
        self.expect(entry.name and b"/" not in entry.name, path, "name")
        self.expect(entry.linkcount >= 1, path, "link count 0")
        self.expect(entry.xattr is None or entry.xattr, path, "empty xattr blob")
        self.expect(_kind_of(entry.mode) == entry.kind, path, "mode and flags disagree")
        self.expect(0 <= (entry.mtimens or 0) < 10**9, path, "nanoseconds")
        is_regular = entry.kind == "regular"
        self.expect(
            is_regular or not entry.flags & (EXTERNAL | DIRECT_IO | CHUNKED),
            path,
            "flags of a regular file",
        )
        self._count(entry)
        if is_regular:
            self._check_file(path, entry)
        elif entry.kind == "dir":
            self._check_directory(path, entry)
        else:
            self._check_other(path, entry)

    def _check_file(self, path: bytes, entry: Entry) -> None:
        self.expect(not entry.symlink, path, "a file with a target")
        if not entry.flags & CHUNKED:
            has_hash = entry.digest is not None and len(entry.digest) == 20
            self.expect(has_hash and any(entry.digest or b""), path, "no hash")
            if entry.digest and not entry.flags & EXTERNAL:
                text = entry.text_hash(entry.digest)
                self._checker.check_content(entry, text, "", entry.size)
            return
        at = 0
        for offset, size, digest in self._chunks[entry.md5path_1, entry.md5path_2]:
            self.expect(offset == at and size > 0, path, f"chunk at {offset}")
            at += size
            if not entry.flags & EXTERNAL:
                text = entry.text_hash(digest)
                self._checker.check_content(entry, text, "P", size)
        self.expect(at == entry.size and at, path, "chunks are incomplete")

    def _check_directory(self, path: bytes, entry: Entry) -> None:
        self.expect(not entry.digest, path, "directory with a hash")
        is_nested = bool(entry.flags & NESTED_MOUNTPOINT)
        is_bound = bool(entry.flags & BIND)
        self.expect(not (is_nested and is_bound), path, "nested and bound at once")
        registered = [ref[0] for ref in (self.bound if is_bound else self.nested)]
        if is_nested or is_bound:
            self.expect(registered.count(path) == 1, path, "is not registered")
            self.expect(not self._listing(path), path, "mountpoint is not empty")

    def _check_other(self, path: bytes, entry: Entry) -> None:
        self.expect(not entry.digest, path, "link or special file with a hash")
        if entry.kind == "symlink":
            self.expect(entry.size == len(entry.symlink), path, "size of a link")
            return
        self.expect(not entry.symlink, path, "special file with a target")
        is_device = stat.S_ISCHR(entry.mode) or stat.S_ISBLK(entry.mode)
        self.expect(is_device or entry.size == 0, path, "size of a special file")

    def _count(self, entry: Entry) -> None:
        own = self.own
        own[entry.kind] += 1
        own["xattr"] += entry.xattr is not None
        if entry.kind == "regular":
            own["file_size"] += entry.size
        if entry.flags & EXTERNAL:
            own["external"] += 1
            own["external_file_size"] += entry.size
        if entry.flags & CHUNKED:
            own["chunked"] += 1
            own["chunked_size"] += entry.size
            own["chunks"] += len(self._chunks[entry.md5path_1, entry.md5path_2])


def table(database: sqlite3.Connection, select: str) -> dict[Any, Any]:
    return dict(database.execute(select))


def _references(
    database: sqlite3.Connection, table: str
) -> list[tuple[bytes, str, int]]:
    rows = database.execute(f"SELECT path, sha1, size FROM {table}")  # noqa: S608
    return [(path, text.decode(), size) for path, text, size in rows]


def _link_identity(entry: Entry) -> tuple[object, ...]:
    return entry[1:12]


def _kind_of(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "dir"
    if stat.S_ISLNK(mode):
        return "symlink"
    return "regular" if stat.S_ISREG(mode) else "special"
