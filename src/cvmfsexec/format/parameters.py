"""Parameters: what the configuration of one repository says, value by value.

A parameter is a name, a text and the file that had the last word. This module knows
how the texts are read (templates, booleans, numbers); which files there are and how
they become texts is the business of ``cvmfsexec.configuration``.

Source: docs/reference/client-behaviour.md, "Configuration syntax".
"""

import re
from typing import TYPE_CHECKING, NamedTuple

from cvmfsexec.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_ON = frozenset({"yes", "on", "1", "true"})
_TEMPLATE = re.compile(r"@([^@]*)@")
_INTEGER = re.compile(r"[+-]?[0-9]+", re.ASCII)
_DIGITS_MAX = 18  # fits in 64 bits
_NEEDS_NO_QUOTES = re.compile(r"[A-Za-z0-9/:._,-]*")


class Parameter(NamedTuple):
    """One value and where it comes from.

    Attributes:
        value: The text, templates already replaced.
        source: Path of the file that set it, or a word for what is built in.
    """

    value: str
    source: str


class Parameters:
    """The effective parameters of one repository; does not change.

    An empty value means "not set" to every typed reading: files reset a parameter by
    assigning nothing to it.

    Attributes:
        fqrn: The repository they are for.
    """

    def __init__(self, fqrn: str, values: "Mapping[str, Parameter]") -> None:
        """Take over ``values`` and replace the templates in them."""
        self.fqrn = fqrn
        self._values = {
            name: Parameter(expand_templates(value, fqrn), source)
            for name, (value, source) in values.items()
        }

    @classmethod
    def from_values(
        cls, fqrn: str, values: "Mapping[str, str]", source: str = "given"
    ) -> "Parameters":
        """Make parameters of plain texts that share one source."""
        return cls(fqrn, {k: Parameter(v, source) for k, v in values.items()})

    def get(self, name: str, default: str = "") -> str:
        """Return the text of a parameter, or ``default`` if unset or empty."""
        parameter = self._values.get(name)
        return parameter.value if parameter and parameter.value else default

    def boolean(self, name: str, default: bool) -> bool:  # noqa: FBT001 -- a value
        """Return whether a parameter is on: ``yes``, ``on``, ``1``, ``true``.

        Every other text but the empty one is off.
        """
        text = self.get(name)
        return is_on(text) if text else default

    def integer(
        self,
        name: str,
        default: int,
        *,
        minimum: int | None = None,
        maximum: int | None = None,
    ) -> int:
        """Return a parameter as a decimal number.

        Raises:
            ConfigurationError: Not a number, or outside ``minimum`` … ``maximum``.
        """
        text = self.get(name)
        if not text:
            return default
        if _INTEGER.fullmatch(text) is None:
            raise self.error(name, "is not a whole number")
        if len(text.lstrip("+-")) > _DIGITS_MAX:
            raise self.error(name, f"has more than {_DIGITS_MAX} digits")
        number = int(text)
        if minimum is not None and number < minimum:
            raise self.error(name, f"is less than {minimum}")
        if maximum is not None and number > maximum:
            raise self.error(name, f"is more than {maximum}")
        return number

    def is_set(self, name: str) -> bool:
        """Whether some file assigned the parameter, if only nothing."""
        return name in self._values

    def source(self, name: str) -> str:
        """Return the file that set a parameter, or an empty text."""
        parameter = self._values.get(name)
        return parameter.source if parameter else ""

    def items(self) -> "Iterator[tuple[str, Parameter]]":
        """Yield all parameters by name, in alphabetical order."""
        for name in sorted(self._values):
            yield name, self._values[name]

    def variables(self) -> dict[str, str]:
        """Return all parameters as texts by name, as variant symlinks see them."""
        return {name: value for name, (value, _) in self._values.items()}

    def error(self, name: str, complaint: str, *, hint: str = "") -> ConfigurationError:
        """Return an error that names a parameter, its value and its file."""
        value, source = self._values.get(name, Parameter("", "no file"))
        return ConfigurationError(
            f"{name}={quoted(value[:200])} (from {source}) {complaint}", hint=hint
        )

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def __getitem__(self, name: str) -> Parameter:
        return self._values[name]

    def __iter__(self) -> "Iterator[str]":
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


def is_on(text: str) -> bool:
    """Whether a text means "on"; upper and lower case are the same."""
    return text.lower() in _ON


def expand_templates(value: str, fqrn: str) -> str:
    """Replace ``@fqrn@`` and ``@org@`` (its first label); other ``@x@`` stay.

    Read from the left, as the original does: in ``a@b@fqrn@`` the template is
    ``@b@``, so that nothing is replaced.
    """
    if "@" not in value:
        return value
    known = {"fqrn": fqrn, "org": fqrn.partition(".")[0]}
    return _TEMPLATE.sub(lambda match: known.get(match[1], match[0]), value)


def quoted(value: str) -> str:
    """Return a value so that a shell reads it back, quoted only if need be."""
    if _NEEDS_NO_QUOTES.fullmatch(value):
        return value
    return "'" + value.replace("'", "'\\''") + "'"


def format_parameter(name: str, parameter: Parameter) -> str:
    """Return the line of a configuration dump, without the line end."""
    return f"{name}={quoted(parameter.value)}    # from {parameter.source}"
