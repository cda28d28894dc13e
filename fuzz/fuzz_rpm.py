"""Any bytes are an RPM package whose entries stay in their tree, or our error."""

import contextlib

from cvmfsexec.errors import FormatError, IntegrityError
from cvmfsexec.format.package import parse_package, version_key
from cvmfsexec.format.rpm import MAGIC, parse_rpm


def target(data: bytes) -> None:
    """Raise only on a finding."""
    try:
        package = parse_rpm(data)
    except (FormatError, IntegrityError):
        return
    assert data.startswith(MAGIC)
    for entry in package.entries:
        assert not entry.path.startswith(b"/")
        assert b".." not in entry.path.split(b"/")
    with contextlib.suppress(FormatError):
        assert version_key(parse_package(data).version)
