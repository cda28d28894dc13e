"""Any words are an order to makedist, with a known word or a file, or a UsageError."""

import contextlib

from cvmfsexec.cli.makedist_cmd import UsageError, parse_words
from cvmfsexec.distribution.machine_types import machine_type_of_host
from cvmfsexec.distribution.sources import CONFIGURATIONS


def target(data: bytes) -> None:
    """Raise only on a finding."""
    text = data.decode("utf-8", "surrogateescape")
    with contextlib.suppress(UsageError):
        words = parse_words(text.split("\n"))
        is_order = words.configuration in CONFIGURATIONS or bool(words.output)
        assert words.wants_help or is_order
        assert not (words.configuration and words.output)
    assert str(machine_type_of_host(text, "x86_64")).endswith("-x86_64")
