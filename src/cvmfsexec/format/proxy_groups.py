"""Proxy lists and server lists, as configurations and proxy discovery write them.

``http://p1:3128|http://p2:3128;http://p3:3128;DIRECT`` is three groups: two
proxies that share the load, one to fall back to, and last no proxy at all. Groups
are tried in order. A group that is exactly ``auto`` stands for what discovery finds;
inside a larger group the same word is the name of a machine.

Source: docs/reference/client-behaviour.md, "Proxy strings", "Server lists".
"""

import re
from typing import NamedTuple

from cvmfsexec.errors import FormatError

DIRECT = "DIRECT"
"""The member that stands for asking the server without a proxy."""

AUTO = "auto"

WPAD_URL = "http://wpad/wpad.dat"
"""Where a network offers its proxy configuration file, by convention."""

_MEMBER = re.compile(r"(?:([A-Za-z][A-Za-z0-9+.-]*)://)?([^/|;]+)/*")
_SERVER = re.compile(r"(https?)://([^/?#]+)(/[^?#]*)?|(file):///[^?#]*", re.IGNORECASE)
_AUTHORITY = re.compile(
    r"(?:[^@]*@)?(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?"
)
_PAC_URL = re.compile(r"https?://([^/?#]+)([/?][!-~]*)?|file:///[!-~]*", re.IGNORECASE)
_VISIBLE = re.compile(r"[!-~]*")
_CREDENTIALS = re.compile(r"(?<=://)[^/]*@")
_PROXY_SCHEMES = ("http", "https")


class ProxyGroup(NamedTuple):
    """Proxies that are as good as each other.

    Attributes:
        members: URLs with their scheme, or ``DIRECT``; never empty, none twice.
    """

    members: tuple[str, ...]

    @property
    def is_auto(self) -> bool:
        """Whether the group stands for what proxy discovery will find."""
        return self.members == (AUTO,)


def parse_proxy_list(text: str) -> tuple[ProxyGroup, ...]:
    """Read a proxy list; no group at all is an answer, not an error.

    Raises:
        FormatError: A member is neither ``DIRECT`` nor ``[http://]host[:port]``.
    """
    groups = (_parse_group(part.strip()) for part in text.split(";"))
    return tuple(group for group in groups if group.members)


def format_proxy_list(groups: tuple[ProxyGroup, ...]) -> str:
    """Write a proxy list; it parses back to the same groups."""
    return ";".join("|".join(group.members) for group in groups)


def parse_server_list(text: str, fqrn: str) -> tuple[str, ...]:
    """Read a list of servers: base URLs without trailing slash, in order of preference.

    Args:
        text: URLs separated by ``;``, with ``@fqrn@`` and ``@org@`` in them.
        fqrn: What to put in place of those.

    Raises:
        FormatError: An element is not an ``http``, ``https`` or ``file`` URL.
    """
    filled = text.replace("@fqrn@", fqrn).replace("@org@", fqrn.partition(".")[0])
    servers = (part.strip() for part in filled.split(";"))
    return tuple(dict.fromkeys(_check_server(server) for server in servers if server))


def parse_pac_urls(text: str) -> tuple[str, ...]:
    """Read a list of places of proxy configuration files, in order.

    Args:
        text: URLs separated by ``;``; ``auto`` stands for the usual place.

    Raises:
        FormatError: An element is not an ``http``, ``https`` or ``file`` URL.
    """
    parts = (part.strip() for part in text.split(";"))
    return tuple(dict.fromkeys(_check_pac_url(part) for part in parts if part))


def without_direct(groups: tuple[ProxyGroup, ...]) -> tuple[ProxyGroup, ...]:
    """Return what is left of groups when nobody may be asked without a proxy."""
    kept = (tuple(m for m in group.members if m != DIRECT) for group in groups)
    return tuple(ProxyGroup(members) for members in kept if members)


def without_credentials(url: str) -> str:
    """Return a URL that may be shown: user name and password are left out."""
    return _CREDENTIALS.sub("", url)


def _parse_group(text: str) -> ProxyGroup:
    if text == AUTO:
        return ProxyGroup((AUTO,))
    members = (part.strip() for part in text.split("|"))
    unique = dict.fromkeys(_parse_member(member) for member in members if member)
    return ProxyGroup(tuple(unique))


def _parse_member(text: str) -> str:
    if text == DIRECT:
        return DIRECT
    if text.upper() == DIRECT:
        raise FormatError(f"proxy {text!r}: DIRECT is written in capital letters")
    match = _MEMBER.fullmatch(text)
    if match is None or not _VISIBLE.fullmatch(text):
        raise FormatError(f"not a proxy: {_shown(text)}")
    scheme = (match[1] or "http").lower()
    if scheme not in _PROXY_SCHEMES:
        raise FormatError(f"proxy {_shown(text)}: only http and https are supported")
    _check_authority(match[2], text)
    return f"{scheme}://{match[2]}"


def _check_server(text: str) -> str:
    match = _SERVER.fullmatch(text)
    if match is None or not _VISIBLE.fullmatch(text):
        raise FormatError(f"not a server's URL: {_shown(text)}")
    if match[4]:
        return "file://" + (text[len("file://") :].rstrip("/") or "/")
    _check_authority(match[2], text)
    return f"{match[1].lower()}://{match[2]}{(match[3] or '').rstrip('/')}"


def _check_pac_url(text: str) -> str:
    if text == AUTO:
        return WPAD_URL
    match = _PAC_URL.fullmatch(text)
    if match is None:
        raise FormatError(f"not the URL of a proxy configuration file: {_shown(text)}")
    if match[1]:
        _check_authority(match[1], text)
    return text


def _check_authority(authority: str, whole: str) -> None:
    match = _AUTHORITY.fullmatch(authority)
    if match is None or (match[1] and not 0 < int(match[1]) < 1 << 16):
        raise FormatError(f"no host and port in {_shown(whole)}")


def _shown(text: str) -> str:
    # What did not parse may hide a password anywhere before the last "@".
    return repr(text.rpartition("@")[2][:120])
