"""The start on a cache that is full of objects, until the first file was read."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

from bench.trees import FQRN

WORK = "first file"
COMMAND = ["head", "-c", "1", f"/cvmfs/{FQRN}/small/d00/f00000"]

_LEDGER = "cvmfsexec.ledger"


def first_file_rows(
    place: Path,
    install: Callable[[Path, str], Any],
    seconds: Callable[[list[str]], float],
    object_count: int,
    rounds: int,
) -> Iterator[dict[str, Any]]:
    """Yield a row of the table for each state of a cache, all timed by turns.

    Args:
        place: An empty directory.
        install: Makes an installation in a directory, with further settings.
        seconds: Returns how long a command takes.
        object_count: How many objects a full cache has.
        rounds: How often each is timed.
    """
    place.mkdir()
    few, full = install(place / "few", ""), install(place / "full", "")
    for client in (few, full):
        seconds(client.wrapped(COMMAND))
    cache = place / f"full/var/lib/cvmfs/{FQRN}"
    make_objects(cache, object_count)
    times: dict[str, list[float]] = {"few": [], "full": [], "no ledger": []}
    for _ in range(rounds):
        times["few"].append(seconds(few.wrapped(COMMAND)))
        times["full"].append(seconds(full.wrapped(COMMAND)))
        (cache / _LEDGER).unlink()
        times["no ledger"].append(seconds(full.wrapped(COMMAND)))
    for state, found in times.items():
        yield {"work": f"{WORK}: {state}", "warm": median(found), "best": min(found)}


def make_objects(cache: Path, count: int) -> None:
    """Put empty files into a cache that are named as objects are."""
    for prefix in range(256):
        directory = cache / f"{prefix:02x}"
        directory.mkdir(mode=0o700, exist_ok=True)
        for _ in range(count // 256):
            (directory / os.urandom(19).hex()).touch(mode=0o600)
