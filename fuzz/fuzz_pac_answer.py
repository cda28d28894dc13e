"""Any answer of a PAC file is a proxy list, or a FormatError; DIRECT only if said."""

from cvmfsexec.errors import FormatError
from cvmfsexec.format.pac_answer import parse_pac_answer
from cvmfsexec.format.proxy_groups import DIRECT, format_proxy_list, parse_proxy_list


def target(data: bytes) -> None:
    """Raise only on a finding."""
    text = data.decode("utf-8", "replace")
    try:
        groups = parse_pac_answer(text)
    except FormatError:
        return
    assert parse_proxy_list(format_proxy_list(groups)) == groups
    assert all(len(group.members) == 1 for group in groups)
    if any(DIRECT in group.members for group in groups):
        elements = [element.split() for element in text.split(";")]
        assert not text.strip() or [DIRECT] in elements
