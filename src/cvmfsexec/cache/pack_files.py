"""Files of packs that are kept open while they are read: indexes, or packs."""

import os
import threading
from collections import OrderedDict

from cvmfsexec.cache.open_files import close_quietly
from cvmfsexec.cache.pack_writer import DIRECTORY, READ_FLAGS


class PackFiles:
    """The open files of one directory's packs; safe to call from any thread.

    Args:
        directory: Descriptor of the cache directory, which stays the caller's.
        suffix: Of the files' names.
        open_max: So many are kept open: those that were used last.
    """

    def __init__(self, directory: int, suffix: str, open_max: int) -> None:
        self._directory = directory
        self._suffix = suffix
        self._open_max = open_max
        self._lock = threading.Lock()
        self._files: OrderedDict[str, int] = OrderedDict()

    def is_open(self, name: str) -> bool:
        """Whether the file of a pack is open already."""
        return name in self._files

    def open(self, name: str) -> int:
        """Return a descriptor that is the caller's, whoever closes ours meanwhile.

        Args:
            name: Of the pack.

        Raises:
            OSError: As the kernel says; it may have been removed to make room.
        """
        with self._lock:
            descriptor = self._files.get(name)
            if descriptor is None:
                path = f"{DIRECTORY}/{name}{self._suffix}"
                descriptor = os.open(path, READ_FLAGS, dir_fd=self._directory)
                self._files[name] = descriptor
                if len(self._files) > self._open_max:
                    close_quietly(self._files.popitem(last=False)[1])
            else:
                self._files.move_to_end(name)
            return os.dup(descriptor)

    def close(self, name: str) -> None:
        """Give back the file of one pack."""
        with self._lock:
            descriptor = self._files.pop(name, None)
        if descriptor is not None:
            close_quietly(descriptor)

    def close_all(self) -> None:
        """Give back all."""
        with self._lock:
            while self._files:
                close_quietly(self._files.popitem()[1])
