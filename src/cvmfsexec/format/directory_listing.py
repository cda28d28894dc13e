"""Names of packages in the page that a web server shows for a directory.

There is no format for such pages; links are enough. Only a bare file name counts, so
that a page cannot send anybody elsewhere.
"""

import re

LISTING_BYTES_MAX = 4 << 20

_PACKAGE_COUNT_MAX = 10_000
_LINK = re.compile(
    rb"""href=["']?(?:\./)?([A-Za-z0-9][A-Za-z0-9+._%~-]{0,199})["'> ]"""
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._~-]*\.(?:rpm|deb)")
_ESCAPES = {"%2B": "+", "%2b": "+", "%7E": "~", "%7e": "~"}


def packages_in_listing(page: bytes) -> tuple[str, ...]:
    """Return the file names of packages to which a page links, each once."""
    names: dict[str, None] = {}
    for link in _LINK.findall(page[:LISTING_BYTES_MAX]):
        name = link.decode("ascii")
        for escape, character in _ESCAPES.items():
            name = name.replace(escape, character)
        if _NAME.fullmatch(name) and len(names) < _PACKAGE_COUNT_MAX:
            names[name] = None
    return tuple(names)
