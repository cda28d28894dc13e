import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.errors import FormatError
from cvmfsexec.format.talk_message import (
    MESSAGE_BYTES_MAX,
    TALK_COMMANDS,
    TalkCommand,
    parse_talk_message,
    whole_number,
)


@pytest.mark.parametrize("end", [b"", b"\n", b"\0", b"\r\n", b"\n\0"])
@pytest.mark.parametrize("name", [n for n, needs in TALK_COMMANDS.items() if not needs])
def test_commands_without_an_argument_are_known(name: str, end: bytes) -> None:
    assert parse_talk_message(name.encode() + end) == TalkCommand(name)


@pytest.mark.parametrize("name", [n for n, needs in TALK_COMMANDS.items() if needs])
def test_an_argument_goes_to_the_end_of_the_message(name: str) -> None:
    found = parse_talk_message(f"{name} /a  b\n".encode())
    assert found == TalkCommand(name, "/a  b")
    assert not found.lacks_argument
    assert parse_talk_message(name.encode()).lacks_argument


@pytest.mark.parametrize(
    ("message", "name", "argument"),
    [
        (b"cleanup rate 5", "cleanup rate", "5"),
        (b"cleanup 5", "cleanup", "5"),
        (b"host set http://a;http://b", "host set", "http://a;http://b"),
        (b"external host set x", "external host set", "x"),
        (b"evict /\xff", "evict", "/\udcff"),
    ],
)
def test_the_longest_command_counts(message: bytes, name: str, argument: str) -> None:
    assert parse_talk_message(message) == TalkCommand(name, argument)


@pytest.mark.parametrize(
    "message",
    [b"", b"\n", b"Revision", b" revision", b"revision now", b"host  info", b"evict/a"],
)
def test_what_is_no_command_has_no_name(message: bytes) -> None:
    assert parse_talk_message(message) == TalkCommand("")


def test_a_message_has_a_limit() -> None:
    parse_talk_message(b"x" * MESSAGE_BYTES_MAX)
    with pytest.raises(FormatError):
        parse_talk_message(b"x" * (MESSAGE_BYTES_MAX + 1))


@given(st.binary() | st.sampled_from(sorted(TALK_COMMANDS)).map(str.encode))
def test_any_bytes_are_a_command_or_none(message: bytes) -> None:
    name, argument = parse_talk_message(message)
    assert name in TALK_COMMANDS or not (name or argument)
    if argument:
        assert TALK_COMMANDS[name]


@pytest.mark.parametrize(
    ("text", "number"),
    [("0", 0), ("5", 5), ("", None), ("-1", None), ("9" * 10, None), ("\u0665", None)],
)
def test_numbers_are_of_a_size_that_people_write(text: str, number: int | None) -> None:
    assert whole_number(text) == number
