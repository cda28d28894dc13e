"""A repository in a local directory, asked for by ``file:///`` URLs."""

import os
import stat
from typing import TYPE_CHECKING

from cvmfsexec.errors import ObjectTooLargeError
from cvmfsexec.format.url_path import unescape_path
from cvmfsexec.network.transport import Answer, FaultKind, TransportFault

if TYPE_CHECKING:
    from collections.abc import Callable

    from cvmfsexec.network.transport import Request

_SCHEME = "file://"
_READ_BYTES = 1 << 17
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK  # for pipes
_NOT_FOUND = Answer(404)


class LocalTransport:
    """A ``Transport`` that reads files; has no state."""

    def get(self, request: "Request", sink: "Callable[[bytes], object]") -> Answer:
        """Read one file, as ``Transport.get`` says; a missing file is a 404."""
        path = _local_path(request.url)
        try:
            fd = os.open(path, _FLAGS)
        except (FileNotFoundError, NotADirectoryError):
            return _NOT_FOUND
        except OSError as error:
            raise _fault(error.strerror) from error
        except ValueError as error:
            raise _fault(str(error)) from error
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise _fault("not a regular file")
            return _copy(fd, request, sink)
        finally:
            os.close(fd)


def _copy(fd: int, request: "Request", sink: "Callable[[bytes], object]") -> Answer:
    offset, end = request.skip_bytes, None
    if request.byte_range is not None:
        offset, end = request.byte_range[0], request.byte_range[1] + 1
    received = 0
    while end is None or offset < end:
        wanted = _READ_BYTES if end is None else min(_READ_BYTES, end - offset)
        data = _read(fd, wanted, offset)
        if not data:
            break
        offset += len(data)
        received += len(data)
        if received > request.limit_bytes:
            raise ObjectTooLargeError(
                f"{request.url} has more than {request.limit_bytes} bytes"
            )
        sink(data)
    return Answer(206 if request.skip_bytes else 200, (), received)


def _read(fd: int, size: int, offset: int) -> bytes:
    try:
        return os.pread(fd, size, offset)
    except OSError as error:
        raise _fault(error.strerror) from error


def _fault(text: str | None) -> TransportFault:
    return TransportFault(FaultKind.HOST_CONNECTION, text or "unreadable")


def _local_path(url: str) -> bytes:
    path = unescape_path(url[len(_SCHEME) :])
    if b".." in path.split(b"/"):
        raise TransportFault(FaultKind.OTHER, "a path must not contain '..'")
    return path
