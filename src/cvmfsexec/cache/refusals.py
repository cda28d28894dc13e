"""What happens when a directory does not take an object: one warning, and a rest.

A full disk, a disk quota or a lost permission concerns the objects that follow, too.
So the directory is asked again only after a minute. A limit of file sizes (``ulimit
-f``) does not: smaller objects are kept. Nor does something in the way of one object, a
file where its directory should be.

Likewise when it does not give one back. A file that another node has removed is merely
absent; a file system that has lost its server concerns all objects; anything else is
a fault of a disk.

On a network file system a fault may be over in a moment, as other nodes see a change
before it is whole: a file that is gone already, or a directory that is still root's
(GlusterFS makes it so, and then hands it over). That is taken for a fault of the
directory only if it goes on.
"""

import errno
import time
from collections.abc import Callable
from functools import cached_property

from cvmfsexec import log
from cvmfsexec.cache.open_files import GONE
from cvmfsexec.errors import CacheError

REST_S = 60.0

OUT_OF_MEANS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""These are not about the directory; the process itself has come to its limits."""

_LOST = frozenset(
    {
        errno.ENOTCONN,
        errno.ESHUTDOWN,
        errno.ECONNABORTED,
        errno.ETIMEDOUT,
        errno.EHOSTDOWN,
    }
)
_UNREADABLE_TOLD_MAX = 10

_OF_ONE_OBJECT = frozenset({errno.EFBIG, errno.ENOTDIR})

_FLEETING_S = 3.0
_FLEETING_MAX = 16
"""For so long, or so often in ``REST_S``, a fault is put down to another node."""

_ANOTHER_PLACE = "or choose another place for the cache"
_WHAT_HELPS = {
    errno.ENOSPC: f" (remove something from the disk, {_ANOTHER_PLACE})",
    errno.EDQUOT: f" (remove something of yours from the disk, {_ANOTHER_PLACE})",
    errno.EROFS: " (choose a place for the cache that you can write)",
    errno.EACCES: " (choose a place for the cache that you can write)",
    errno.EFBIG: " (raise the limit of file sizes: ulimit -f)",
}


class Refusals:
    """Whether a directory is worth asking; any thread may call.

    Args:
        name: What messages call it.
        directory: Descriptor of it, which stays the caller's.
        clock: Seconds that do not jump.
    """

    def __init__(
        self,
        name: str,
        directory: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._directory = directory
        self._clock = clock
        self._rests_until_s = float("-inf")
        self._has_warned = False
        self._unreadable_told = 0
        self._fleeting_count = 0
        self._fleeting_since_s = float("-inf")

    @property
    def are_recent(self) -> bool:
        """Whether it has refused something a moment ago, and is to be left alone."""
        return self._clock() < self._rests_until_s

    def note_unreadable(self, path: str, error: OSError) -> None:
        """Take notice that an object is not given back: it counts as absent.

        Raises:
            CacheError: The fault is not the directory's: no descriptor is left.
        """
        if error.errno in OUT_OF_MEANS:
            raise CacheError(f"cannot open {path}: {error.strerror}") from error
        if error.errno in GONE or self._is_fleeting(error):
            return
        if error.errno in _LOST:
            self.note(error)
        elif self._unreadable_told < _UNREADABLE_TOLD_MAX:
            self._unreadable_told += 1
            log.warning("cache: cannot read %s: %s", path, error.strerror)

    def note(self, error: OSError) -> None:
        """Take notice of one; tell the user the first time.

        Raises:
            CacheError: The fault is not the directory's: no descriptor is left.
        """
        if error.errno in OUT_OF_MEANS:
            raise CacheError(f"cannot write to the cache: {error.strerror}") from error
        if self._is_fleeting(error):
            log.debug("cache: another node was faster: %s", error.strerror)
            return
        if error.errno not in _OF_ONE_OBJECT:
            self._rests_until_s = self._clock() + REST_S
        if not self._has_warned:
            self._has_warned = True
            log.warning(
                "%s: %s; what does not fit is read without being kept%s",
                self._name,
                error.strerror,
                _WHAT_HELPS.get(error.errno or 0, ""),
            )

    def _is_fleeting(self, error: OSError) -> bool:
        """Whether a fault is likely another node's doing."""
        if error.errno != errno.ESTALE and not (
            error.errno == errno.EACCES and self._is_on_network
        ):
            return False
        now_s = self._clock()
        if now_s - self._fleeting_since_s >= REST_S:
            self._fleeting_since_s = now_s
            self._fleeting_count = 0
        self._fleeting_count += 1
        return (
            now_s - self._fleeting_since_s < _FLEETING_S
            or self._fleeting_count <= _FLEETING_MAX
        )

    @cached_property
    def _is_on_network(self) -> bool:
        from cvmfsexec.cache.file_system_type import network_type_of

        return network_type_of(self._directory) is not None
