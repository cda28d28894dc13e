"""The same small files through each kind of cache: filled, then read again."""

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench.trees import FQRN

WORK = "tar small files"

KINDS = {
    "one file each": "",
    "RAM": "CVMFS_CACHE_TYPE=ram\n",
    "packed": "CVMFS_CACHE_TYPE=packed\n",
    "alien": "CVMFS_ALIEN_CACHE={place}/alien\nCVMFS_QUOTA_LIMIT=-1\n",
}
"""Settings by what the table calls them."""


def cache_rows(
    place: Path,
    install: Callable[[Path, str], Any],
    timed: Callable[[str, Any], float],
) -> Iterator[dict[str, Any]]:
    """Yield a row of the table for each kind.

    Args:
        place: An empty directory.
        install: Makes an installation in a directory, with further settings.
        timed: Returns the seconds that a piece of work takes in a new session.
    """
    for number, (name, settings) in enumerate(KINDS.items()):
        top = place / str(number)
        top.mkdir(parents=True)
        client = install(top / "dist", settings.format(place=top))
        with _session_that_waits(client.wrapped(["sh", "-c", "echo ready; read line"])):
            cold, warm = timed(WORK, client), timed(WORK, client)
        yield {"work": f"cache: {name}", "cold": cold, "warm": warm}


@contextlib.contextmanager
def _session_that_waits(words: list[str]) -> Iterator[None]:
    """Keep a session open, without which a cache in memory would end."""
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as session:
        if session.stdout is None or session.stdout.readline() != "ready\n":
            raise RuntimeError(f"no session of {FQRN}")
        yield
        session.communicate("\n")
