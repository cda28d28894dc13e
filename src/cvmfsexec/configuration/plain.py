"""Evaluate a configuration file without a shell, where that gives the same result.

The grammar is in ``plain_syntax``; here the tree is run. A value can also spoil it: the
original asks the shell with an unquoted ``echo $NAME``, which expands patterns and, in
some shells, backslashes. Then, too, the answer is "ask the shell".

That both ways agree is a property test over generated files and real shells.
"""

import os
import re
from typing import TYPE_CHECKING

from cvmfsexec.configuration import plain_syntax
from cvmfsexec.configuration.assignments import assigned_names
from cvmfsexec.configuration.files import ConfigurationFile, read_text
from cvmfsexec.configuration.plain_syntax import NotPlain

if TYPE_CHECKING:
    from collections.abc import Mapping

_BLANKS = re.compile(r"[ \t\n]+")
_ECHOED_AS_IS = re.compile(r"(?!-)[\x20-\x29\x2b-\x3e\x40-\x5a\x5d-\x7e]*")
_SINGLE_FIELD = re.compile(r"[A-Za-z0-9_./:@%+,=-]+")
_OPERAND = re.compile(r"(?![-!()])[\t\x20-\x7e]*")
_SOURCE_DEPTH_MAX = 8


def evaluate_plainly(
    text: str, directory: str, variables: "Mapping[str, str]"
) -> dict[str, str] | None:
    """Return the value of every name that a file assigns; ``None``: ask the shell.

    Args:
        text: The file.
        directory: Where it lies; relative ``.`` start there.
        variables: The environment that a shell would get.
    """
    interpreter = _Interpreter(directory, variables)
    try:
        interpreter.run(plain_syntax.parse(text))
        return {name: interpreter.echo(name) for name in assigned_names(text)}
    except NotPlain:
        return None


class _Interpreter:
    def __init__(self, directory: str, variables: "Mapping[str, str]") -> None:
        self._directory = directory
        self._variables = dict(variables)
        self._readonly: set[str] = set()
        self._depth = 0

    def echo(self, name: str) -> str:
        """Return what ``echo $NAME`` prints: runs of blanks become one."""
        value = _BLANKS.sub(" ", self._variables.get(name, "")).strip(" ")
        if _ECHOED_AS_IS.fullmatch(value) is None:
            raise NotPlain
        return value

    def run(self, block: plain_syntax.Block) -> bool:
        """Run statements; whether a ``return`` ended them."""
        for statement in block:
            if isinstance(statement, plain_syntax.Assignment):
                self._assign(statement)
            elif isinstance(statement, plain_syntax.Conditional):
                if self._choose(statement):
                    return True
            elif isinstance(statement, plain_syntax.Source):
                self._source(statement)
            else:
                return True
        return False

    def _assign(self, statement: plain_syntax.Assignment) -> None:
        name, word, keyword = statement
        if name in self._readonly:
            raise NotPlain  # shells differ in how they fail
        self._variables[name] = self._value(word, is_argument=bool(keyword))
        if keyword == "readonly":
            self._readonly.add(name)

    def _choose(self, statement: plain_syntax.Conditional) -> bool:
        for condition, block in statement.branches:
            if condition is None or self._holds(condition):
                return self.run(block)
        return False

    def _holds(self, condition: plain_syntax.Condition) -> bool:
        holds = self._passes(condition.tests[0])
        for joint, test in zip(condition.joints, condition.tests[1:], strict=True):
            if holds == (joint == "&&"):
                holds = self._passes(test)
        return holds

    def _passes(self, test: plain_syntax.Test) -> bool:
        operands = [self._value(word, is_argument=True) for word in test.operands]
        for operand in operands:
            if _OPERAND.fullmatch(operand) is None:
                raise NotPlain  # looks like an operator: tests differ
        if test.operator == "-n":
            return operands[0] != ""
        if test.operator == "-z":
            return operands[0] == ""
        return (operands[0] == operands[1]) == (test.operator == "=")

    def _source(self, statement: plain_syntax.Source) -> None:
        path = self._value(statement.word, is_argument=True)
        if "/" not in path or self._depth == _SOURCE_DEPTH_MAX:
            raise NotPlain
        file = ConfigurationFile(os.path.join(self._directory, path), path)
        text = read_text(file)
        if text is None:
            raise NotPlain
        self._depth += 1
        self.run(plain_syntax.parse(text))
        self._depth -= 1

    def _value(self, word: plain_syntax.Word, *, is_argument: bool) -> str:
        """Put a word together.

        Args:
            word: The word.
            is_argument: Whether the shell would split what unquoted references give,
                as it does everywhere but in a bare assignment.
        """
        parts = []
        for piece in word:
            if isinstance(piece, str):
                parts.append(piece)
                continue
            if piece.name == "HOME" and piece.name not in self._variables:
                raise NotPlain  # some shells then look it up
            value = self._variables.get(piece.name, "") or piece.default
            is_split = is_argument and not piece.is_quoted
            if is_split and _SINGLE_FIELD.fullmatch(value) is None:
                raise NotPlain
            parts.append(value)
        return "".join(parts)
