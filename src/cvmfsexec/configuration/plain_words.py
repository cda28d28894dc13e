"""Words of the shell's language, as far as every shell agrees about them.

::

    word      = { bare | 'literal' | "literal and references" | reference }
    reference = "$" NAME | "${" NAME [ ":-" default ] "}"

All names begin with ``CVMFS_``: no shell gives those a meaning of its own, as it does
to IFS or RANDOM; HOME may be referred to. All characters are printable ASCII.
"""

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_TOKEN = re.compile(
    r"""(?:[\w./:@%+,=-]|\$\{[\w./:@%+,=-]*\}|\$\w|'[^']*'|"[^"\\`]*")+"""
    r"""(?=[ \t;&|]|\Z)|;|&&|\|\||(?:\[|!=)(?=[ \t])|\](?=[ \t;&|]|\Z)""",
    re.ASCII,
)
_PIECE = re.compile(r"""'([^']*)'|"([^"]*)"|([^'"]+)""")
_REFERENCE = re.compile(
    r"\$(?:(CVMFS_\w*|HOME\b)|\{(CVMFS_\w*|HOME)(?::-([\w./:@%+,=;| -]*))?\})",
    re.ASCII,
)
_IS_SPLIT = re.compile(r"[^\w./:@%+,=-]|\A\Z", re.ASCII)


class NotPlain(Exception):  # noqa: N818 -- an answer, not an error
    """A shell is needed to know what this file says."""


def statements(text: str) -> "Iterator[list[str]]":
    """Yield the words of each line that has any, quotes and references still in them.

    ``;``, ``&&``, ``||``, ``[`` and ``]`` are words, too.

    Raises:
        NotPlain: A line is not made of such words.
    """
    for line in text.split("\n"):
        words = list(_words(line.strip(" \t")))
        if words:
            yield words


def expand(word: str, variables: "Mapping[str, str]", *, is_argument: bool) -> str:
    """Return what a word becomes: references replaced, quotes removed.

    Args:
        word: One that ``statements`` gave.
        variables: Values; a name without one has an empty value.
        is_argument: Whether the shell would split what unquoted references give, and
            expand patterns in it. It does, but for a bare assignment.

    Raises:
        NotPlain: The values make a difference between shells, or between one word and
            several.
    """

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name == "HOME" and name not in variables:
            raise NotPlain  # some shells then look it up
        return variables.get(name, "") or match[3] or ""

    if "$" not in word and "'" not in word and '"' not in word:
        return word
    parts = []
    for literal, quoted, bare in _PIECE.findall(word):
        part = _REFERENCE.sub(value, quoted or bare)
        if bare and is_argument and _IS_SPLIT.search(part):
            raise NotPlain
        parts.append(literal or part)
    return "".join(parts)


def _words(line: str) -> "Iterator[str]":
    position = 0
    while position < len(line) and line[position] != "#":
        match = _TOKEN.match(line, position)
        if match is None:
            raise NotPlain
        word = match[0]
        _check(word)
        yield word
        position = match.end()
        while line[position : position + 1] in (" ", "\t"):
            position += 1


def _check(word: str) -> None:
    """Refuse odd characters, and a ``$`` that begins nothing we know."""
    if not (word.isascii() and word.replace("\t", " ").isprintable()):
        raise NotPlain
    if "$" in word:
        for _, quoted, bare in _PIECE.findall(word):
            if "$" in _REFERENCE.sub("", quoted or bare):
                raise NotPlain
