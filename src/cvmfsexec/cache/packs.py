"""The packs of a directory: few files that hold many objects.

Each process appends to a pack of its own (``format.pack_index``) and reads those of
all. No process ever changes a file of another, or what it has written itself; so there
are no locks, and it does not matter on which node a process runs.

* The bytes of an object are written before its record. Who dies in between leaves bytes
  that nobody refers to; after a crash of the node a record may come without its bytes.
  Both are found by checksums, and cost one download.
* Packs of others are read again when an object is missing, but at most every few
  seconds: to look costs a handful of operations on the file server.
* The packs of neighbours, processes of the same node, are known by their names, which
  begin with a number of the node. Who has the claim on an object looks at those first,
  because a neighbour may just have fetched it. On the node that asks nobody else.
* What was read of the indexes is one dictionary of numbers. A record is parsed and
  checked when it is used: 200,000 objects are loaded in 0.1 s.

``_lock`` guards the tables and the writer; objects are read without it.
"""

import contextlib
import functools
import hashlib
import os
import re
import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from cvmfsexec import log
from cvmfsexec.cache import scratch
from cvmfsexec.errors import FormatError
from cvmfsexec.format import pack_index
from cvmfsexec.format.digest import ContentHash, HashAlgorithm
from cvmfsexec.format.pack_index import RECORD_BYTES, Record, RecordKind

DIRECTORY = "cvmfsexec.packs"
REFRESH_S = 2.0
DISCOVERY_MIN_S = 0.1
"""How often to look for new packs of neighbours; ever longer while there are none."""

ACTIVE_S = 30.0
"""For so long after it has grown a neighbour's pack is looked at with each claim."""

OPEN_MAX = 32
PACKED_BYTES_MAX = 512 << 10
"""Larger objects have files of their own."""

USE_IS_OLD_S = 3600.0
"""So long ago a pack was used last, at least, when its time of use is set anew."""

NODE_BYTES = 4  # of the eight bytes of a name

_BOOT = "/proc/sys/kernel/random/boot_id"
INDEX, PACK = ".index", ".pack"
_NAME = re.compile(r"[0-9a-f]{16}")
_READ_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
_WRITE_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_INDEX_BYTES_MAX = 1 << 30  # sixteen million objects
_RECORD_BITS = 32


class _Loaded:
    """What was read of one pack's index."""

    __slots__ = ("active_until_s", "name", "number", "records")

    def __init__(self, name: str, number: int) -> None:
        self.name = name
        self.number = number
        self.records = bytearray()
        self.active_until_s = float("-inf")


class Place(NamedTuple):
    """Where an object lies.

    Attributes:
        pack: Name of the pack.
        record: What its index says.
    """

    pack: str
    record: Record


class Packs:
    """The packs of one directory; safe to call from any thread.

    Args:
        directory: Descriptor of the cache directory, which stays the caller's.
        pack_bytes: Begin another pack when ours holds so much.
        clock: Seconds that do not jump.
    """

    def __init__(
        self,
        directory: int,
        pack_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directory = directory
        self._pack_bytes = pack_bytes
        self._clock = clock
        self._lock = threading.Lock()
        self._loaded: list[_Loaded] = []
        self._by_name: dict[str, _Loaded] = {}
        self._places: dict[bytes, int] = {}
        self._files: OrderedDict[str, int] = OrderedDict()
        self._used_s: dict[str, float] = {}
        self._writer: _Writer | None = None
        self._looked_s = float("-inf")
        self._node = node_number()
        self._packs_changed_ns = 0
        self._discovery_s = DISCOVERY_MIN_S
        self._discovered_s = float("-inf")

    def close(self) -> None:
        """Give back all files."""
        with self._lock:
            if self._writer is not None:
                self._writer.close()
                self._writer = None
            while self._files:
                os.close(self._files.popitem()[1])

    def find(
        self, content_hash: ContentHash, *, refresh_s: float | None = REFRESH_S
    ) -> Place | None:
        """Return where an object lies, or ``None``.

        Args:
            content_hash: The object.
            refresh_s: If it is not known, look at the packs of others again, unless
                that was done in the last so many seconds; ``None`` for never.
        """
        with self._lock:
            place = self._find(content_hash)
            if place is not None or refresh_s is None:
                return place
            if self._clock() - self._looked_s >= refresh_s:
                self._refresh()
            return self._find(content_hash)

    def has(self, content_hash: ContentHash) -> bool:
        """Whether an object is likely to be found; who reads ahead asks very often."""
        places, key_of = self._places, pack_index.key_of
        if key_of(RecordKind.REMOVED, content_hash) not in places:
            for kind in (RecordKind.PACKED, RecordKind.OWN_FILE):
                if key_of(kind, content_hash) in places:
                    return True
        return self.find(content_hash) is not None

    def refresh(self) -> None:
        """Read what was added to the packs of others."""
        with self._lock:
            self._refresh()

    def look_at_neighbours(self, *, has_met_one: bool = False) -> None:
        """Learn what other processes of this node have added.

        Args:
            has_met_one: Somebody is known to fetch objects: look for new packs, too.
        """
        with self._lock:
            now_s = self._clock()
            if has_met_one or now_s - self._discovered_s >= self._discovery_s:
                self._discovered_s = now_s
                self._discover()
            own = self._writer.name if self._writer is not None else None
            for loaded in self._loaded:
                is_neighbour = loaded.name.startswith(self._node)
                if (
                    is_neighbour
                    and loaded.name != own
                    and (now_s < loaded.active_until_s)
                ):
                    self._load(loaded.name)

    def read(self, place: Place) -> bytes | None:
        """Return the bytes of an object in a pack, if they are there and whole."""
        record = place.record
        if record.size_bytes > PACKED_BYTES_MAX:
            return None  # we do not write such
        descriptor = self._open(place.pack)
        if descriptor is None:
            return None
        try:
            content = os.pread(descriptor, record.size_bytes, record.offset)
        except (OSError, OverflowError, MemoryError) as error:
            log.debug("cache: cannot read pack %s: %s", place.pack, error)
            return None
        finally:
            os.close(descriptor)
        is_whole = len(content) == record.size_bytes
        return content if is_whole and zlib.crc32(content) == record.checksum else None

    def append(self, content_hash: ContentHash, content: bytes | bytearray) -> None:
        """Add an object to our pack.

        Raises:
            OSError: As the kernel says; the object is not there.
        """
        with self._lock:
            writer = self._writer_for(len(content))
            record = Record(
                RecordKind.PACKED,
                content_hash,
                writer.end_bytes,
                len(content),
                zlib.crc32(content),
            )
            writer.append(content)
            self._note(writer, record)

    def note_own_file(self, content_hash: ContentHash, size_bytes: int) -> None:
        """Tell others of an object in a file of its own.

        Raises:
            OSError: As the kernel says.
        """
        with self._lock:
            record = Record(RecordKind.OWN_FILE, content_hash, size_bytes=size_bytes)
            self._note(self._writer_for(0), record)

    def remove(self, place: Place) -> None:
        """Let nobody use an object any more.

        Raises:
            OSError: As the kernel says; others may go on to use it.
        """
        record = place.record
        with self._lock:
            key = pack_index.key_of(record.kind, record.content_hash)
            self._places.pop(key, None)
            if record.kind is not RecordKind.PACKED:
                return
            removal = Record(
                RecordKind.REMOVED,
                record.content_hash,
                record.offset,
                pack=bytes.fromhex(place.pack),
            )
            self._note(self._writer_for(0), removal)

    def forget(self, place: Place) -> None:
        """Look for an object elsewhere: its pack or file is not there any more."""
        record = place.record
        with self._lock:
            key = pack_index.key_of(record.kind, record.content_hash)
            self._places.pop(key, None)

    def own_name(self) -> str | None:
        """Return the name of the pack that we append to, if there is one."""
        writer = self._writer
        return writer.name if writer is not None else None

    def objects_told_by(self, name: str) -> list[Place]:
        """Return the objects that are found by one pack's index."""
        with self._lock:
            places = self._all(RecordKind.PACKED) + self._all(RecordKind.OWN_FILE)
        return [place for place in places if place.pack == name]

    def own_files_bytes(self) -> int:
        """Return how many bytes the indexes say that objects in own files have."""
        with self._lock:
            places = self._all(RecordKind.OWN_FILE)
        return sum(place.record.size_bytes for place in places)

    def _all(self, kind: RecordKind) -> list[Place]:
        found = []
        for key in [key for key in self._places if key[0] >> 4 == kind]:
            algorithm = key[0] & 0xF
            if algorithm >= len(HashAlgorithm):
                continue
            place = self._recorded(kind, ContentHash(key[1:], HashAlgorithm(algorithm)))
            if place is not None and not self._is_removed(place):
                found.append(place)
        return found

    def _find(self, content_hash: ContentHash) -> Place | None:
        for kind in (RecordKind.PACKED, RecordKind.OWN_FILE):
            place = self._recorded(kind, content_hash)
            if place is not None and not self._is_removed(place):
                return place
        return None

    def _is_removed(self, place: Place) -> bool:
        removal = self._recorded(RecordKind.REMOVED, place.record.content_hash)
        return removal is not None and (
            place.pack == removal.record.pack.hex()
            and place.record.offset == removal.record.offset
        )

    def _recorded(self, kind: RecordKind, content_hash: ContentHash) -> Place | None:
        key = pack_index.key_of(kind, content_hash)
        number = self._places.get(key)
        if number is None:
            return None
        loaded = self._loaded[number >> _RECORD_BITS]
        start = (number & (1 << _RECORD_BITS) - 1) * RECORD_BYTES
        try:
            record = Record.parse(bytes(loaded.records[start : start + RECORD_BYTES]))
        except FormatError:
            del self._places[key]
            return None
        return Place(loaded.name, record)

    def _open(self, name: str) -> int | None:
        """Return a descriptor of a pack that is the caller's."""
        with self._lock:
            descriptor = self._files.get(name)
            if descriptor is None:
                try:
                    descriptor = os.open(
                        f"{DIRECTORY}/{name}{PACK}",
                        _READ_FLAGS,
                        dir_fd=self._directory,
                    )
                except OSError:
                    return None  # removed to make room
                self._files[name] = descriptor
                if len(self._files) > OPEN_MAX:
                    os.close(self._files.popitem(last=False)[1])
            else:
                self._files.move_to_end(name)
            self._note_use(name, descriptor)
            return os.dup(descriptor)

    def _note_use(self, name: str, descriptor: int) -> None:
        now_s = self._clock()
        if now_s - self._used_s.get(name, float("-inf")) < USE_IS_OLD_S:
            return
        self._used_s[name] = now_s
        with contextlib.suppress(OSError):
            if time.time() - os.fstat(descriptor).st_mtime > USE_IS_OLD_S:
                os.utime(descriptor)

    def _discover(self) -> None:
        """Look for new packs, if the directory of packs has changed."""
        try:
            changed_ns = os.stat(DIRECTORY, dir_fd=self._directory).st_mtime_ns
        except OSError:
            return  # there are none
        if changed_ns == self._packs_changed_ns:
            self._discovery_s = min(2 * self._discovery_s, REFRESH_S)
            return
        self._packs_changed_ns = changed_ns
        self._discovery_s = DISCOVERY_MIN_S
        for name in names_in(self._directory):
            if name.startswith(self._node) and name not in self._by_name:
                self._load(name)

    def _refresh(self) -> None:
        """Read what was added to the indexes of others."""
        names = names_in(self._directory)
        if self._writer is not None and self._writer.name not in names:
            self._writer.close()  # somebody has made room
            self._writer = None
        own = self._writer.name if self._writer is not None else None
        for name in names:
            if name != own:
                self._load(name)
        self._looked_s = self._clock()

    def _load(self, name: str) -> None:
        loaded = self._by_name.get(name)
        have_bytes = len(loaded.records) if loaded is not None else 0
        path = f"{DIRECTORY}/{name}{INDEX}"
        try:
            if loaded is not None:
                status = os.stat(path, dir_fd=self._directory)
                if status.st_size - have_bytes < RECORD_BYTES:
                    return
            added, age_s = _read_from(path, self._directory, have_bytes)
        except OSError:
            return  # removed meanwhile
        added = added[: len(added) // RECORD_BYTES * RECORD_BYTES]
        if loaded is None:
            if not pack_index.has_header(added):
                return  # not written yet, or of another version
            loaded = self._new_loaded(name)
        if age_s < ACTIVE_S:
            loaded.active_until_s = self._clock() + ACTIVE_S
        self._take(loaded, added)

    def _take(self, loaded: _Loaded, added: bytes) -> None:
        first = loaded.number << _RECORD_BITS | len(loaded.records) // RECORD_BYTES
        loaded.records += added
        keys = pack_index.keys_in(added)
        self._places.update(zip(keys, range(first, first + len(keys)), strict=True))

    def _new_loaded(self, name: str) -> _Loaded:
        loaded = _Loaded(name, len(self._loaded))
        self._loaded.append(loaded)
        self._by_name[name] = loaded
        return loaded

    def _writer_for(self, size_bytes: int) -> "_Writer":
        writer = self._writer
        if writer is not None and (
            not writer.end_bytes or writer.end_bytes + size_bytes <= self._pack_bytes
        ):
            return writer
        if writer is not None:
            writer.close()
        self._writer = None
        self._writer = _Writer(self._directory, self._node)
        self._take(self._new_loaded(self._writer.name), pack_index.header())
        return self._writer

    def _note(self, writer: "_Writer", record: Record) -> None:
        text = record.serialize()
        writer.note(text)
        self._take(self._by_name[writer.name], text)


class _Writer:
    """The pack that this process appends to."""

    def __init__(self, directory: int, node: str) -> None:
        self.name = node + os.urandom(pack_index.NAME_BYTES - NODE_BYTES).hex()
        self.end_bytes = 0
        path = f"{DIRECTORY}/{self.name}"
        self._pack = _create(path + PACK, directory)
        try:
            self._index = _create(path + INDEX, directory)
        except OSError:
            os.close(self._pack)
            raise
        self._index_bytes = 0
        self.note(pack_index.header())

    def append(self, content: bytes | bytearray) -> None:
        """Write an object; its offset was ``end_bytes`` before."""
        _write_at(self._pack, content, self.end_bytes)
        self.end_bytes += len(content)

    def note(self, record: bytes) -> None:
        """Write a record."""
        _write_at(self._index, record, self._index_bytes)
        self._index_bytes += len(record)

    def close(self) -> None:
        """Append no more."""
        scratch.close_unwanted(self._pack)
        scratch.close_unwanted(self._index)


@functools.cache
def node_number() -> str:
    """Return how the names of packs begin that are written on this node."""
    try:
        with open(_BOOT, "rb") as file:
            boot = file.read()
    except OSError:
        boot = os.urandom(NODE_BYTES)
    return hashlib.sha256(boot, usedforsecurity=False).digest()[:NODE_BYTES].hex()


def names_in(directory: int) -> list[str]:
    """Return the names of all packs.

    Args:
        directory: Descriptor of the cache directory.
    """
    try:
        packs = os.open(
            DIRECTORY, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory
        )
    except OSError:
        return []  # none yet
    try:
        files = os.listdir(packs)
    except OSError:
        return []
    finally:
        os.close(packs)
    names = (name.removesuffix(INDEX) for name in files if name.endswith(INDEX))
    return sorted(name for name in names if _NAME.fullmatch(name))


def _create(path: str, directory: int) -> int:
    try:
        return os.open(path, _WRITE_FLAGS, 0o600, dir_fd=directory)
    except FileNotFoundError:
        with contextlib.suppress(FileExistsError):  # another process was faster
            os.mkdir(DIRECTORY, 0o700, dir_fd=directory)
        return os.open(path, _WRITE_FLAGS, 0o600, dir_fd=directory)


def _read_from(path: str, directory: int, offset: int) -> tuple[bytes, float]:
    """Return what was added to a file, and how many seconds ago."""
    descriptor = os.open(path, _READ_FLAGS, dir_fd=directory)
    try:
        status = os.fstat(descriptor)
        size_bytes = min(status.st_size, _INDEX_BYTES_MAX)
        added = os.pread(descriptor, max(size_bytes - offset, 0), offset)
        return added, time.time() - status.st_mtime
    finally:
        os.close(descriptor)


def _write_at(descriptor: int, data: bytes | bytearray, offset: int) -> None:
    written = os.pwrite(descriptor, data, offset)
    while written < len(data):
        written += os.pwrite(descriptor, memoryview(data)[written:], offset + written)
