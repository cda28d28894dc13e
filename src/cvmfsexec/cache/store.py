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
* A store may have a limit, which holds for the sum of all processes that share it, and
  removes what was used least recently to keep to it. What is pinned stays; what is
  open stays readable. An object that does not fit is read without being kept.
* Any thread may call a store; one transaction belongs to one thread.

Nothing here verifies: who commits an object answers for it (``cvmfsexec.fetch``).
``tests/support/store_contract.py`` holds these promises as tests.
"""

from contextlib import AbstractContextManager
from typing import Protocol, Self

from cvmfsexec.cache.pins import Pin
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
        return self

    def __exit__(self, *_: object) -> None:
        """Abort."""
        self.abort()


class StoreQuota(Protocol):
    """How much a store holds, and how it is kept to its limit.

    Attributes:
        stores_volatile: Whether what this process stores is removed before all else.
    """

    stores_volatile: bool

    @property
    def limit_bytes(self) -> int:
        """The limit that this process goes by; 0 for none."""

    @limit_bytes.setter
    def limit_bytes(self, limit_bytes: int) -> None:
        """Go by another limit from now on."""

    def put_in_order(self) -> None:
        """Count in the background what was estimated or is long ago, if it is due.

        What is above the limit is removed then. It takes a thread, so it is for those
        who stay, and have the rights that they will have.
        """

    def binding_limit_bytes(self) -> int:
        """Return the lowest limit of the processes that use the store now."""

    def used_bytes(self) -> int:
        """Return how many bytes all processes have stored."""

    def pinned_bytes(self) -> int:
        """Return how many of them are pinned, by whichever process."""

    def in_use(self) -> frozenset[ContentHash]:
        """Return the objects that living processes have pinned."""

    def clean(self, target_bytes: int) -> bool:
        """Remove what was used least recently until no more than this is used.

        Returns:
            Whether that was reached; pinned objects may prevent it.
        """

    def cleanings_within(self, period_s: float) -> int:
        """Return how often anybody made room in the last so many seconds."""


class ObjectStore(Protocol):
    """Objects by content hash.

    Attributes:
        quota: Its limit; ``None`` for a store that has no say in what it holds.
    """

    @property
    def quota(self) -> StoreQuota | None:
        """See above."""

    def open_object(self, content_hash: ContentHash) -> int | None:
        """Return a readable descriptor, which the caller closes; ``None`` if absent.

        Raises:
            CacheError: No descriptor or memory is left to open it with.
        """

    def has(self, content_hash: ContentHash) -> bool:
        """Whether the object is there."""

    def pin(self, content_hash: ContentHash) -> Pin:
        """Keep an object from being removed to make room, from now on.

        It need not be there yet. Pin it before it is opened.
        """

    def claim(
        self,
        content_hash: ContentHash,
        *,
        patience_s: float,
        size_bytes: int | None = None,
    ) -> AbstractContextManager[bool]:
        """Keep other processes from fetching what we are about to fetch.

        While another process has the claim, wait until it has stored the object or
        given up, but not for long. Look for the object again in the ``with``.

        Args:
            content_hash: Names the object.
            patience_s: Wait no longer than this; 0 for not at all.
            size_bytes: Its size, decompressed, if that is known: for an object that is
                too large to be kept, nobody waits.

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
        """Return how many bytes are stored, or ``None`` if that is unknown."""

    def close(self) -> None:
        """Give back what the store holds; descriptors of objects stay good."""
