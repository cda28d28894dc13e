"""What happens when a directory does not take an object: one warning, and a rest.

A full disk, a disk quota or a lost permission concerns the objects that follow, too.
So the directory is asked again only after a minute.
"""

import errno
import time
from collections.abc import Callable

from cvmfsexec import log
from cvmfsexec.errors import CacheError

REST_S = 60.0

OUT_OF_MEANS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""These are not about the directory; the process itself has come to its limits."""


class Refusals:
    """Whether a directory is worth asking; any thread may call.

    Args:
        name: What messages call it.
        clock: Seconds that do not jump.
    """

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._clock = clock
        self._rests_until_s = float("-inf")
        self._has_warned = False

    @property
    def are_recent(self) -> bool:
        """Whether it has refused something a moment ago, and is to be left alone."""
        return self._clock() < self._rests_until_s

    def note(self, error: OSError) -> None:
        """Take notice of one; tell the user the first time.

        Raises:
            CacheError: The fault is not the directory's: no descriptor is left.
        """
        if error.errno in OUT_OF_MEANS:
            raise CacheError(f"cannot write to the cache: {error.strerror}") from error
        self._rests_until_s = self._clock() + REST_S
        if not self._has_warned:
            self._has_warned = True
            log.warning(
                "%s: %s; what does not fit is read without being kept",
                self._name,
                error.strerror,
            )
