"""Any text is a blacklist, and merging it with itself changes nothing."""

from cvmfsexec.format.blacklist import EMPTY_BLACKLIST, Blacklist


def target(data: bytes) -> None:
    """Raise only on a finding."""
    blacklist = Blacklist.parse(data.decode("utf-8", "replace"))
    assert blacklist.merge(blacklist) == blacklist
    assert EMPTY_BLACKLIST.merge(blacklist) == blacklist
