"""Local blacklists: certificates and revisions that a site does not want.

A line is a fingerprint as on a whitelist, or ``<fqrn N``: revisions of a repository
below N are refused. Everything else is a comment.

Source: docs/reference/client-behaviour.md, "Blacklist".
"""

import re
from typing import NamedTuple

from cvmfsexec.format.whitelist import Fingerprint, parse_fingerprint

_REVISION = re.compile(r"<([^\s<]+)[ \t]+0*([0-9]+)")
_DIGITS_MAX = 20  # of a revision; a number with more stays beyond every revision


class Blacklist(NamedTuple):
    """What one or several blacklist files say.

    Attributes:
        fingerprints: Certificates that are refused.
        minimum_revisions: Lowest revision that is still good, by repository.
    """

    fingerprints: frozenset[Fingerprint]
    minimum_revisions: dict[str, int]

    @classmethod
    def parse(cls, text: str) -> "Blacklist":
        """Read a blacklist file; any text is one."""
        lines = text.splitlines()
        fingerprints = frozenset(filter(None, map(parse_fingerprint, lines)))
        minimum_revisions: dict[str, int] = {}
        for fqrn, number in filter(None, map(_parse_revision, lines)):
            known = minimum_revisions.get(fqrn, 0)
            minimum_revisions[fqrn] = max(known, number)
        return cls(fingerprints, minimum_revisions)

    def merge(self, other: "Blacklist") -> "Blacklist":
        """Return a blacklist that refuses what either of the two refuses."""
        minimum_revisions = dict(self.minimum_revisions)
        for fqrn, number in other.minimum_revisions.items():
            minimum_revisions[fqrn] = max(self.minimum_revision(fqrn), number)
        return Blacklist(self.fingerprints | other.fingerprints, minimum_revisions)

    def minimum_revision(self, fqrn: str) -> int:
        """Return the lowest revision of a repository that is not refused."""
        return self.minimum_revisions.get(fqrn, 0)


EMPTY_BLACKLIST = Blacklist(frozenset(), {})


def _parse_revision(line: str) -> tuple[str, int] | None:
    match = _REVISION.match(line)
    return None if match is None else (match[1], int(match[2][:_DIGITS_MAX]))
