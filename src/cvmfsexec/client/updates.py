"""When to look for a newer revision of a mounted repository, and what came of it.

A look is due when the time to live of the root catalog is over, or that of the site if
it is shorter; sooner after one that failed. The look itself and the change to another
revision are the work of others (:mod:`.revision_change`).

Threads: any may ask and check. One check runs at a time; who comes meanwhile waits and
then makes one of his own. Until the first check is due nothing of this needs a thread:
see :meth:`Updates.wait_s` and :meth:`Updates.begin`.

Source: docs/reference/client-behaviour.md, "Updates".
"""

import threading
import time
from collections.abc import Callable
from enum import Enum
from typing import Protocol

from cvmfsexec import log
from cvmfsexec.errors import CvmfsError
from cvmfsexec.repository.revision import Revision

TTL_DEFAULT_S = 240
"""Where the root catalog says nothing; the original's."""

TTL_AFTER_FAILURE_S = 180

_TTL_MAX_S = 10 * 365 * 86400.0  # what a lock can wait for


class Outcome(Enum):
    """What came of a check, in the original's words."""

    UP_TO_DATE = "Catalog up to date"
    APPLIED = "New revision applied"
    FAILED = "Failed"
    NO_SPACE = "Failed (no space)"
    INTERNAL_ERROR = "internal error"


class RevisionChange(Protocol):
    """Looks for revisions and shows them."""

    def newer(self, shown: Revision) -> Revision | None:
        """Return what is to be shown instead; ``None`` if nothing is.

        Raises:
            CvmfsError: It cannot be found out.
        """

    def show(self, revision: Revision) -> Revision:
        """Show another revision from now on, and return it with its number.

        Raises:
            CvmfsError: It cannot be shown; the one before goes on being.
        """

    def ttl_s(self) -> int | None:
        """Return what the root catalog shown says; ``None`` if it does not."""


class Updates:
    """Keeps one mount at the newest revision.

    Attributes:
        max_ttl_s: Look at least this often; ``None``: as the repository says.
    """

    def __init__(
        self,
        revision: Revision,
        change: RevisionChange,
        *,
        is_automatic: bool = True,
        max_ttl_s: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin with a revision that is shown from now on.

        Args:
            revision: The one mounted.
            change: How to look for another one, and to show it.
            is_automatic: Whether to look unasked.
            max_ttl_s: Look at least this often; ``None``: as the repository says.
            clock: Seconds that never go back.
        """
        self.max_ttl_s = max_ttl_s
        self._change = change
        self._revision = revision
        self._is_automatic = is_automatic and not revision.is_fixed
        self._clock = clock
        self._lock = threading.Lock()
        self._bell = threading.Event()
        self._is_offline = revision.is_offline
        self._checked_s = clock()
        self._is_urgent = False
        self._is_closed = False
        self._thread: threading.Thread | None = None

    @property
    def revision(self) -> Revision:
        """What is shown."""
        return self._revision

    @property
    def is_offline(self) -> bool:
        """Whether the last look found no server that could be believed."""
        return self._is_offline

    def expires_in_s(self) -> float | None:
        """Return the time until the next look; ``None`` if there will be none."""
        if not self._is_automatic:
            return None
        if self._is_urgent:
            return 0.0
        return max(self._checked_s + self._ttl_s() - self._clock(), 0.0)

    def set_max_ttl(self, max_ttl_s: int | None) -> None:
        """Look at least this often from now on; ``None``: as the repository says."""
        self.max_ttl_s = max_ttl_s
        self.begin()
        self._bell.set()

    def hurry(self) -> None:
        """Look soon: a catalog of the revision shown is not to be had.

        It may have been collected as garbage, and a newer revision have another.
        """
        is_early = self._clock() < self._checked_s + TTL_AFTER_FAILURE_S
        if self._is_automatic and not is_early and not self._is_urgent:
            self._is_urgent = True
            self.begin()
            self._bell.set()

    def close(self) -> None:
        """Look no more; what is being looked for will not be missed."""
        self._is_closed = True
        self._bell.set()

    def check_now(self) -> Outcome:
        """Look for a newer revision and show it.

        Fixed mounts are up to date for ever. Nothing is raised.
        """
        if self._revision.is_fixed:
            return Outcome.UP_TO_DATE
        with self._lock:
            try:
                return self._check()
            except CvmfsError as error:
                return self._fail(error)
            except Exception as error:  # noqa: BLE001 -- a timer's thread must go on
                if not self._is_closed:
                    log.error("this is a mistake in cvmfsexec: %r", error)
                return Outcome.INTERNAL_ERROR
            finally:
                self._checked_s = self._clock()
                self._is_urgent = False

    def check_if_due(self) -> Outcome | None:
        """Check if it is time to; return ``None`` if it is not."""
        expires_in_s = self.expires_in_s()
        if expires_in_s is None or expires_in_s > 0:
            return None
        return self.check_now()

    def begin(self) -> None:
        """Check when it is due, from now on, in a thread of its own."""
        if self._thread is None and self._is_automatic:
            thread = threading.Thread(target=self._run, name="updates", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                log.warning("new revisions will not be looked for: %s", error)
            else:
                self._thread = thread

    def _run(self) -> None:
        while not self._is_closed:
            self.check_if_due()
            self._bell.wait(self.expires_in_s())
            self._bell.clear()

    def _ttl_s(self) -> float:
        try:
            ttl_s = self._change.ttl_s() or TTL_DEFAULT_S
        except CvmfsError as error:  # the catalog is gone, and its server too
            log.debug("no time to live: %s", error)
            ttl_s = TTL_AFTER_FAILURE_S
        if self._is_offline:
            ttl_s = min(ttl_s, TTL_AFTER_FAILURE_S)
        if self.max_ttl_s is not None:
            ttl_s = min(ttl_s, self.max_ttl_s)
        return min(ttl_s, _TTL_MAX_S)

    def _check(self) -> Outcome:
        newer = self._change.newer(self._revision)
        if newer is None:
            outcome = Outcome.UP_TO_DATE
        else:
            self._revision = self._change.show(newer)
            outcome = Outcome.APPLIED
        if self._is_offline:
            log.info("back from offline mode")
            self._is_offline = False
        return outcome

    def _fail(self, error: CvmfsError) -> Outcome:
        """Go on with what is shown; say so once."""
        is_known = self._is_offline or self._is_closed
        tell = log.debug if is_known else log.warning
        tell("staying with revision %d: %s", self._revision.number, error)
        self._is_offline = True
        return Outcome.NO_SPACE if _lacks_space(error) else Outcome.FAILED


def _lacks_space(error: CvmfsError) -> bool:
    import errno

    cause = error.__cause__
    return isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT)
