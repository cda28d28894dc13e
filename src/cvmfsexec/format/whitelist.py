"""The whitelist, ``.cvmfswhitelist``: which certificates may sign manifests.

Three fixed lines (created, expiry, repository), options, then one fingerprint a line.
A line there that is no fingerprint is ignored, as the original does; but a line that
asks for a check must not be, so options are kept for ``trust.chain`` to refuse.

Source: docs/reference/repository-format.md, "Whitelist".
"""

import re
from typing import NamedTuple

from cvmfsexec.errors import FormatError, MalformedWhitelistError
from cvmfsexec.format.digest import ContentHash

WHITELIST_BYTES_MAX = 256 * 1024  # real ones have 500 bytes

Fingerprint = ContentHash
"""Hash over the DER form of a whole certificate."""

_HEAD = re.compile(r"([0-9]{14})\nE([0-9]{14})\nN([!-~]+)(?:\n(.*))?", re.DOTALL)
_OPTION = re.compile(r"[VW][a-z0-9]+")  # no fingerprint begins like this
_HOUR_DIGITS = 10  # of YYYYMMDDhhmmss


class Whitelist(NamedTuple):
    """The lines of a whitelist.

    Attributes:
        created_at: 14 digits ``YYYYMMDDhhmmss``, UTC; nobody checks it.
        expires_at: The same form.
        fqrn: The repository that this whitelist speaks for.
        fingerprints: Certificates that may sign, in the order of the lines.
        options: Further checks asked for, e.g. ``Vpkcs7``, ``Wcachain``.
    """

    created_at: str
    expires_at: str
    fqrn: str
    fingerprints: tuple[Fingerprint, ...]
    options: tuple[str, ...] = ()

    @classmethod
    def parse(cls, letter: bytes) -> "Whitelist":
        """Read the text of a whitelist, without separator and signature.

        Raises:
            MalformedWhitelistError: Empty, or one of the first three lines is wrong.
        """
        head = _HEAD.fullmatch(letter.decode("latin-1"))
        if head is None:
            raise MalformedWhitelistError(
                "the whitelist does not begin with creation time, expiry and name"
                if letter
                else "the whitelist is empty"
            )
        lines = (head[4] or "").split("\n")
        return cls(
            created_at=head[1],
            expires_at=head[2],
            fqrn=head[3],
            fingerprints=tuple(filter(None, map(parse_fingerprint, lines))),
            options=tuple(line for line in lines if _OPTION.fullmatch(line)),
        )

    def serialize(self) -> bytes:
        """Return the text, without the separator."""
        lines = [self.created_at, f"E{self.expires_at}", f"N{self.fqrn}"]
        lines += self.options
        lines += map(format_fingerprint, self.fingerprints)
        return "".join(f"{line}\n" for line in lines).encode()

    def is_expired(self, now_s: float) -> bool:
        """Whether the expiry's hour has begun; minutes and seconds do not count."""
        return format_time(now_s)[:_HOUR_DIGITS] >= self.expires_at[:_HOUR_DIGITS]


def format_time(now_s: float) -> str:
    """Write a Unix time as whitelists do: ``YYYYMMDDhhmmss``, UTC."""
    import datetime as dt

    moment = dt.datetime.fromtimestamp(now_s, dt.UTC)
    return f"{moment:%Y%m%d%H%M%S}"


def parse_fingerprint(text: str) -> Fingerprint | None:
    """Read one line; ``None`` if it is no fingerprint.

    Colons are dropped, letters may have either case, and a blank, tab or ``#`` ends
    the fingerprint and begins a comment.
    """
    bare = re.split("[ \t#]", text, maxsplit=1)[0].replace(":", "").lower()
    try:
        return ContentHash.parse(bare)
    except FormatError:
        return None


def format_fingerprint(fingerprint: Fingerprint) -> str:
    """Write a fingerprint as the original prints it, e.g. ``3C:49:…:A1-SHAKE128``."""
    return (fingerprint.digest.hex(":") + fingerprint.algorithm.suffix).upper()
