"""What a store of objects can do, and the promises that every kind of store keeps.

* An object becomes visible by ``Transaction.commit``, at once and in full, or never:
  not to other threads, not to other processes, not after a crash of the process.
* Objects never change. Of equal ones that are stored at once, any stays. One that is
  damaged has to be removed before it is stored anew.
* A descriptor stays readable whatever happens to the object's name afterwards. Its
  position is nobody's: read with ``os.pread``.
* A store without room (full disk, disk quota, read-only directory) goes on: the
  transaction then ends in the descriptor of an object that nobody else can find.
  The store says so once, as a warning.
* A claim lets one process fetch an object while others that share the store wait for
  it. It is advice, and ends with its process.
* Any thread may call a store; one transaction belongs to one thread.

Nothing here verifies: who commits an object answers for it (``cvmfsexec.fetch``).
``tests/support/store_contract.py`` holds these promises as tests.
"""

from contextlib import AbstractContextManager
from types import TracebackType
from typing import Protocol, Self

from cvmfsexec.format.digest import ContentHash


class Transaction(Protocol):
    """One object being written; leaving its ``with`` without commit forgets it."""

    def write(self, data: bytes | bytearray) -> None:
        """Append bytes.

        Raises:
            CacheError: There is no room for them anywhere, not even in memory.
        """

    def commit(self, content_hash: ContentHash) -> int:
        """Make the object visible and return a descriptor of it; the caller closes.

        A file of a store that has paths is reached through the descriptor by its own
        (``/proc/self/fd/N`` resolves to it), as SQLite wants it.

        Raises:
            CacheError: What was written is lost. A new transaction may fare better:
                the store has changed to a place that works.
        """

    def keep(self, content_hash: ContentHash) -> bool:
        """Make the object visible to others, for whom ``commit`` would open it.

        Returns:
            Whether it is; else there was no room, and it is forgotten.

        Raises:
            CacheError: As ``commit``.
        """

    def abort(self) -> None:
        """Forget what was written, unless it was committed."""

    def __enter__(self) -> Self:
        """Begin."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Abort."""


class ObjectStore(Protocol):
    """Objects by content hash."""

    def open_object(self, content_hash: ContentHash) -> int | None:
        """Return a readable descriptor, which the caller closes; ``None`` if absent.

        Raises:
            CacheError: No descriptor or memory is left to open it with.
        """

    def has(self, content_hash: ContentHash) -> bool:
        """Whether the object is there."""

    def claim(
        self, content_hash: ContentHash, *, patience_s: float
    ) -> AbstractContextManager[bool]:
        """Keep other processes from fetching what we are about to fetch.

        While another process has the claim, wait until it has stored the object or
        given up, but not for long. Look for the object again in the ``with``.

        Args:
            content_hash: Names the object.
            patience_s: Wait no longer than this; 0 for not at all.

        Returns:
            What to enter; it tells whether nobody else is fetching the object, as far
            as can be known, and the store would keep it. Fetching it regardless is no
            error.
        """

    def transaction(self) -> Transaction:
        """Begin to write one object.

        Raises:
            CacheError: Nothing can be written anywhere, not even to memory.
        """

    def remove(self, content_hash: ContentHash) -> None:
        """Forget an object; one that is absent is forgotten already."""

    def used_bytes(self) -> int | None:
        """Return about how many bytes are stored, or ``None`` if that is unknown."""

    def close(self) -> None:
        """Give back what the store holds; descriptors of objects stay good."""
