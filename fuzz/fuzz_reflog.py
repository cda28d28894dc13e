"""Any bytes are a reflog, or refused."""

import tempfile

from cvmfsexec.errors import PublishError
from cvmfsexec.publish.reflog import read_reflog


def target(data: bytes) -> None:
    """Raise only on a finding."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        try:
            references = read_reflog(file.name)
        except PublishError:
            return
    for reference in references:
        assert type(reference.timestamp_s) is int
