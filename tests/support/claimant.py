"""A process of its own that takes claims on objects when it is told to.

It is forked, so start it while there are no threads.
"""

import contextlib
import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Self

from cvmfsexec.cache.claims import Claims
from cvmfsexec.format.digest import ContentHash


class Claimant:
    """The process; used in a ``with``, at whose end it is killed.

    Attributes:
        pid: Its number.
    """

    def __init__(self, directory: Path) -> None:
        orders, self._orders = os.pipe()
        self._answers, answers = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._orders)
            os.close(self._answers)
            try:
                _obey(directory, orders, answers)
            finally:
                os._exit(1)
        os.close(orders)
        os.close(answers)
        self._is_alive = True

    @staticmethod
    @contextlib.contextmanager
    def directory() -> Iterator[Path]:
        """Make a cache directory for some of them."""
        with tempfile.TemporaryDirectory() as path:
            yield Path(path)

    def take(self, content_hash: ContentHash, *, patience_s: float = 0.0) -> bool:
        """Take a claim and keep it; return whether that worked."""
        self.begin_to_take(content_hash, patience_s=patience_s)
        return self.has_taken()

    def begin_to_take(self, content_hash: ContentHash, *, patience_s: float) -> None:
        """Order it to take a claim."""
        self._order(f"take {content_hash} {patience_s}")

    def has_taken(self) -> bool:
        """Wait for the end of ``begin_to_take``; return whether that worked."""
        return self._answer() == b"y"

    def give_back(self, content_hash: ContentHash) -> None:
        """Give a claim back."""
        self._order(f"drop {content_hash} 0")
        assert self._answer() == b"d"

    def kill(self) -> None:
        """Kill it, whatever it is doing."""
        if self._is_alive:
            self._is_alive = False
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            os.close(self._orders)
            os.close(self._answers)

    def _order(self, text: str) -> None:
        os.write(self._orders, text.ljust(_ORDER_BYTES).encode())

    def _answer(self) -> bytes:
        return os.read(self._answers, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


_ORDER_BYTES = 100


def _obey(directory: Path, orders: int, answers: int) -> None:
    claims = Claims(os.open(directory, os.O_RDONLY | os.O_DIRECTORY))
    held: dict[str, AbstractContextManager[bool]] = {}
    while order := os.read(orders, _ORDER_BYTES):
        verb, text, patience_s = order.decode().split()
        if verb == "drop":
            held.pop(text).__exit__(None, None, None)
            os.write(answers, b"d")
            continue
        claim = claims.claim(
            ContentHash.parse(text), patience_s=float(patience_s), is_there=_never
        )
        is_ours = claim.__enter__()
        if is_ours:
            held[text] = claim
        os.write(answers, b"y" if is_ours else b"n")


def _never() -> bool:
    return False
