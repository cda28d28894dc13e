"""Downloads that begin before it is known that they are wanted.

On a slow network a start is a number of round trips, so what will probably be needed is
asked for while what decides about it is on its way or being checked. Nothing of it is
used, parsed, or stored before the decision: it is bytes in memory, and is dropped if
the decision is no.
"""

import threading
from collections.abc import Callable
from typing import Protocol

from cvmfsexec import log
from cvmfsexec.errors import CvmfsError
from cvmfsexec.fetch import ObjectRequest

EARLY_BYTES_MAX = 16 << 20
"""Uncompressed size up to which an object is fetched early."""


class Download:
    """Bytes that a thread of its own downloads."""

    def __init__(self, fetch: Callable[[], bytes]) -> None:
        """Begin; without a thread, if there can be none, the download waits."""
        self._fetch = fetch
        self._content: bytes | None = None
        self._error: CvmfsError | None = None
        self._thread: threading.Thread | None = None
        thread = threading.Thread(target=self._run, name="early", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            log.debug("%s; downloading one after the other", error)
        else:
            self._thread = thread

    def wait(self) -> bytes:
        """Return what was downloaded.

        Raises:
            CvmfsError: What prevented it.
        """
        if self._thread is not None:
            self._thread.join()
        if self._error is not None:
            raise self._error
        return self._fetch() if self._content is None else self._content

    def _run(self) -> None:
        try:
            self._content = self._fetch()
        except CvmfsError as error:
            self._error = error


class Prefetch(Protocol):
    """An object under way into the cache; see ``cvmfsexec.fetch.prefetch``."""

    @property
    def sink(self) -> "Sink":
        """Takes the stored bytes."""

    def land(self) -> object:
        """Verify and store what the sink has got, or raise."""

    def give_up(self) -> None:
        """Leave the object to whoever asks for it."""


class Sink(Protocol):
    """The part of a sink that takes bytes."""

    def write(self, data: bytes) -> object:
        """Take the next piece."""


class EarlyObject:
    """An object that is kept in memory until it is wanted. End it by one of the two."""

    def __init__(
        self,
        request: ObjectRequest,
        prefetch: Prefetch,
        fetch: Callable[[], bytes],
    ) -> None:
        """Begin to download.

        Args:
            request: The object.
            prefetch: Its way into the cache.
            fetch: Returns its stored bytes.
        """
        self._content_hash = request.content_hash
        self._prefetch = prefetch
        self._download = Download(fetch)

    def keep(self) -> None:
        """Store the object, now that it is wanted; what fails is left to its reader."""
        try:
            self._prefetch.sink.write(self._download.wait())
        except CvmfsError as error:
            self._prefetch.give_up()
            self._tell(error)
            return
        try:
            self._prefetch.land()
        except CvmfsError as error:
            self._tell(error)

    def drop(self) -> None:
        """Forget the object; its download may go on for a while."""
        self._prefetch.give_up()

    def _tell(self, error: CvmfsError) -> None:
        log.debug("object %s not early: %s", self._content_hash, error)
