"""Files that map user or group ids of a repository to local ones.

Lines of two numbers with one blank between, ``from to``; ``*`` as the first stands for
all ids not listed. Lines that begin with ``#`` and empty lines do not count.

Source: docs/reference/client-behaviour.md, "Ownership".
"""

import re
from typing import NamedTuple

from cvmfsexec.errors import ConfigurationError

_LINE = re.compile(r"(\*|[0-9]{1,10}) ([0-9]{1,10})")
_ID_MAX = 2**32 - 2  # the last one means "no id" to the kernel


class IdMap(NamedTuple):
    """Ids by ids.

    Attributes:
        ids: What is mapped one by one.
        default: What all others become; ``None``: they stay.
    """

    ids: dict[int, int]
    default: int | None = None

    @classmethod
    def parse(cls, text: str, name: str) -> "IdMap":
        """Read a map; a later line for the same id wins.

        Args:
            text: Content of the file.
            name: How messages call it.

        Raises:
            ConfigurationError: A line is none of the kinds above.
        """
        ids: dict[int, int] = {}
        default = None
        for number, line in enumerate(text.split("\n"), start=1):
            if not line or line.startswith("#"):
                continue
            match = _LINE.fullmatch(line)
            if match is None or any(
                int(n) > _ID_MAX for n in match.groups() if n != "*"
            ):
                raise ConfigurationError(
                    f"{name}, line {number}: {line[:80]!r} does not map an id",
                    hint="a line is two numbers with one blank between; the first may "
                    "be *",
                )
            if match[1] == "*":
                default = int(match[2])
            else:
                ids[int(match[1])] = int(match[2])
        return cls(ids, default)

    def local(self, identity: int) -> int:
        """Return the local id for one of the repository."""
        return self.ids.get(
            identity, identity if self.default is None else self.default
        )
