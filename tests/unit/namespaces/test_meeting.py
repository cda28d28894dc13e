import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.errors import ConfigurationError, FormatError
from cvmfsexec.namespaces.isolation import Isolation
from cvmfsexec.namespaces.join import names_in
from cvmfsexec.namespaces.meeting import (
    CARD_BYTES_MAX,
    Card,
    check_name,
    decode_card,
    encode_card,
    is_possible_name,
)

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
names = st.text("abcXYZ019_.-", min_size=1, max_size=64)


@given(names, st.integers(0, 2**40), st.sampled_from(Isolation), texts, texts)
def test_card_reads_back_as_it_was_written(
    name: str, since_s: int, isolation: Isolation, repositories: str, command: str
) -> None:
    card = Card(name, since_s, isolation, repositories[:99], command[:99])
    assert decode_card(encode_card(card)) == card


@given(st.binary(max_size=200))
def test_any_bytes_are_a_card_or_malformed(data: bytes) -> None:
    with contextlib.suppress(FormatError):
        assert is_possible_name(decode_card(data).name)


def test_long_card_is_cut_to_what_a_caller_reads() -> None:
    card = Card("x" * 64, 1, Isolation.PROCESS_TREE, "r " * 9999, "word " * 9999)
    assert len(encode_card(card)) <= CARD_BYTES_MAX


@given(names)
def test_plain_name_is_a_name(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", "+1", "a b", "a/b", "ä", "x" * 65, "a\0", "a\n"])
def test_odd_name_is_none(name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be the name of a session"):
        check_name(name)


def test_names_are_those_of_the_users_own_sockets() -> None:
    table = (
        "Num       RefCount Protocol Flags    Type St Inode Path\n"
        "0: 00000002 00000000 00010000 0005 01 100 @cvmfsexec/1000/work\n"
        "0: 00000003 00000000 00000000 0005 03 101 @cvmfsexec/1000/work\n"
        "0: 00000002 00000000 00010000 0005 01 102 @cvmfsexec/1000/+4711\n"
        "0: 00000002 00000000 00010000 0005 01 103 @cvmfsexec/10/other\n"
        "0: 00000002 00000000 00010000 0005 01 104 @cvmfsexec/1000/a/b\n"
        "0: 00000002 00000000 00010000 0005 01 105 /run/cvmfsexec/1000/file\n"
        "0: 00000002 00000000 00010000 0005 01 106\n"
    )
    assert names_in(table, 1000) == ["+4711", "work"]


@given(st.text())
def test_any_table_holds_only_possible_names(table: str) -> None:
    assert all(map(is_possible_name, names_in(table + "@cvmfsexec/1/x", 1)))
