"""Extended attributes as a catalog packs them into one BLOB.

::

    version = 1, count, then per attribute: key length, value length, key, value

All numbers are single bytes. Damage costs a file its attributes and nothing else,
as in the original client.

Source: docs/reference/repository-format.md, "Extended attributes BLOB".
"""

from collections.abc import Mapping

from cvmfsexec.errors import FormatError

VERSION = 1
COUNT_MAX = 255
LENGTH_MAX = 255

_HEADER_BYTES = 2


def parse_xattrs(blob: bytes | None) -> dict[bytes, bytes]:
    """Return the attributes by name, in stored order; none if the BLOB is damaged."""
    if not blob or len(blob) < _HEADER_BYTES or blob[0] != VERSION:
        return {}
    xattrs = {}
    position = _HEADER_BYTES
    for _ in range(blob[1]):
        lengths = blob[position : position + 2]
        if len(lengths) < 2:
            return {}
        value_start = position + 2 + lengths[0]
        end = value_start + lengths[1]
        key = blob[position + 2 : value_start]
        if end > len(blob) or not key or b"\0" in key:
            return {}
        xattrs[key] = blob[value_start:end]
        position = end
    return xattrs


def serialize_xattrs(xattrs: Mapping[bytes, bytes]) -> bytes | None:
    """Pack attributes, sorted by name as the original does; ``None`` for none.

    Raises:
        FormatError: More than 255 attributes, a name that is empty or holds NUL, or
            a name or value of more than 255 bytes.
    """
    if not xattrs:
        return None
    if len(xattrs) > COUNT_MAX:
        raise FormatError(
            f"{len(xattrs)} extended attributes are more than {COUNT_MAX}"
        )
    parts = [bytes((VERSION, len(xattrs)))]
    for key, value in sorted(xattrs.items()):
        if not key or b"\0" in key or max(len(key), len(value)) > LENGTH_MAX:
            raise FormatError(f"extended attribute {key[:80]!r} cannot be stored")
        parts += (bytes((len(key), len(value))), key, value)
    return b"".join(parts)
