"""Paths as they are written in URLs.

Bytes of a name that are no text are surrogates in a path (``os.fsdecode``).
"""

import re

_PLAIN = "abcdefghijklmnopqrstuvwxyz0123456789/.-_ABCDEFGHIJKLMNOPQRSTUVWXYZ:@+~[],"
_ESCAPE = rb"%([0-9A-Fa-f]{2})"


def escape_path(path: str) -> str:
    """Return a path as it is written in a URL."""
    if not path.strip(_PLAIN):
        return path
    plain = frozenset(_PLAIN.encode())
    raw = path.encode("utf-8", "surrogateescape")
    return "".join(chr(one) if one in plain else f"%{one:02X}" for one in raw)


def unescape_path(escaped: str) -> bytes:
    """Return the path that is written so in a URL; what is no escape stays."""
    raw = escaped.encode("utf-8", "surrogateescape")
    return re.sub(_ESCAPE, lambda match: bytes.fromhex(match[1].decode()), raw)
