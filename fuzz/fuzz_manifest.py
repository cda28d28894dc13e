"""Any bytes are a manifest that survives being written, or a FormatError."""

from cvmfsexec.errors import FormatError
from cvmfsexec.format.manifest import Manifest


def target(data: bytes) -> None:
    """Raise only on a finding."""
    try:
        manifest = Manifest.parse(data)
    except FormatError:
        return
    assert Manifest.parse(manifest.serialize()) == manifest
