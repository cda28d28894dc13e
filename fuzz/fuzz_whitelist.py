"""Any bytes are a whitelist that survives being written, or a FormatError."""

from cvmfsexec.errors import MalformedWhitelistError
from cvmfsexec.format.whitelist import Whitelist


def target(data: bytes) -> None:
    """Raise only on a finding."""
    try:
        whitelist = Whitelist.parse(data)
    except MalformedWhitelistError:
        return
    whitelist.is_expired(1.8e9)
    assert Whitelist.parse(whitelist.serialize()) == whitelist
