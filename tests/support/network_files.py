"""What a network file system does to the files of others, played in one process.

* What another node has removed is gone for those who have it open: ``ESTALE``.
* How large a file is, who has it open knows from when he opened it.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

_FAR = 1 << 62
_CALLS = ("open", "dup", "close", "fstat", "pread", "pwrite")


class _Server:
    """The calls of ``os`` as they are answered."""

    def __init__(self, *, sizes_are_late: bool) -> None:
        self._real = {name: getattr(os, name) for name in _CALLS}
        self._sizes_are_late = sizes_are_late
        self._sizes: dict[int, int] = {}
        self._named: set[int] = set()

    def _check(self, descriptor: int) -> None:
        is_known = descriptor in self._named
        if is_known and self._real["fstat"](descriptor).st_nlink == 0:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    def _note(self, descriptor: int, size_bytes: int, *, has_name: bool) -> None:
        self._sizes[descriptor] = size_bytes
        self._named.discard(descriptor)
        if has_name:
            self._named.add(descriptor)

    def open(
        self, path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None
    ) -> int:
        if dir_fd is not None:
            self._check(dir_fd)
        descriptor: int = self._real["open"](path, flags, mode, dir_fd=dir_fd)
        status = self._real["fstat"](descriptor)
        is_read = flags & os.O_ACCMODE == os.O_RDONLY
        size_bytes = status.st_size if is_read and self._sizes_are_late else _FAR
        self._note(descriptor, size_bytes, has_name=status.st_nlink > 0)
        return descriptor

    def dup(self, descriptor: int) -> int:
        copy: int = self._real["dup"](descriptor)
        size_bytes = self._sizes.get(descriptor, _FAR)
        self._note(copy, size_bytes, has_name=descriptor in self._named)
        return copy

    def close(self, descriptor: int) -> None:
        self._named.discard(descriptor)
        self._sizes.pop(descriptor, None)
        self._real["close"](descriptor)

    def fstat(self, descriptor: int) -> os.stat_result:
        self._check(descriptor)
        status: os.stat_result = self._real["fstat"](descriptor)
        return status

    def pread(self, descriptor: int, length: int, offset: int) -> bytes:
        self._check(descriptor)
        left = max(self._sizes.get(descriptor, _FAR) - offset, 0)
        data: bytes = self._real["pread"](descriptor, min(length, left), offset)
        return data

    def pwrite(self, descriptor: int, data: bytes, offset: int) -> int:
        self._check(descriptor)
        written: int = self._real["pwrite"](descriptor, data, offset)
        return written


@contextmanager
def files_of_a_server(*, sizes_are_late: bool = False) -> Iterator[None]:
    """Let calls for descriptors answer as NFS would; unnamed files stay usable.

    Args:
        sizes_are_late: Whether readers do not see how files grow.
    """
    server = _Server(sizes_are_late=sizes_are_late)
    with pytest.MonkeyPatch.context() as patch:
        for name in _CALLS:
            patch.setattr(os, name, getattr(server, name))
        yield
