"""How well the cache serves the sessions that run: asked of each of their mounts."""

import json
import os
from functools import partial
from typing import NamedTuple

from cvmfsexec.errors import CvmfsError
from cvmfsexec.namespaces.join import ask_inside, list_sessions

PATIENCE_S = 5.0

_VALUE_BYTES_MAX = 64


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
                told.append(_parse(session.name, name, answer))
            except (CvmfsError, ValueError):
                silent.append(f"{session.name} ({name})")
    return told, silent


def _look(fqrn: str) -> bytes:
    """Return what the mount of a repository tells; called inside of the session."""
    mountpoint = f"/cvmfs/{fqrn}"
    values = [
        os.getxattr(mountpoint, name)[:_VALUE_BYTES_MAX].decode("ascii", "replace")
        for name in ("user.hitrate", "user.ndownload")
    ]
    return json.dumps(values).encode()


def _parse(session: str, fqrn: str, answer: bytes) -> HitRate:
    """Read an answer.

    Raises:
        ValueError: It makes no sense.
    """
    rate, downloads = json.loads(answer)
    percent = None if rate == "n/a" else float(rate)
    return HitRate(session, fqrn, percent, int(downloads))
