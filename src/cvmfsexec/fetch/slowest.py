"""The objects for which somebody had to wait longest."""

import threading
from typing import NamedTuple

from cvmfsexec.format.digest import ContentHash

KEPT_MAX = 20


class Wait(NamedTuple):
    """How long an object took to come; ordered by that."""

    seconds: float
    size_bytes: int
    name: str


class SlowestObjects:
    """Keeps the longest waits; any thread may call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waits: list[Wait] = []  # the shortest of them first

    def add(self, content_hash: ContentHash, seconds: float, size_bytes: int) -> None:
        """Take note of a download."""
        if len(self._waits) >= KEPT_MAX and seconds <= self._waits[0].seconds:
            return
        with self._lock:
            self._waits.append(Wait(seconds, size_bytes, str(content_hash)))
            self._waits.sort()
            del self._waits[:-KEPT_MAX]

    def waits(self) -> list[Wait]:
        """Return the waits, the longest first."""
        with self._lock:
            return self._waits[::-1]
