"""What sessions say of themselves, and what the kernel says of their sockets."""

from cvmfsexec.errors import FormatError
from cvmfsexec.namespaces.join import names_in
from cvmfsexec.namespaces.meeting import decode_card, encode_card, is_possible_name


def target(data: bytes) -> None:
    """Raise only on a finding."""
    assert all(map(is_possible_name, names_in(data.decode("latin-1"), 1000)))
    try:
        card = decode_card(data)
    except FormatError:
        return
    again = decode_card(encode_card(card))
    assert again[:3] == card[:3]
    assert card.command.startswith(again.command)
