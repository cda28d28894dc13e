"""What a store does about others if there are none: no pins, and nobody to wait for."""

import contextlib
from contextlib import AbstractContextManager

from cvmfsexec.cache.pins import NO_PIN, Pin
from cvmfsexec.format.digest import ContentHash


class LoneStore:
    """The part of an ``ObjectStore`` that no process shares with another."""

    quota = None
    _keeps_objects = True

    def pin(self, content_hash: ContentHash) -> Pin:  # noqa: ARG002 -- see ObjectStore
        """See ``ObjectStore``; nobody removes what is in use."""
        return NO_PIN

    def claim(
        self,
        content_hash: ContentHash,  # noqa: ARG002 -- see ``ObjectStore``
        *,
        patience_s: float,  # noqa: ARG002
        size_bytes: int | None = None,  # noqa: ARG002
    ) -> AbstractContextManager[bool]:
        """See ``ObjectStore``; nobody else wants anything."""
        return contextlib.nullcontext(enter_result=self._keeps_objects)
