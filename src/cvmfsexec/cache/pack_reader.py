"""Reading objects out of packs, which are kept open while they are read.

An object is believed if it matches the checksum of its record. When a pack was used
last is its modification time, like that of any object; it is set anew once an hour.
"""

import contextlib
import os
import time
import zlib
from collections.abc import Callable

from cvmfsexec import log
from cvmfsexec.cache.open_files import close_quietly
from cvmfsexec.cache.pack_files import PackFiles
from cvmfsexec.cache.pack_places import Place
from cvmfsexec.cache.pack_writer import PACK
from cvmfsexec.cache.refusals import OUT_OF_MEANS
from cvmfsexec.errors import CacheError

OPEN_MAX = 32
PACKED_BYTES_MAX = 512 << 10
"""Larger objects have files of their own."""

USE_IS_OLD_S = 3600.0
"""So far away is the last use of a pack, at least, when it is set anew."""


class PackReader:
    """The open packs of one directory; safe to call from any thread.

    Args:
        directory: Descriptor of the cache directory, which stays the caller's.
        clock: Seconds that do not jump.
    """

    def __init__(self, directory: int, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._files = PackFiles(directory, PACK, OPEN_MAX)
        self._used_s: dict[str, float] = {}

    def close(self) -> None:
        """Give back all files."""
        self._files.close_all()

    def drop(self, name: str) -> None:
        """Give back a pack that was removed, and so its room."""
        self._used_s.pop(name, None)
        self._files.close(name)

    def read(self, place: Place) -> bytes | None:
        """Return the bytes of an object in a pack, if they are there and whole.

        Raises:
            CacheError: No descriptor or memory is left.
        """
        if place.record.size_bytes > PACKED_BYTES_MAX:
            return None  # we do not write such
        was_open = self._files.is_open(place.pack)
        content = self._read(place)
        if content is None and was_open:
            # Who opens a file anew is told by a network file system how large it has
            # become, and where it is.
            self._files.close(place.pack)
            content = self._read(place)
        return content

    def _read(self, place: Place) -> bytes | None:
        record = place.record
        try:
            descriptor = self._files.open(place.pack)
            try:
                self._note_use(place.pack, descriptor)
                content = os.pread(descriptor, record.size_bytes, record.offset)
            finally:
                close_quietly(descriptor)
        except (OSError, OverflowError) as error:
            if isinstance(error, OSError) and error.errno in OUT_OF_MEANS:
                raise CacheError(f"cannot open a pack: {error.strerror}") from error
            log.debug("cache: cannot read pack %s: %s", place.pack, error)
            return None
        is_whole = len(content) == record.size_bytes
        return content if is_whole and zlib.crc32(content) == record.checksum else None

    def _note_use(self, name: str, descriptor: int) -> None:
        now_s = self._clock()
        if now_s - self._used_s.get(name, float("-inf")) < USE_IS_OLD_S:
            return
        self._used_s[name] = now_s
        with contextlib.suppress(OSError):
            if abs(time.time() - os.fstat(descriptor).st_mtime) > USE_IS_OLD_S:
                os.utime(descriptor)
