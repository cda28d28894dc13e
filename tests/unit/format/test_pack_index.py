"""Records of a pack's index."""

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.errors import FormatError
from cvmfsexec.format import pack_index
from cvmfsexec.format.digest import ContentHash, HashAlgorithm
from cvmfsexec.format.pack_index import RECORD_BYTES, Record, RecordKind

HASHES = st.builds(
    ContentHash, st.binary(min_size=20, max_size=20), st.sampled_from(HashAlgorithm)
)
RECORDS = st.builds(
    Record,
    st.sampled_from(RecordKind),
    HASHES,
    st.integers(0, 1 << 47),
    st.integers(0, 1 << 47),
    st.integers(0, 2**32 - 1),
    st.binary(min_size=8, max_size=8),
)
RECORD = Record(RecordKind.PACKED, ContentHash.of(b"an object"), 10, 9, 12345)


@given(RECORDS)
def test_a_record_is_read_as_it_was_written(record: Record) -> None:
    text = record.serialize()
    assert len(text) == RECORD_BYTES
    assert Record.parse(text) == record
    key = pack_index.key_of(record.kind, record.content_hash)
    assert pack_index.keys_in(text + text) == [key, key]


@given(st.binary(max_size=2 * RECORD_BYTES))
def test_any_bytes_are_a_record_or_refused(data: bytes) -> None:
    try:
        record = Record.parse(data)
    except FormatError:
        return
    assert record.serialize() == data


@given(st.integers(0, RECORD_BYTES * 8 - 1))
def test_a_record_with_any_bit_changed_is_refused(bit: int) -> None:
    text = bytearray(RECORD.serialize())
    text[bit // 8] ^= 1 << bit % 8
    with pytest.raises(FormatError):
        Record.parse(bytes(text))


@pytest.mark.parametrize(
    ("position", "value", "complaint"),
    [
        (0, 0x13, "unknown kind"),
        (0, 0x40, "unknown kind"),
        (21, 0xFF, "too far"),
        (49, 1, "another version"),
    ],
)
def test_a_record_that_means_nothing_is_refused(
    position: int, value: int, complaint: str
) -> None:
    text = bytearray(RECORD.serialize()[:-4])
    text[position] = value
    with pytest.raises(FormatError, match=complaint):
        Record.parse(bytes(text) + zlib.crc32(text).to_bytes(4))


def test_an_index_begins_with_its_version() -> None:
    assert pack_index.has_header(pack_index.header() + RECORD.serialize())
    assert not pack_index.has_header(RECORD.serialize())
    assert not pack_index.has_header(pack_index.header()[:-1])
