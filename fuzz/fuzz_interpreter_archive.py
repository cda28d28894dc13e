"""Any bytes are an archive of Python whose files stay in it, or a FormatError."""

from cvmfsexec.distribution.relocatable import parse_interpreter_archive
from cvmfsexec.errors import ConfigurationError, FormatError


def target(data: bytes) -> None:
    """Raise only on a finding."""
    try:
        found = parse_interpreter_archive(data)
    except (FormatError, ConfigurationError):
        return
    assert all(".." not in path.split("/") for path in found.modules)
    assert all("/" not in name for name in found.libraries)
