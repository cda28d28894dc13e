"""The pack that a process appends to: a new one, or one that its writer has left.

Nobody else appends to it meanwhile. Who writes a pack holds an address on the node that
is named after it (``node_claims``), which the kernel frees with its process. So a
process can go on with a pack of this node whose address is free, and jobs that run one
after the other leave one pack, not one each.

The index is made before the pack: without an index there is a pack only while somebody
removes it, or because he died at that.
"""

import _socket
import contextlib
import os
import stat
from collections.abc import Iterator
from typing import Self

from cvmfsexec.cache.node_claims import NODE_BYTES, hold_address, is_held
from cvmfsexec.cache.open_files import close_quietly
from cvmfsexec.format import pack_index

DIRECTORY = "cvmfsexec.packs"
INDEX, PACK = ".index", ".pack"

READ_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
"""Nothing but a file is ever waited for, whatever has got its name."""

_FLAGS = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
_NEW = os.O_CREAT | os.O_EXCL
_MODE = 0o600


class PackWriter:
    """One pack being written; belongs to who holds a lock around it.

    Args:
        name: Of the pack.
        address: Shows that it is written; becomes the writer's, as the others do.
        index: Descriptor of its index.
        pack: Descriptor of its bytes.

    Attributes:
        end_bytes: Where the next object goes.
        index_bytes: Where the next record goes.
        has_made_directory: Whether there were no packs before.
    """

    def __init__(
        self, name: str, address: _socket.socket | None, index: int, pack: int
    ) -> None:
        self.name = name
        self._address = address
        self._index = index
        self._pack = pack
        self._files = os.fstat(index), os.fstat(pack)
        self.end_bytes = self._written_bytes = self._files[1].st_size
        self.index_bytes = 0
        self.has_made_directory = False

    @classmethod
    def begin(cls, directory: int, node: str) -> Self:
        """Make a new pack.

        Args:
            directory: Descriptor of the cache directory.
            node: How its name begins.

        Raises:
            OSError: As the kernel says.
        """
        name = node + os.urandom(pack_index.NAME_BYTES - NODE_BYTES).hex()
        address = _address_of(name)
        if address is None:  # so nobody may take it for one that was left
            name = os.urandom(pack_index.NAME_BYTES).hex()
        try:
            has_made_directory = _make_directory(directory)
            writer = cls._open(directory, name, address, _NEW)
        except OSError:
            _close(address)
            _remove(directory, name)
            raise
        try:
            writer.note(pack_index.header())
        except OSError:
            writer.close()
            _remove(directory, name)  # or a full disk would have ever more of them
            raise
        writer.has_made_directory = has_made_directory
        return writer

    @classmethod
    def resume(cls, directory: int, name: str) -> Self | None:
        """Go on with a pack, unless somebody writes it or it is gone.

        Where the next record goes is set by who reads the index, from now on.

        Args:
            directory: Descriptor of the cache directory.
            name: Of the pack.
        """
        address = _address_of(name)
        if address is None:
            return None
        try:
            return cls._open(directory, name, address, 0)
        except OSError:
            address.close()
            return None

    @classmethod
    def _open(
        cls, directory: int, name: str, address: _socket.socket | None, flags: int
    ) -> Self:
        path = f"{DIRECTORY}/{name}"
        flags |= _FLAGS
        index = os.open(path + INDEX, flags, _MODE, dir_fd=directory)
        try:
            pack = os.open(path + PACK, flags, _MODE, dir_fd=directory)
        except OSError:
            close_quietly(index)
            raise
        return cls(name, address, index, pack)

    def append(self, content: bytes | bytearray) -> int:
        """Write an object, and return its offset.

        No two objects begin at the same offset, as removals name them by it.

        Raises:
            OSError: As the kernel says; the next one takes its place.
        """
        offset = self.end_bytes
        _write_at(self._pack, content, offset)
        self.end_bytes = offset + max(len(content), 1)
        if content:
            self._written_bytes = offset + len(content)
        return offset

    def note(self, record: bytes) -> int:
        """Write a record, and return its offset.

        Raises:
            OSError: As the kernel says; the next one takes its place.
        """
        offset = self.index_bytes
        _write_at(self._index, record, offset)
        self.index_bytes = offset + len(record)
        return offset

    def written_s(self) -> float | None:
        """Return when a record was written last, by the clock of the file server."""
        with contextlib.suppress(OSError):
            return os.fstat(self._index).st_mtime
        return None

    def is_sound(self) -> bool:
        """Whether others can find what is appended; on other nodes it may take long."""
        try:
            index, pack = os.fstat(self._index), os.fstat(self._pack)
            start = os.pread(self._index, pack_index.RECORD_BYTES, 0)
        except OSError:
            return False
        has_changed = _lost(self._files[0], index) or _lost(self._files[1], pack)
        is_whole = index.st_size >= self.index_bytes and pack_index.has_header(start)
        return not has_changed and is_whole and pack.st_size >= self._written_bytes

    def close(self) -> None:
        """Append no more, and let others go on with the pack."""
        close_quietly(self._pack)
        close_quietly(self._index)
        _close(self._address)
        self._address = None


def is_written(name: str) -> bool:
    """Whether somebody on this node is writing a pack."""
    return is_held(_address_name(name))


@contextlib.contextmanager
def left_alone(name: str) -> Iterator[bool]:
    """Let nobody on this node begin to write a pack; yield whether nobody does."""
    address = _address_of(name)
    try:
        yield address is not None
    finally:
        _close(address)


def _address_of(name: str) -> _socket.socket | None:
    """Return what shows that a pack is written; ``None`` if that cannot be shown."""
    with contextlib.suppress(OSError):
        return hold_address(_address_name(name))
    return None


def _address_name(name: str) -> str:
    return f"pack.{name}"


def _close(address: _socket.socket | None) -> None:
    if address is not None:
        address.close()


def _lost(before: os.stat_result, now: os.stat_result) -> bool:
    """Whether a file was removed, or may not be read any more.

    It is compared with what it was: some file systems tell nothing of the kind.
    """
    is_removed = before.st_nlink > 0 and now.st_nlink == 0
    return is_removed or bool(before.st_mode & ~now.st_mode & stat.S_IRUSR)


def _make_directory(directory: int) -> bool:
    """Make that of the packs; return whether there was none."""
    try:
        os.mkdir(DIRECTORY, 0o700, dir_fd=directory)
    except FileExistsError:
        return False
    return True


def _remove(directory: int, name: str) -> None:
    for suffix in (INDEX, PACK):
        with contextlib.suppress(OSError):
            os.unlink(f"{DIRECTORY}/{name}{suffix}", dir_fd=directory)


def _write_at(descriptor: int, data: bytes | bytearray, offset: int) -> None:
    written = os.pwrite(descriptor, data, offset)
    while written < len(data):
        written += os.pwrite(descriptor, memoryview(data)[written:], offset + written)
