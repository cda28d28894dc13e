"""How well a cache serves the mounts that use it now: each is asked."""

import re
from collections.abc import Iterable
from typing import NamedTuple

from cvmfsexec.cli.mounts import LiveMount, live_mounts
from cvmfsexec.errors import CvmfsError, FormatError

_PERCENT = re.compile(r"[0-9]{1,3}\.[0-9]{1,3}")
_NUMBER = re.compile(r"[0-9]{1,18}", re.ASCII)


class HitRate(NamedTuple):
    """What one mount tells.

    Attributes:
        repository: What is mounted.
        mountpoint: Where, as its session sees it.
        pid: Of its file server.
        percent: Of all objects that were wanted, those that were in the cache; ``None``
            if nothing was wanted yet.
        downloads: How often a server was asked.
    """

    repository: str
    mountpoint: str
    pid: int
    percent: float | None
    downloads: int


def hit_rates(
    names: Iterable[str], dist: str | None
) -> tuple[list[HitRate], list[str]]:
    """Return what the mounts of repositories tell, and why some do not.

    Raises:
        CvmfsError: A repository is not configured.
    """
    told: list[HitRate] = []
    troubles: list[str] = []
    for fqrn in names:
        alive, silent = live_mounts(fqrn, dist)
        troubles += silent
        for mount in alive:
            try:
                told.append(_hit_rate_of(mount))
            except CvmfsError as error:
                troubles.append(str(error))
    return told, troubles


def _hit_rate_of(mount: LiveMount) -> HitRate:
    percent = parse_percent(mount.attribute("hitrate"))
    downloads = mount.attribute("ndownload")
    if not _NUMBER.fullmatch(downloads):
        raise FormatError(f"not a number of downloads: {downloads[:80]!r}")
    return HitRate(mount.fqrn, mount.mountpoint, mount.pid, percent, int(downloads))


def parse_percent(text: str) -> float | None:
    """Read a hit rate; ``None`` for ``n/a``.

    Raises:
        FormatError: It is something else.
    """
    if text == "n/a":
        return None
    if not _PERCENT.fullmatch(text):
        raise FormatError(f"not a hit rate: {text[:80]!r}")
    return float(text)
