"""Any bytes on a talk socket are a command, none, or too many."""

from cvmfsexec.errors import FormatError
from cvmfsexec.format.talk_message import (
    MESSAGE_BYTES_MAX,
    TALK_COMMANDS,
    parse_talk_message,
    whole_number,
)


def target(data: bytes) -> None:
    """Raise only on a finding."""
    try:
        command = parse_talk_message(data)
    except FormatError:
        assert len(data) > MESSAGE_BYTES_MAX
        return
    assert command.name in TALK_COMMANDS or command == ("", "")
    assert not command.argument or TALK_COMMANDS[command.name]
    number = whole_number(command.argument)
    assert number is None or 0 <= number < 10**9
