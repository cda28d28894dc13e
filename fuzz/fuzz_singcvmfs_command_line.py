"""Any words of singcvmfs are taken apart without loss, or are a UsageError."""

import contextlib

from cvmfsexec.apptainer.command_line import UsageError
from cvmfsexec.apptainer.command_line import parse as parse_line
from cvmfsexec.apptainer.program import version_of
from cvmfsexec.cli.fusemount_cmd import parse as parse_words
from cvmfsexec.errors import ConfigurationError


def target(data: bytes) -> None:
    """Raise only on a finding."""
    words = data.decode("utf-8", "surrogateescape").split("\n")
    with contextlib.suppress(UsageError):
        assert parse_line(tuple(words)).words() == tuple(words)
    with contextlib.suppress(UsageError):
        line = parse_line(tuple(words), "image")
        assert set(words) <= set(line.words())
    with contextlib.suppress(ConfigurationError):
        parse_words(words)
    assert len(version_of(data)) in {0, 2}
