"""Where objects lie in packs, as far as the indexes that were read tell.

What was read is one dictionary of numbers; a record is parsed and checked when it is
used: 200,000 objects are loaded in 0.1 s. An object may lie in several packs (two nodes
fetched it), and any of these places may turn out to be no good: torn by a crash, told
to be removed, or gone with its pack. Then the others are searched for, in the records
themselves; that takes milliseconds and is rare.

Only memory is touched here. Any thread may call; one lock guards everything.
"""

import contextlib
import threading
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from cvmfsexec.errors import FormatError
from cvmfsexec.format import pack_index
from cvmfsexec.format.digest import ContentHash, HashAlgorithm
from cvmfsexec.format.pack_index import RECORD_BYTES, Record, RecordKind

_RECORD_BITS = 32
_KINDS = (RecordKind.PACKED, RecordKind.OWN_FILE)
_REMOVALS = tuple(
    bytes((RecordKind.REMOVED << 4 | algorithm,)) for algorithm in HashAlgorithm
)


class Place(NamedTuple):
    """Where an object lies.

    Attributes:
        pack: Name of the pack whose index tells of it.
        record: What that says.
    """

    pack: str
    record: Record

    def identity(self) -> tuple[str, int]:
        """Return what a removal names: the pack, or none for a file of its own."""
        packed = self.record.kind is RecordKind.PACKED
        return (self.pack if packed else "", self.record.offset)


class _Index:
    """What was read of one pack's index."""

    __slots__ = ("name", "number", "records")

    def __init__(self, name: str, number: int) -> None:
        self.name = name
        self.number = number
        self.records = bytearray()


class PackPlaces:
    """The places that are known; empty at first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._indexes: list[_Index | None] = []
        self._by_name: dict[str, _Index] = {}
        self._places: dict[bytes, int] = {}
        self._unusable: dict[bytes, set[tuple[str, int]]] = {}

    def names(self) -> list[str]:
        """Return the packs that are known."""
        with self._lock:
            return list(self._by_name)

    def read_bytes(self, name: str) -> int:
        """Return how much of a pack's index is known."""
        index = self._by_name.get(name)
        return len(index.records) if index is not None else 0

    def end_bytes(self, name: str) -> int:
        """Return where the next object may begin in a pack, as far as is known."""
        with self._lock:
            index = self._by_name.get(name)
            records = index.records if index is not None else b""
            for start in range(len(records) - RECORD_BYTES, 0, -RECORD_BYTES):
                record = _parsed(records, start)
                if record is not None and record.kind is RecordKind.PACKED:
                    return record.offset + max(record.size_bytes, 1)
        return 0

    def take(self, name: str, offset: int, added: bytes) -> None:
        """Learn whole records; those that are known already are passed over.

        Args:
            name: Of the pack.
            offset: Where in its index they begin.
            added: The records.
        """
        with self._lock:
            index = self._by_name.get(name)
            if index is None:
                index = _Index(name, len(self._indexes))
            if offset != len(index.records):
                return  # another thread has read them
            if index.name not in self._by_name:
                self._indexes.append(index)
                self._by_name[name] = index
            keys = pack_index.keys_in(added)
            first = index.number << _RECORD_BITS | offset // RECORD_BYTES
            index.records += added
            self._places.update(zip(keys, range(first, first + len(keys)), strict=True))
            self._heed(keys, [record for _, record in _removals_in(added)])

    def drop(self, name: str) -> None:
        """Forget a pack that is not there any more."""
        with self._lock:
            index = self._by_name.pop(name, None)
            if index is not None:
                self._indexes[index.number] = None  # found out when it is used

    def find(self, content_hash: ContentHash) -> Place | None:
        """Return where an object lies, or ``None``."""
        with self._lock:
            for kind in _KINDS:
                place = self._find(kind, content_hash)
                if place is not None:
                    return place
        return None

    def has(self, content_hash: ContentHash) -> bool:
        """Whether a place is likely to be known; who reads ahead asks very often."""
        for kind in _KINDS:
            number = self._places.get(pack_index.key_of(kind, content_hash))
            if number is not None and self._indexes[number >> _RECORD_BITS] is not None:
                return True
        return False

    def all_of(self, content_hash: ContentHash) -> list[Place]:
        """Return every place where an object may lie."""
        with self._lock:
            return [
                place
                for kind in _KINDS
                for _, place in self._candidates(kind, content_hash)
            ]

    def forget(self, place: Place) -> None:
        """Look for an object elsewhere: it cannot be had at a place."""
        record = place.record
        key = pack_index.key_of(record.kind, record.content_hash)
        with self._lock:
            self._unusable.setdefault(key, set()).add(place.identity())
            self._resolve(record.kind, record.content_hash)

    def told_by(self, name: str) -> list[Place]:
        """Return the objects that would not be found without one pack's index."""
        with self._lock:
            index = self._by_name.get(name)
            if index is None:
                return []
            first = index.number << _RECORD_BITS
            return [
                Place(name, record)
                for position, record in _records_in(index.records)
                if self._places.get(pack_index.key_of(record.kind, record.content_hash))
                == first + position
                and record.kind in _KINDS
            ]

    def damaged_count(self, name: str) -> int:
        """Return how many records of one pack's index mean nothing."""
        with self._lock:
            index = self._by_name.get(name)
            records = bytes(index.records) if index is not None else b""
        return len(records) // RECORD_BYTES - sum(1 for _ in _records_in(records))

    def removals_told_by(self, name: str) -> list[Record]:
        """Return the removals in one pack's index that other indexes call for."""
        with self._lock:
            index = self._by_name.get(name)
            records = bytes(index.records) if index is not None else b""
        removals = [record for _, record in _removals_in(records)]
        return [removal for removal in removals if self._is_needed(removal, name)]

    def _is_needed(self, removal: Record, but: str) -> bool:
        """Whether another index than one tells of what was removed."""
        if any(removal.pack):
            return removal.pack.hex() != but and removal.pack.hex() in self._by_name
        key = pack_index.key_of(RecordKind.OWN_FILE, removal.content_hash)
        with self._lock:
            return any(
                record.offset == removal.offset
                for index in self._by_name.values()
                if index.name != but
                for position in _positions_of(key, index.records)
                if (record := _parsed(index.records, position * RECORD_BYTES))
            )

    def own_files(self) -> list[Place]:
        """Return the objects that are said to have files of their own."""
        with self._lock:
            keys = [k for k in self._places if k[0] >> 4 == RecordKind.OWN_FILE]
            found = (self._find(RecordKind.OWN_FILE, h) for h in _hashes_of(keys))
            return [place for place in found if place is not None]

    def _heed(self, keys: list[bytes], removals: Iterable[Record]) -> None:
        """Pass over what is removed, be it told of before or after its removal."""
        for removal in removals:
            packed = any(removal.pack)
            kind = RecordKind.PACKED if packed else RecordKind.OWN_FILE
            key = pack_index.key_of(kind, removal.content_hash)
            identity = (removal.pack.hex() if packed else "", removal.offset)
            self._unusable.setdefault(key, set()).add(identity)
            self._resolve(kind, removal.content_hash)
        if not self._unusable:
            return
        few, many = keys, self._unusable.keys()
        concerned = (
            [k for k in few if k in many] if len(few) < len(many) else list(many)
        )
        for key in concerned:
            for content_hash in _hashes_of([key]):
                self._resolve(RecordKind(key[0] >> 4), content_hash)

    def _find(self, kind: RecordKind, content_hash: ContentHash) -> Place | None:
        number = self._places.get(pack_index.key_of(kind, content_hash))
        if number is None:
            return None
        place = self._place_at(number)
        return place if place is not None else self._resolve(kind, content_hash)

    def _resolve(self, kind: RecordKind, content_hash: ContentHash) -> Place | None:
        """Let an object be found at the last place that is good, if there is one."""
        key = pack_index.key_of(kind, content_hash)
        number = self._places.get(key)
        if number is None:
            return None
        place = self._place_at(number)
        if place is not None and self._is_usable(key, place):
            return place
        for number, place in self._candidates(kind, content_hash):
            self._places[key] = number
            return place
        del self._places[key]
        return None

    def _candidates(
        self, kind: RecordKind, content_hash: ContentHash
    ) -> Iterator[tuple[int, Place]]:
        key = pack_index.key_of(kind, content_hash)
        for index in reversed(self._indexes):
            if index is None:
                continue
            for position in _positions_of(key, index.records):
                number = index.number << _RECORD_BITS | position
                place = self._place_at(number)
                if place is not None and self._is_usable(key, place):
                    yield number, place

    def _is_usable(self, key: bytes, place: Place) -> bool:
        return place.identity() not in self._unusable.get(key, ())

    def _place_at(self, number: int) -> Place | None:
        index = self._indexes[number >> _RECORD_BITS]
        if index is None:
            return None
        start = (number & (1 << _RECORD_BITS) - 1) * RECORD_BYTES
        record = _parsed(index.records, start)
        return Place(index.name, record) if record is not None else None


def without_torn_end(records: bytes, torn_max: int = 1024) -> bytes:
    """Return whole records, as far as the last one that matches its checksum.

    What comes after it may be on its way; so it is read again another time.
    """
    end = len(records) // RECORD_BYTES * RECORD_BYTES
    for _ in range(torn_max):
        if end == 0 or _parsed(records, end - RECORD_BYTES) is not None:
            break
        end -= RECORD_BYTES
    return records[:end]


def _parsed(records: bytes | bytearray, start: int) -> Record | None:
    try:
        return Record.parse(bytes(records[start : start + RECORD_BYTES]))
    except FormatError:
        return None


def _records_in(records: bytes | bytearray) -> Iterator[tuple[int, Record]]:
    for position in range(len(records) // RECORD_BYTES):
        record = _parsed(records, position * RECORD_BYTES)
        if record is not None:
            yield position, record


def _removals_in(records: bytes) -> Iterator[tuple[int, Record]]:
    starts = records[::RECORD_BYTES]  # in C: almost always there are none
    for start in _REMOVALS:
        position = -1
        while (position := starts.find(start, position + 1)) >= 0:
            record = _parsed(records, position * RECORD_BYTES)
            if record is not None:
                yield position, record


def _positions_of(key: bytes, records: bytearray) -> Iterator[int]:
    """Yield the numbers of the records that begin with a key, the last one first."""
    end = len(records)
    while (at := records.rfind(key, 0, end)) >= 0:
        if at % RECORD_BYTES == 0:
            yield at // RECORD_BYTES
        end = at + len(key) - 1


def _hashes_of(keys: Iterable[bytes]) -> Iterator[ContentHash]:
    for key in keys:
        with contextlib.suppress(ValueError):  # a record of nonsense
            yield ContentHash(key[1:], HashAlgorithm(key[0] & 0xF))
