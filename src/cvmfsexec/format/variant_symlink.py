"""Variant symbolic links: targets that depend on the client's configuration.

``$(NAME)`` and ``$(NAME:-default)`` are replaced. The first ``)`` ends an expression,
whatever stands before it, and nothing is expanded twice.

Source: docs/reference/repository-format.md, "Symlinks, devices, ownership, times".
"""

from collections.abc import Mapping

_START = b"$("
_END = b")"
_DEFAULT = b":-"


def expand(target: bytes, variables: Mapping[str, str]) -> bytes:
    """Return a link's target with every expression replaced.

    Args:
        target: As stored in the catalog.
        variables: Values by name. A name that is not in it expands to its default, or
            to nothing; one that is empty expands to nothing.
    """
    parts: list[bytes] = []
    position = 0
    while (start := target.find(_START, position)) >= 0:
        end = target.find(_END, start)
        if end < 0:
            break
        expression = target[start + len(_START) : end]
        parts += (target[position:start], _value_of(expression, variables))
        position = end + 1
    return b"".join((*parts, target[position:]))


def _value_of(expression: bytes, variables: Mapping[str, str]) -> bytes:
    name, _, default = expression.partition(_DEFAULT)
    value = variables.get(name.decode("utf-8", "surrogateescape"))
    return default if value is None else value.encode("utf-8", "surrogateescape")
