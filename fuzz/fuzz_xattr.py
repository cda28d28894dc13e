"""Any bytes are a list of attributes, which survives being written."""

from cvmfsexec.format.xattr import parse_xattrs, serialize_xattrs


def target(data: bytes) -> None:
    """Raise only on a finding."""
    xattrs = parse_xattrs(data)
    assert parse_xattrs(serialize_xattrs(xattrs)) == xattrs
