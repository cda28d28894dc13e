"""Any text is a proxy list and a server list, or a FormatError."""

from cvmfsexec.errors import FormatError
from cvmfsexec.format.proxy_groups import (
    format_proxy_list,
    parse_proxy_list,
    parse_server_list,
)


def target(data: bytes) -> None:
    """Raise only on a finding."""
    text = data.decode("utf-8", "replace")
    try:
        groups = parse_proxy_list(text)
        assert parse_proxy_list(format_proxy_list(groups)) == groups
    except FormatError:
        pass
    try:
        servers = parse_server_list(text, "repo.example.org")
        assert parse_server_list(";".join(servers), "repo.example.org") == servers
    except FormatError:
        pass
