"""Any bytes as the two files of a pack: right objects, or none."""

import functools
import os
import shutil
import tempfile
import zlib

from cvmfsexec.cache.pack_writer import DIRECTORY, INDEX, PACK
from cvmfsexec.cache.packed import PackedStore
from cvmfsexec.errors import FormatError
from cvmfsexec.format import pack_index
from cvmfsexec.format.digest import ContentHash, HashAlgorithm
from cvmfsexec.format.pack_index import KEY_BYTES, RECORD_BYTES, Record, RecordKind

_NAME = "0123456789abcdef"
_TEXT_BYTES = RECORD_BYTES - 4


def target(data: bytes) -> None:
    """Raise only on a finding."""
    half = len(data) // 2
    records, pack = data[:half], data[half:]
    _check_records(records)
    # With right checksums, a mutation reaches what lies behind them.
    sealed = b"".join(
        _sealed(records[start : start + _TEXT_BYTES])
        for start in range(0, len(records), _TEXT_BYTES)
    )
    for index in (records, pack_index.header() + records, pack_index.header() + sealed):
        _check_store(index, pack)


def _check_records(data: bytes) -> None:
    for start in range(0, len(data), RECORD_BYTES):
        text = data[start : start + RECORD_BYTES]
        try:
            record = Record.parse(text)
        except FormatError:
            continue
        assert record.serialize() == text


def _check_store(index: bytes, pack: bytes) -> None:
    top = _top()
    shutil.rmtree(f"{top}/{DIRECTORY}", ignore_errors=True)
    os.mkdir(f"{top}/{DIRECTORY}")
    for suffix, content in ((INDEX, index), (PACK, pack)):
        with open(f"{top}/{DIRECTORY}/{_NAME}{suffix}", "wb") as file:
            file.write(content)
    store = PackedStore.open(top)
    try:
        for start in range(0, len(index), RECORD_BYTES):
            digest = index[start + 1 : start + KEY_BYTES].ljust(KEY_BYTES - 1, b"\0")
            for algorithm in HashAlgorithm:
                _check_object(store, ContentHash(digest, algorithm), index, pack)
    finally:
        store.close()


def _check_object(
    store: PackedStore, content_hash: ContentHash, index: bytes, pack: bytes
) -> None:
    descriptor = store.open_object(content_hash)
    if descriptor is None:
        return
    content = os.pread(descriptor, 1 << 20, 0)
    os.close(descriptor)
    assert content in pack
    key = pack_index.key_of(RecordKind.PACKED, content_hash)
    assert key in index
    assert zlib.crc32(content).to_bytes(4, "big") in index
    store.remove(content_hash)
    assert store.open_object(content_hash) is None


def _sealed(text: bytes) -> bytes:
    text = text.ljust(_TEXT_BYTES, b"\0")
    return text + zlib.crc32(text).to_bytes(4, "big")


@functools.cache
def _top() -> str:
    directory = tempfile.TemporaryDirectory(prefix="cvmfsexec-fuzz-")
    _kept.append(directory)
    return directory.name


_kept: list[tempfile.TemporaryDirectory[str]] = []
