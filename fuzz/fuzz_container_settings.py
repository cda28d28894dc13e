"""Any bytes are settings of a container program, or no settings at all."""

from cvmfsexec.apptainer.installation import read_settings
from cvmfsexec.apptainer.program import version_of


def target(data: bytes) -> None:
    """Raise only on a finding."""
    for separator in ("=", " ="):
        for name, value in read_settings(data, separator).items():
            assert "\n" not in name + value
            assert separator not in name
    assert len(version_of(data)) in (0, 2)
