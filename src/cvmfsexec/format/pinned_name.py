"""``REPOSITORY@REVISION``: a repository as it was, as one types it.

What stands after the ``@`` is the name of a tag, unless it looks like something else:

========================= ============================================================
``@v1.2``                 the tag of that name
``@2026-01-31``           the newest tag that was made by the end of that day (UTC)
``@2026-01-31T12:00Z``    the newest tag that was made by then; seconds may be added
``@5798f7f4…`` (a hash)   the revision with that root catalog, which nobody has to sign
========================= ============================================================

A pin is a parameter of the original client and its value: this is a way to type it,
and no fourth way to choose.

Source: docs/reference/client-behaviour.md, "Pinning"; docs/reference/cvmfsexec.md.
"""

import re
from typing import NamedTuple

from cvmfsexec.errors import ConfigurationError, FormatError
from cvmfsexec.format.digest import ContentHash

ROOT_HASH = "CVMFS_ROOT_HASH"
TAG = "CVMFS_REPOSITORY_TAG"
DATE = "CVMFS_REPOSITORY_DATE"

PIN_PARAMETERS = (ROOT_HASH, TAG, DATE)
"""The first that is set counts."""

TAG_CHARACTERS_MAX = 255

_TAG = re.compile(r"[A-Za-z0-9._/:-]+")
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_MOMENT = re.compile(r"(\d{4}-\d{2}-\d{2}T\d{2}:\d{2})(:\d{2})?Z", re.ASCII)
_HASH = re.compile(r"[0-9a-f]{40}(-.*)?")


class Pin(NamedTuple):
    """What keeps a repository at one revision.

    Attributes:
        parameter: One of ``PIN_PARAMETERS``.
        value: Its value, as the original client reads it.
    """

    parameter: str
    value: str


class PinnedName(NamedTuple):
    """A repository, and perhaps one of its revisions.

    Attributes:
        name: As it was typed, full or short; not checked.
        pin: The revision; ``None`` for the newest.
    """

    name: str
    pin: Pin | None


def parse_pinned_name(text: str) -> PinnedName:
    """Take apart what may be a name alone.

    Raises:
        ConfigurationError: No revision can be called so.
    """
    name, at, revision = text.partition("@")
    return PinnedName(name, parse_pin(revision) if at else None)


def parse_pin(text: str) -> Pin:
    """Read what stands after the ``@``.

    Raises:
        ConfigurationError: No revision can be called so.
    """
    if _HASH.fullmatch(text) is not None:
        try:
            return Pin(ROOT_HASH, str(ContentHash.parse(text)))
        except FormatError as error:
            raise _refusal(text) from error
    if _DAY.fullmatch(text) is not None:
        return Pin(DATE, _checked_date(f"{text}T23:59:59Z", text))
    moment = _MOMENT.fullmatch(text)
    if moment is not None:
        return Pin(DATE, _checked_date(f"{moment[1]}{moment[2] or ':00'}Z", text))
    if len(text) > TAG_CHARACTERS_MAX or _TAG.fullmatch(text) is None:
        raise _refusal(text)
    return Pin(TAG, text)


def parse_date(text: str) -> int | None:
    """Return UNIX seconds of ``YYYY-MM-DDThh:mm:ssZ``; ``None`` if it is none."""
    from datetime import datetime

    moment = _MOMENT.fullmatch(text)
    if moment is None or not moment[2]:
        return None
    try:
        return int(datetime.fromisoformat(text).timestamp())
    except ValueError:  # month 13, hour 25, …
        return None


def _checked_date(date: str, typed: str) -> str:
    if parse_date(date) is None:
        raise ConfigurationError(
            f"{typed} is not a date",
            hint="a date looks like 2026-01-31 or 2026-01-31T23:59:59Z",
        )
    return date


def _refusal(text: str) -> ConfigurationError:
    return ConfigurationError(
        f"{text[:80]!r} is not a revision",
        hint="write REPOSITORY@TAG, REPOSITORY@2026-01-31, or REPOSITORY@ROOT-HASH; "
        "'cvmfs tags' lists the tags",
    )
