"""Any bytes are a dirtab that can be asked about any path, or refused."""

from cvmfsexec.errors import PublishError
from cvmfsexec.publish.nesting import Dirtab


def target(data: bytes) -> None:
    """Raise only on a finding."""
    try:
        dirtab = Dirtab.parse(data)
    except PublishError:
        return
    for path in (b"/software", b"/software/1.0/x.git", data[:200]):
        assert dirtab.matches(path) in (True, False)
