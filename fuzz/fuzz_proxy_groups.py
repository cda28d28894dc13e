"""Any text is a proxy list, a server list, a list of PAC files, or a FormatError."""

from cvmfsexec.errors import FormatError
from cvmfsexec.format.proxy_groups import (
    format_proxy_list,
    parse_pac_urls,
    parse_proxy_list,
    parse_server_list,
    without_direct,
)


def target(data: bytes) -> None:
    """Raise only on a finding."""
    text = data.decode("utf-8", "replace")
    try:
        groups = parse_proxy_list(text)
        assert parse_proxy_list(format_proxy_list(groups)) == groups
        assert all("DIRECT" not in group.members for group in without_direct(groups))
    except FormatError:
        pass
    try:
        servers = parse_server_list(text, "repo.example.org")
        assert parse_server_list(";".join(servers), "repo.example.org") == servers
    except FormatError:
        pass
    try:
        urls = parse_pac_urls(text)
        assert parse_pac_urls(";".join(urls)) == urls
    except FormatError:
        pass
