"""The packs of a directory: few files that hold many objects.

Each process appends to a pack of its own (``pack_writer``, ``format.pack_index``) and
reads those of all. No process ever changes what somebody has written; so there are no
locks, and it does not matter on which node a process runs.

* The bytes of an object are written before its record. Who dies in between leaves bytes
  that nobody refers to; after a crash of the node a record may come without its bytes.
  Both are found by checksums, and cost one download.
* What others add is looked at now and then (``pack_lookout``).
* Somebody may remove or cut off the pack that is written, or its file server may lose
  it. Who appends looks now and then whether it is sound, and begins another if not.

Any thread may call. ``_writing``, taken after the lock of the lookout, guards the
writer; ``PackPlaces`` and ``PackReader`` guard themselves: objects are found and read
while others are written.
"""

import errno
import os
import threading
import time
import zlib
from collections.abc import Callable

from cvmfsexec import log
from cvmfsexec.cache.node_claims import node_number
from cvmfsexec.cache.pack_listing import names_in
from cvmfsexec.cache.pack_lookout import PackLookout
from cvmfsexec.cache.pack_places import PackPlaces, Place
from cvmfsexec.cache.pack_reader import PackReader
from cvmfsexec.cache.pack_writer import PackWriter
from cvmfsexec.format import pack_index
from cvmfsexec.format.digest import ContentHash
from cvmfsexec.format.pack_index import (
    INDEX_BYTES_MAX,
    RECORD_BYTES,
    Record,
    RecordKind,
)

OWN_CHECK_S = 0.5
"""When who has begun to append looks whether others can find that; ever later then."""

OWN_CHECK_MAX_S = 4.0
"""So often, at least; it takes three system calls."""

_STAMP_BYTES = 5  # of a record of an own file, to tell it from others
_LOST = frozenset({errno.EIO, errno.ESTALE})  # the file, not its file system


class Packs:
    """The packs of one directory; safe to call from any thread.

    Args:
        directory: Descriptor of the cache directory, which stays the caller's.
        pack_bytes: Begin another pack when ours holds so much.
        clock: Seconds that do not jump.

    Attributes:
        lookout: What is known of those of others.
        has_made_directory: Whether there were no packs at all when ours was begun.
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
        self._node = node_number()
        self._places = PackPlaces()
        self._reader = PackReader(directory, clock)
        self.lookout = PackLookout(
            directory, self._node, self._places, self._settle, clock
        )
        self._writing = threading.RLock()
        self._writer: PackWriter | None = None
        self._given_up: set[str] = set()
        self._check_s = float("-inf")
        self._check_pause_s = OWN_CHECK_S
        self.has_made_directory = False

    def close(self) -> None:
        """Give back all files."""
        with self._writing:
            self._leave_writer()
        self._reader.close()
        self.lookout.close()

    def begin_anew(self) -> None:
        """Forget everything: the directory is another one."""
        with self._writing:
            self._leave_writer()
        for name in self._places.names():
            self.drop(name)
        self.lookout.begin_anew()

    # -- finding and reading --------------------------------------------------------

    def find(self, content_hash: ContentHash, *, looks: bool = True) -> Place | None:
        """Return where an object lies, or ``None``.

        Args:
            content_hash: The object.
            looks: If it is not known, look at the packs of others again, unless that
                was done a moment ago.
        """
        place = self._places.find(content_hash)
        if place is not None or not looks:
            return place
        self.lookout.look_again()
        return self._places.find(content_hash)

    def has(self, content_hash: ContentHash) -> bool:
        """Whether an object is likely to be found; who reads ahead asks very often."""
        return self._places.has(content_hash) or self.find(content_hash) is not None

    def read(self, place: Place) -> bytes | None:
        """Return the bytes of an object in a pack, if they are there and whole.

        Raises:
            CacheError: No descriptor or memory is left.
        """
        return self._reader.read(place)

    def forget(self, place: Place) -> None:
        """Look for an object elsewhere: it cannot be had at a place."""
        self._places.forget(place)

    def told_by(self, name: str) -> list[Place]:
        """Return the objects that would not be found without one pack's index."""
        return self._places.told_by(name)

    def own_files(self) -> list[Place]:
        """Return the objects that are said to have files of their own."""
        return self._places.own_files()

    def index_bytes(self, name: str) -> int:
        """Return how much of a pack's index means something; 0: nothing, as yet."""
        return self._places.read_bytes(name)

    def end_bytes(self, name: str) -> int:
        """Return how much a pack holds, as far as its index tells."""
        return self._places.end_bytes(name)

    def written_s(self) -> float | None:
        """Return when our pack was written, by the clock of its file server."""
        writer = self._writer
        return writer.written_s() if writer is not None else None

    def damaged_count(self, name: str) -> int:
        """Return how many records of a pack's index mean nothing."""
        return self._places.damaged_count(name)

    def told_bytes(self) -> int:
        """Return how much all packs and own files hold, as the indexes tell."""
        own_files = (place.record.size_bytes for place in self.own_files())
        packs = (self._places.end_bytes(name) for name in self._places.names())
        return sum(packs) + sum(own_files)

    def drop(self, name: str) -> None:
        """Forget a pack that was removed, and give back its room."""
        with self._writing:
            if name == self.own_name():
                self._leave_writer()
        self._places.drop(name)
        self.lookout.forget(name)
        self._reader.drop(name)

    def _settle(self) -> list[str]:
        with self._writing:  # or a pack that is being made would be taken for gone
            names = names_in(self._directory)
            for gone in set(self._places.names()).difference(names):
                self.drop(gone)
            self._check_writer()
            own = self.own_name()
        return [name for name in names if name != own]

    # -- writing --------------------------------------------------------------------

    def append(self, content_hash: ContentHash, content: bytes | bytearray) -> None:
        """Add an object to our pack.

        Raises:
            OSError: As the kernel says; the object is not there.
        """

        def write(writer: PackWriter) -> None:
            offset = writer.append(content)
            checksum = zlib.crc32(content)
            packed = RecordKind.PACKED
            record = Record(packed, content_hash, offset, len(content), checksum)
            self._note(writer, record)

        self._write(len(content), write)

    def note_own_file(self, content_hash: ContentHash, size_bytes: int) -> None:
        """Tell others of an object in a file of its own.

        Raises:
            OSError: As the kernel says.
        """
        stamp = int.from_bytes(os.urandom(_STAMP_BYTES))
        self.note(Record(RecordKind.OWN_FILE, content_hash, stamp, size_bytes))

    def note(self, record: Record) -> None:
        """Write a record to our index.

        Raises:
            OSError: As the kernel says.
        """
        self._write(0, lambda writer: self._note(writer, record))

    def remove(self, content_hash: ContentHash) -> list[Place]:
        """Let nobody use an object any more; return where it was.

        Raises:
            OSError: As the kernel says; others may go on to use it.
        """
        places = self._places.all_of(content_hash)
        for place in places:
            self._places.forget(place)
        for place in places:
            pack, offset = place.identity()
            named = bytes.fromhex(pack) or bytes(pack_index.NAME_BYTES)
            self.note(Record(RecordKind.REMOVED, content_hash, offset, pack=named))
        return places

    def carry_over(self, name: str) -> None:
        """Tell of what only one pack's index tells, before that is removed.

        Objects that lie in the pack itself are not concerned.

        Raises:
            OSError: As the kernel says.
        """
        for place in self._places.told_by(name):
            if place.record.kind is RecordKind.OWN_FILE:
                self.note(place.record)
        for removal in self._places.removals_told_by(name):
            self.note(removal)

    def own_name(self) -> str | None:
        """Return the name of the pack that we append to, if there is one."""
        writer = self._writer
        return writer.name if writer is not None else None

    def _write(self, size_bytes: int, write: Callable[[PackWriter], None]) -> None:
        """Write something to our pack, or to another one if that cannot be written."""
        self.lookout.look_once()
        with self._writing:
            try:
                write(self._writer_for(size_bytes))
            except OSError as error:
                if not self._gives_up(error):
                    raise
                write(self._writer_for(size_bytes))

    def _gives_up(self, error: OSError) -> bool:
        """Leave our pack for good if an error concerns no other; return whether."""
        writer = self._writer
        if writer is None:
            return False
        is_at_limit = error.errno == errno.EFBIG and writer.end_bytes > 0
        if not is_at_limit and error.errno not in _LOST:
            return False
        log.debug("cache: pack %s: %s; begins another", writer.name, error.strerror)
        self._given_up.add(writer.name)
        self._leave_writer()
        return True

    def _writer_for(self, size_bytes: int) -> PackWriter:
        if self._clock() - self._check_s >= self._check_pause_s:
            self._check_writer()
        writer = self._writer
        if writer is not None:
            if self._fits(writer.end_bytes, writer.index_bytes, size_bytes):
                return writer
            self._leave_writer()
        writer = self._resume(size_bytes) or self._begin()
        self._writer = writer
        self._check_pause_s = OWN_CHECK_S
        self.lookout.own_name = writer.name
        return writer

    def _check_writer(self) -> None:
        """Leave our pack if others cannot find what is appended to it."""
        self._check_s = self._clock()
        self._check_pause_s = min(2 * self._check_pause_s, OWN_CHECK_MAX_S)
        if self._writer is not None and not self._writer.is_sound():
            self._given_up.add(self._writer.name)
            self.drop(self._writer.name)

    def _begin(self) -> PackWriter:
        writer = PackWriter.begin(self._directory, self._node)
        self.has_made_directory |= writer.has_made_directory
        self._places.take(writer.name, 0, pack_index.header())
        return writer

    def _resume(self, size_bytes: int) -> PackWriter | None:
        """Go on with a pack of this node whose writer has ended."""
        for name in self.lookout.last_written_first():
            if name in self._given_up or not self._has_room(name, 0, size_bytes):
                continue
            writer = PackWriter.resume(self._directory, name)
            if writer is None:
                continue
            self.lookout.read_index(name)  # the last time another has added to it
            writer.index_bytes = self._places.read_bytes(name)
            writer.end_bytes = max(writer.end_bytes, self._places.end_bytes(name))
            if self._has_room(name, writer.end_bytes, size_bytes):
                if writer.is_sound():
                    return writer
                self._given_up.add(name)
            writer.close()
        return None

    def _has_room(self, name: str, end_bytes: int, size_bytes: int) -> bool:
        end_bytes = max(end_bytes, self._places.end_bytes(name))
        return self._fits(end_bytes, self._places.read_bytes(name), size_bytes)

    def _fits(self, end_bytes: int, index_bytes: int, size_bytes: int) -> bool:
        has_room = not end_bytes or end_bytes + size_bytes <= self._pack_bytes
        return has_room and index_bytes + RECORD_BYTES <= INDEX_BYTES_MAX

    def _leave_writer(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
            self.lookout.own_name = None

    def _note(self, writer: PackWriter, record: Record) -> None:
        text = record.serialize()
        self._places.take(writer.name, writer.note(text), text)
