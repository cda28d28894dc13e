"""Rows of a catalog, made from what the scan saw and where the contents are.

Nothing is read or written here.

Source: docs/reference/publisher-format.md, "Catalogs", "Entries".
"""

import stat
from collections import Counter
from collections.abc import Iterator, Mapping

from cvmfsexec.format.digest import HashAlgorithm
from cvmfsexec.format.dirent import (
    COMPRESSION_SHIFT,
    HASH_SHIFT,
    Compression,
    DirectoryEntry,
    Flag,
)
from cvmfsexec.format.names import (
    NO_PARENT,
    ROOT,
    PathHash,
    parent_path,
    path_hash,
)
from cvmfsexec.publish.contents import Content
from cvmfsexec.publish.scan import SourceDirectory, SourceEntry, SourceTree

DIRECTORY_BYTES = 4096  # st_size of every directory, by convention

_ROOT_MODE = stat.S_IFDIR | 0o755  # whatever the source directory has
_NANOSECONDS = 1_000_000_000

_UNUSED_ROW = 0


class EntryMaker:
    """Makes the directory entries of one revision.

    Args:
        tree: What was scanned.
        contents: Of each regular file, by path.
        transition_points: Directories with a catalog of their own, without the root.
        algorithm: Of the content hashes.
        compression: Of the contents.
    """

    def __init__(
        self,
        tree: SourceTree,
        contents: Mapping[bytes, Content],
        transition_points: frozenset[bytes],
        *,
        algorithm: HashAlgorithm,
        compression: Compression,
    ) -> None:
        self._tree = tree
        self._contents = contents
        self._transition_points = transition_points
        self._hash_bits = algorithm << HASH_SHIFT
        self._compression_bits = compression << COMPRESSION_SHIFT

    def top_entry(self, path: bytes) -> DirectoryEntry:
        """Return the entry of a catalog's own top directory, as it is inside."""
        entry = self._tree.directories[path].entry
        if path == ROOT:
            entry = entry._replace(mode=_ROOT_MODE)
            return self._directory(entry, NO_PARENT, Flag.DIRECTORY)
        parent = path_hash(parent_path(path))
        return self._directory(entry, parent, Flag.DIRECTORY | Flag.NESTED_ROOT)

    def listing(
        self, directory: SourceDirectory, groups: Iterator[int]
    ) -> Iterator[DirectoryEntry]:
        """Yield the entries in a directory.

        Args:
            directory: Which one.
            groups: Numbers for hard link groups that the catalog has not used yet.
        """
        parent = path_hash(directory.entry.path)
        hardlinks = _hardlinks(directory, groups)
        for entry in directory.entries:
            if entry.is_directory:
                flags = Flag.DIRECTORY
                if entry.path in self._transition_points:
                    flags |= Flag.NESTED_MOUNTPOINT
                yield self._directory(entry, parent, flags)
            else:
                links = hardlinks.get((entry.device, entry.inode), 1)
                yield self._file(entry, parent, links)

    def _directory(
        self, entry: SourceEntry, parent: PathHash, flags: int
    ) -> DirectoryEntry:
        links = 2 + self._tree.directories[entry.path].subdirectory_count
        return _entry(entry, parent, size=DIRECTORY_BYTES, flags=flags, hardlinks=links)

    def _file(
        self, entry: SourceEntry, parent: PathHash, hardlinks: int
    ) -> DirectoryEntry:
        if not entry.is_regular:
            is_link = stat.S_ISLNK(entry.mode)
            is_device = stat.S_ISCHR(entry.mode) or stat.S_ISBLK(entry.mode)
            return _entry(
                entry,
                parent,
                size=entry.rdev if is_device else len(entry.symlink),
                flags=Flag.FILE | (Flag.SYMLINK if is_link else Flag.SPECIAL),
                hardlinks=hardlinks,
            )
        content = self._contents[entry.path]
        flags = Flag.FILE | self._hash_bits | self._compression_bits
        if content.chunks:
            flags |= Flag.CHUNKED
        digest = content.content_hash.digest if content.content_hash else None
        return _entry(
            entry, parent, size=entry.size, flags=flags, hardlinks=hardlinks
        )._replace(digest=digest)


def _hardlinks(
    directory: SourceDirectory, groups: Iterator[int]
) -> dict[tuple[int, int], int]:
    """Return the column ``hardlinks`` for files with several names in a directory.

    Names elsewhere cannot be expressed: there, a file is another file.
    """
    names = Counter(
        (entry.device, entry.inode)
        for entry in directory.entries
        if entry.link_count > 1 and not entry.is_directory
    )
    return {
        inode: next(groups) << 32 | count for inode, count in names.items() if count > 1
    }


def _entry(
    entry: SourceEntry, parent: PathHash, *, size: int, flags: int, hardlinks: int
) -> DirectoryEntry:
    own = path_hash(entry.path)
    return DirectoryEntry(
        row=_UNUSED_ROW,
        name=entry.name,
        size=size,
        mode=entry.mode,
        mtime_s=entry.mtime_ns // _NANOSECONDS,
        mtime_ns=entry.mtime_ns % _NANOSECONDS,
        flags=flags,
        hardlinks=hardlinks,
        uid=entry.uid,
        gid=entry.gid,
        symlink=entry.symlink,
        digest=None,
        xattr=entry.xattr,
        md5_1=own.md5_1,
        md5_2=own.md5_2,
        parent_1=parent.md5_1,
        parent_2=parent.md5_2,
    )
