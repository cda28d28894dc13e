"""Which names a configuration file assigns, by its text alone.

The original runs a file in a shell and then asks for the values of the names it finds
in the *text* of that file. Hence a name that only a sourced file assigns is not picked
up, and one in a branch that was not taken is, with the value it has anyway. Real
files rely on both: ``CVMFS_HTTP_PROXY="$CVMFS_HTTP_PROXY"`` before a ``. common.conf``
is there to be noticed.

Source: docs/reference/client-behaviour.md, "Configuration syntax".
"""

import re

_NAME = re.compile(r"(?:(?:readonly|export|eval)[ \t]+)*([A-Za-z_][A-Za-z0-9_]*)")


def assigned_names(text: str) -> tuple[str, ...]:
    """Return the names in order of appearance, each once.

    A line counts if, comment cut and blanks trimmed, one word stands left of its first
    ``=``, not counting leading ``readonly``, ``export`` and ``eval``.
    """
    names: dict[str, None] = {}
    for line in text.split("\n"):
        left, equals, _ = line.partition("#")[0].partition("=")
        if equals:
            match = _NAME.fullmatch(left.strip(" \t"))
            if match is not None:
                names[match[1]] = None
    return tuple(names)
