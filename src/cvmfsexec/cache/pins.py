"""Objects that are in use: a pin keeps one in the store as long as its holder lives.

Who works with an object for long, as with an open catalog, pins it before opening it.
The pin is a line on the holder's page of the ledger, and the page counts as long as
its process has the lock on its account: it ends with the process, however that dies.
"""

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cvmfsexec.cache.ledger import Ledger
    from cvmfsexec.format.digest import ContentHash


class Pin:
    """Keeps an object in the store; this one need not, as nothing is removed there."""

    __slots__ = ()

    def release(self) -> None:
        """Let the object go, as does who forgets the pin; again changes nothing."""


NO_PIN = Pin()


class LedgerPin(Pin):
    """A ``Pin`` that stands in a ledger."""

    __slots__ = ("_ledger", "_number")

    def __init__(self, ledger: "Ledger", content_hash: "ContentHash") -> None:
        self._ledger = ledger
        self._number: int | None = None
        with contextlib.suppress(OSError):  # it may be removed then, but stays readable
            self._number = ledger.pin(content_hash)

    def release(self) -> None:
        """See ``Pin``."""
        number, self._number = self._number, None
        if number is not None:
            self._ledger.unpin(number)

    def __del__(self) -> None:
        """Let the object go with whoever used it."""
        self.release()
