"""Evaluate a configuration file without a shell, where that gives the same result.

Most files are lists of ``NAME=value``; most of the others add an ``if`` and source one
file. Starting a shell for one takes more than a millisecond, this module a tenth of
that. What it understands, one statement a line::

    statement = [ "export" | "readonly" ] NAME "=" word
              | "if" condition | "elif" condition | "else" | "fi"
              | "." word
              | "return"
    condition = test { ("&&" | "||") test } ";" "then"
    test      = "[" word ("=" | "!=") word "]" | "[" ("-n" | "-z") word "]"

with blanks, empty lines and comments as in a shell; ``plain_words`` says what a word
is. It is narrow on purpose: a thing is in it only where every POSIX shell gives the
same result. What does not fit, in syntax or by the value that a variable has, is left
to ``/bin/sh``, and with it the whole file.

That both ways agree is a property test over generated files and real shells.
"""

import os
import re
from typing import TYPE_CHECKING

from cvmfsexec.configuration.assignments import assigned_names
from cvmfsexec.configuration.files import ConfigurationFile, read_text
from cvmfsexec.configuration.plain_words import NotPlain, expand, statements

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_ASSIGNMENT = re.compile(r"(CVMFS_\w*)=(.*)", re.ASCII)
_CHANGED_BY_ECHO = re.compile(r"[^\x20-\x7e]|[*?[\]\\]|\A-")
_OPERATORS = ("-", "!", "=", "(", ")")

_BRANCH_ENDS = ("elif", "else", "fi")
_DEPTH_MAX = 16  # far more than people nest, far less than Python's own limit


def evaluate_plainly(
    text: str, directory: str, variables: "Mapping[str, str]"
) -> dict[str, str] | None:
    """Return the value of every name that a file assigns; ``None``: ask the shell.

    Args:
        text: The file.
        directory: Where it lies; relative ``.`` start there.
        variables: The environment that a shell would get.
    """
    state = _State(directory, variables)
    try:
        _Script(text, state, depth=0).run()
        return {name: state.echo(name) for name in assigned_names(text)}
    except NotPlain:
        return None


class _State:
    """What a shell would know at some point of the file."""

    def __init__(self, directory: str, variables: "Mapping[str, str]") -> None:
        self.directory = directory
        self._variables = dict(variables)
        self._readonly: set[str] = set()

    def argument(self, word: str) -> str:
        """Return what a word becomes as the argument of a command."""
        return expand(word, self._variables, is_argument=True)

    def assign(self, word: str, keyword: str) -> None:
        """Run ``NAME=value``, perhaps as the argument of ``export``, ``readonly``."""
        match = _ASSIGNMENT.fullmatch(word)
        if match is None or match[1] in self._readonly:
            raise NotPlain  # assigning to what is readonly fails in different ways
        is_argument = bool(keyword)
        value = expand(match[2], self._variables, is_argument=is_argument)
        self._variables[match[1]] = value
        if keyword == "readonly":
            self._readonly.add(match[1])

    def passes(self, test: "Sequence[str]") -> bool:
        """Whether a test holds, given the words between its brackets."""
        unary = test[0] if len(test) == 2 else ""
        values = [self.argument(word) for word in (test[1:] if unary else test[::2])]
        if any(value.startswith(_OPERATORS) for value in values):
            raise NotPlain  # shells differ in what they take for an operator
        if unary:
            return (values[0] == "") == (unary == "-z")
        return (values[0] == values[1]) == (test[1] == "=")

    def echo(self, name: str) -> str:
        """Return what ``echo $NAME`` prints: runs of blanks become one."""
        value = self._variables.get(name, "").replace("\t", " ")
        printed = " ".join(field for field in value.split(" ") if field)
        if _CHANGED_BY_ECHO.search(printed):
            raise NotPlain  # a pattern, an escape, or an option of echo
        return printed


class _Script:
    """One file, run as it is read.

    Branches that are not taken are read as well: what would be a syntax error, or too
    much for us, is so there, too.
    """

    def __init__(self, text: str, state: _State, *, depth: int) -> None:
        self._state = state
        self._depth = depth  # of "." and of "if", together
        self._statements = statements(text)
        self._words: list[str] = []  # of the next statement; empty at the end
        self._is_over = False  # by "return"
        if depth > _DEPTH_MAX:
            raise NotPlain

    def run(self) -> None:
        """Run the file to its end."""
        self._advance()
        self._block(is_run=True)
        if self._words:  # elif, else or fi without if
            raise NotPlain

    def _advance(self) -> None:
        self._words = next(self._statements, [])

    def _block(self, *, is_run: bool) -> None:
        """Run or skip statements up to the end or to what ends a branch."""
        while self._words and self._words[0] not in _BRANCH_ENDS:
            if self._words[0] == "if":
                self._conditional(is_run=is_run)
            else:
                self._simple(self._words, is_run=is_run and not self._is_over)
                self._advance()

    def _simple(self, words: list[str], *, is_run: bool) -> None:
        keyword = words[0] if words[0] in (".", "return", "export", "readonly") else ""
        if len(words) != (1 if keyword in ("", "return") else 2):
            raise NotPlain
        if keyword not in (".", "return") and _ASSIGNMENT.match(words[-1]) is None:
            raise NotPlain
        if not is_run:
            return
        if keyword == "return":
            self._is_over = True
        elif keyword == ".":
            self._source(words[1])
        else:
            self._state.assign(words[-1], keyword)

    def _source(self, word: str) -> None:
        path = self._state.argument(word)
        if "/" not in path:
            raise NotPlain  # looked for in PATH
        file = ConfigurationFile(os.path.join(self._state.directory, path), path)
        text = read_text(file)
        if text is None:
            raise NotPlain
        _Script(text, self._state, depth=self._depth + 1).run()

    def _conditional(self, *, is_run: bool) -> None:
        is_open = is_run  # no branch was taken yet
        self._depth += 1
        if self._depth > _DEPTH_MAX:
            raise NotPlain
        while self._words and self._words[0] in ("if", "elif"):
            is_asked = is_open and not self._is_over
            holds = _condition(self._words[1:], self._state if is_asked else None)
            self._branch(is_run=holds)
            is_open = is_open and not holds
        if self._words == ["else"]:
            self._branch(is_run=is_open)
        if self._words != ["fi"]:
            raise NotPlain
        self._depth -= 1
        self._advance()

    def _branch(self, *, is_run: bool) -> None:
        self._advance()
        if not self._words or self._words[0] in _BRANCH_ENDS:
            raise NotPlain  # nothing between is a syntax error to every shell
        self._block(is_run=is_run)


def _condition(words: list[str], state: _State | None) -> bool:
    """Read what follows ``if``; whether it holds, which it never does without state."""
    holds, joint, rest = True, "&&", [*words, ""]
    while joint in ("&&", "||"):
        is_needed = holds == (joint == "&&")
        if rest[0] != "[" or "]" not in rest:
            raise NotPlain
        end = rest.index("]")
        test, joint, rest = rest[1:end], rest[end + 1], rest[end + 2 :]
        is_unary = len(test) == 2 and test[0] in ("-n", "-z")
        is_binary = len(test) == 3 and test[1] in ("=", "!=")
        if not (is_unary or is_binary):
            raise NotPlain
        if state is not None and is_needed:
            holds = state.passes(test)
    if joint != ";" or rest != ["then", ""]:
        raise NotPlain
    return state is not None and holds
