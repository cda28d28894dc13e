"""How well the cache serves the sessions that run: asked of each of their mounts."""

import os
import re
from functools import partial
from typing import NamedTuple

from cvmfsexec.errors import CvmfsError, FormatError
from cvmfsexec.namespaces.join import ask_inside, list_sessions

PATIENCE_S = 5.0

_ANSWER = re.compile(rb"(n/a|[0-9]{1,3}\.[0-9]{1,3}) ([0-9]{1,18})")


class HitRate(NamedTuple):
    """What one mount tells.

    Attributes:
        session: Its session.
        repository: What is mounted.
        percent: Of all objects that were wanted, those that were in the cache; ``None``
            if nothing was wanted yet.
        downloads: How often a server was asked.
    """

    session: str
    repository: str
    percent: float | None
    downloads: int


def hit_rates() -> tuple[list[HitRate], list[str]]:
    """Return what all sessions of this user tell, and the names of those that do not.

    Raises:
        NamespaceError: Sessions cannot be listed.
    """
    told: list[HitRate] = []
    silent: list[str] = []
    for session in list_sessions():
        names = session.card.repositories.split() if session.card else []
        for name in names:
            try:
                question = partial(_look, name)
                answer = ask_inside(session.name, question, PATIENCE_S)
                told.append(parse_answer(session.name, name, answer))
            except CvmfsError:
                silent.append(f"{session.name} ({name})")
    return told, silent


def _look(fqrn: str) -> bytes:
    """Return what the mount of a repository tells; called inside of the session."""
    mountpoint = f"/cvmfs/{fqrn}"
    names = ("user.hitrate", "user.ndownload")
    return b" ".join(os.getxattr(mountpoint, name) for name in names)


def parse_answer(session: str, fqrn: str, answer: bytes) -> HitRate:
    """Read what a mount tells: a percentage or ``n/a``, and a number.

    Raises:
        FormatError: It is something else.
    """
    match = _ANSWER.fullmatch(answer)
    if match is None:
        raise FormatError(f"not a hit rate: {answer[:80]!r}")
    percent = None if match[1] == b"n/a" else float(match[1])
    return HitRate(session, fqrn, percent, int(match[2]))
