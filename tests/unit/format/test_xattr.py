import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.errors import FormatError
from cvmfsexec.format.xattr import parse_xattrs, serialize_xattrs

WORKED = bytes.fromhex("01020601757365722e61310903757365722e7465737478797a")

keys = st.binary(min_size=1, max_size=255).filter(lambda key: b"\0" not in key)
values = st.binary(max_size=255)


def test_example_of_the_specification_is_read_and_written() -> None:
    xattrs = {b"user.a": b"1", b"user.test": b"xyz"}
    assert parse_xattrs(WORKED) == xattrs
    assert serialize_xattrs(dict(reversed(xattrs.items()))) == WORKED


@pytest.mark.parametrize(
    "blob",
    [
        pytest.param(None, id="null"),
        pytest.param(b"", id="empty"),
        pytest.param(b"\1", id="no count"),
        pytest.param(b"\2" + WORKED[1:], id="unknown version"),
        pytest.param(WORKED[:-1], id="cut in a value"),
        pytest.param(WORKED[:14], id="cut in a key"),
        pytest.param(WORKED[:11], id="cut before an entry"),
        pytest.param(WORKED[:12], id="cut in the lengths"),
        pytest.param(b"\1\1\0\0", id="empty entry"),
        pytest.param(b"\1\1\0\1x", id="value without key"),
        pytest.param(b"\1\1\3\0a\0b", id="NUL in a key"),
    ],
)
def test_damage_costs_the_whole_list(blob: bytes | None) -> None:
    assert parse_xattrs(blob) == {}


def test_bytes_after_the_last_attribute_are_ignored() -> None:
    assert parse_xattrs(b"\1\1\1\0aXYZ") == {b"a": b""}


@pytest.mark.parametrize(
    "xattrs",
    [
        {b"": b"x"},
        {b"a\0": b""},
        {b"k" * 256: b""},
        {b"k": b"v" * 256},
        {b"%d" % number: b"" for number in range(256)},
    ],
    ids=["empty name", "NUL", "long name", "long value", "too many"],
)
def test_what_does_not_fit_is_not_written(xattrs: dict[bytes, bytes]) -> None:
    with pytest.raises(FormatError):
        serialize_xattrs(xattrs)


@given(st.dictionaries(keys, values, max_size=255))
def test_written_attributes_parse_back(xattrs: dict[bytes, bytes]) -> None:
    blob = serialize_xattrs(xattrs)
    assert parse_xattrs(blob) == xattrs
    assert (blob is None) == (not xattrs)


@given(st.binary())
def test_any_blob_is_a_list_of_attributes(blob: bytes) -> None:
    assert all(name and b"\0" not in name for name in parse_xattrs(b"\1" + blob))
