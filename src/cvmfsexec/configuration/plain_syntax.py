"""The part of the shell's language that needs no shell, as a tree.

Most configuration files are lists of ``NAME=value``, and most of the others add an
``if`` and source one file. Starting a shell costs more than a millisecond, reading
such a text a tenth of that. The grammar, one statement a line::

    statement = [ "export" | "readonly" ] NAME "=" word
              | "if" condition ";" "then" | "elif" condition ";" "then" | "else" | "fi"
              | "." word
              | "return"
    condition = test { ("&&" | "||") test }
    test      = "[" word ("=" | "!=") word "]" | "[" ("-n" | "-z") word "]"
    word      = { bare | 'literal' | "literal and references" | reference }
    reference = "$" NAME | "${" NAME [ ":-" default ] "}"

with blanks, empty lines and comments as in the shell. It is deliberately narrow: a
construct is in it only where every POSIX shell gives the same result. So only names
that begin with ``CVMFS_`` occur (no shell gives those a meaning of its own, as it does
to IFS or RANDOM), and only printable ASCII. Whatever does not fit raises ``NotPlain``,
and the file goes to ``/bin/sh`` as a whole.
"""

import re
from typing import NamedTuple


class NotPlain(Exception):  # noqa: N818 -- an answer ("ask the shell"), not an error
    """A shell is needed to know what this file says."""


class Reference(NamedTuple):
    """The value of a variable, or ``default`` if that is unset or empty."""

    name: str
    default: str
    is_quoted: bool


Word = tuple[str | Reference, ...]
"""What a word is put together from, in order; a ``str`` stands for itself."""


class Assignment(NamedTuple):
    """``NAME=word``, with ``keyword`` ``export`` or ``readonly`` or empty."""

    name: str
    word: Word
    keyword: str


class Test(NamedTuple):
    """One ``[ … ]``: ``operator`` is ``=``, ``!=``, ``-n`` or ``-z``."""

    operator: str
    operands: tuple[Word, ...]


class Condition(NamedTuple):
    """Tests joined by ``joints`` (``&&`` or ``||``), read from the left."""

    tests: tuple[Test, ...]
    joints: tuple[str, ...]


class Branch(NamedTuple):
    """Statements, and when they run; ``None`` is ``else``."""

    condition: "Condition | None"
    block: "Block"


class Conditional(NamedTuple):
    """``if`` … ``fi``: the first branch whose condition holds."""

    branches: tuple[Branch, ...]


class Source(NamedTuple):
    """``. word``."""

    word: Word


class Return(NamedTuple):
    """``return``: the rest of the file is skipped."""


Statement = Assignment | Conditional | Source | Return
Block = tuple[Statement, ...]

_VARIABLE = r"CVMFS_[A-Za-z0-9_]*|HOME"
_REFERENCE = (
    rf"\$(?:(?P<name>{_VARIABLE})(?![A-Za-z0-9_])"
    rf"|\{{(?P<braced>{_VARIABLE})(?::-(?P<default>[A-Za-z0-9_./:@%+,=-]*))?\}})"
)
_PIECE = re.compile(
    r"(?P<bare>[A-Za-z0-9_./:@%+,=-]+)"
    r"|'(?P<single>[\t\x20-\x26\x28-\x7e]*)'"
    r'|"(?P<double>[\t\x20\x21\x23-\x5b\x5d-\x5f\x61-\x7e]*)"'
    rf"|{_REFERENCE}"
)
_QUOTED_PIECE = re.compile(rf"(?P<literal>[^$]+)|{_REFERENCE}")
_ASSIGNMENT = re.compile(
    r"(?:(?P<keyword>export|readonly)[ \t]+)?(?P<name>CVMFS_[A-Za-z0-9_]*)="
)
_KEYWORD = re.compile(r"(if|elif|else|fi|return|\.)(?:[ \t]+|$)")
_END = re.compile(r"(?:[ \t]+(?:#.*)?)?\Z", re.DOTALL)
_THEN = re.compile(r"[ \t]*;[ \t]*then(?![^ \t])")
_JOINT = re.compile(r"[ \t]*(&&|\|\|)[ \t]*")
_OPEN = re.compile(r"\[[ \t]+")
_CLOSE = re.compile(r"[ \t]+\](?![^ \t;&|])")
_UNARY = re.compile(r"(-[nz])[ \t]+")
_BINARY = re.compile(r"[ \t]+(!?=)[ \t]+")

_BLOCK_ENDS = frozenset({"elif", "else", "fi"})
_DEPTH_MAX = 16  # far more than people nest, far less than Python's own limit


def parse(text: str) -> Block:
    """Return the statements of a file.

    Raises:
        NotPlain: A line is not in the grammar above.
    """
    parser = _Parser(text)
    block = parser.block(depth=0)
    if parser.line is not None:  # elif, else or fi without if
        raise NotPlain
    return block


class _Line:
    """One line that says something, and how far it was read."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        keyword = self.take(_KEYWORD)
        self.keyword = keyword[1] if keyword is not None else ""

    def take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        match = pattern.match(self._text, self._at)
        if match is not None:
            self._at = match.end()
        return match

    def need(self, pattern: re.Pattern[str]) -> re.Match[str]:
        match = self.take(pattern)
        if match is None:
            raise NotPlain
        return match

    def word(self) -> Word:
        """Read pieces up to the first thing that is none; may be empty."""
        pieces: list[str | Reference] = []
        while (match := self.take(_PIECE)) is not None:
            bare, literal, quoted = match["bare"], match["single"], match["double"]
            if quoted is not None:
                pieces.extend(_quoted_pieces(quoted))
            elif bare is None and literal is None:
                pieces.append(_reference(match, is_quoted=False))
            else:
                pieces.append(bare or literal)
        return tuple(pieces)

    def argument(self) -> Word:
        """Read a word that must be there, if only as ``""``."""
        before = self._at
        word = self.word()
        if self._at == before:
            raise NotPlain
        return word


class _Parser:
    """Recursive descent, one line ahead.

    Attributes:
        line: The line that comes next; ``None`` at the end.
    """

    def __init__(self, text: str) -> None:
        self._lines = iter(text.split("\n"))
        self.line: _Line | None = None
        self._advance()

    def _advance(self) -> None:
        self.line = None
        for text in self._lines:
            stripped = text.strip(" \t")
            if stripped and not stripped.startswith("#"):
                self.line = _Line(stripped)
                return

    def block(self, depth: int) -> Block:
        """Read statements up to the end or to what ends a branch."""
        if depth > _DEPTH_MAX:
            raise NotPlain
        statements: list[Statement] = []
        while self.line is not None and self.line.keyword not in _BLOCK_ENDS:
            if self.line.keyword == "if":
                statements.append(self._conditional(depth))
            else:
                statements.append(_simple_statement(self.line))
                self._advance()
        return tuple(statements)

    def _conditional(self, depth: int) -> Conditional:
        branches: list[Branch] = []
        while (line := self.line) is not None and line.keyword in ("if", "elif"):
            condition = _condition(line)
            line.need(_THEN)
            branches.append(self._branch(line, condition, depth))
        if (line := self.line) is not None and line.keyword == "else":
            branches.append(self._branch(line, None, depth))
        if (line := self.line) is None or line.keyword != "fi":
            raise NotPlain
        line.need(_END)
        self._advance()
        return Conditional(tuple(branches))

    def _branch(self, line: _Line, condition: Condition | None, depth: int) -> Branch:
        line.need(_END)
        self._advance()
        block = self.block(depth + 1)
        if not block:  # a syntax error to every shell
            raise NotPlain
        return Branch(condition, block)


def _simple_statement(line: _Line) -> Statement:
    statement: Statement
    if line.keyword == ".":
        statement = Source(line.argument())
    elif line.keyword == "return":
        statement = Return()
    else:
        match = line.need(_ASSIGNMENT)
        statement = Assignment(match["name"], line.word(), match["keyword"] or "")
    line.need(_END)
    return statement


def _condition(line: _Line) -> Condition:
    tests = [_test(line)]
    joints = []
    while (match := line.take(_JOINT)) is not None:
        joints.append(match[1])
        tests.append(_test(line))
    return Condition(tuple(tests), tuple(joints))


def _test(line: _Line) -> Test:
    line.need(_OPEN)
    if (unary := line.take(_UNARY)) is not None:
        test = Test(unary[1], (line.argument(),))
    else:
        left = line.argument()
        operator = line.need(_BINARY)[1]
        test = Test(operator, (left, line.argument()))
    line.need(_CLOSE)
    return test


def _quoted_pieces(text: str) -> list[str | Reference]:
    pieces: list[str | Reference] = []
    at = 0
    while at < len(text):
        match = _QUOTED_PIECE.match(text, at)
        if match is None:
            raise NotPlain
        at = match.end()
        literal = match["literal"]
        if literal is None:
            pieces.append(_reference(match, is_quoted=True))
        else:
            pieces.append(literal)
    return pieces


def _reference(match: re.Match[str], *, is_quoted: bool) -> Reference:
    return Reference(
        match["name"] or match["braced"], match["default"] or "", is_quoted
    )
