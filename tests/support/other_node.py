"""Another node, as far as programs can tell: a network namespace of its own.

What is outside is reached through a relay. ::

    with OtherNode() as node, Relay(origin.port, node.listener()) as relay:
        run_exec(dist, ..., before=node.enter)  # the server is at relay.url
"""

import ctypes
import fcntl
import os
import socket
import struct
import threading
from collections.abc import Callable
from typing import Self, TypeVar

import pytest

_CLONE_NEWNET = 0x40000000
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1

_T = TypeVar("_T")


class OtherNode:
    """The node; it ends with its processes, and with the ``with``.

    Attributes:
        enter: What to put before a command that is to run there.
    """

    def __init__(self) -> None:
        self._namespace = -1
        self.enter: tuple[str, ...] = ()

    def listener(self) -> socket.socket:
        """Return a socket that listens on the node's loopback."""
        return _in_thread(self._listen)

    def _listen(self) -> socket.socket:
        _check(_libc.setns(self._namespace, _CLONE_NEWNET))
        return socket.create_server(("127.0.0.1", 0))

    def __enter__(self) -> Self:
        if os.geteuid() != 0:
            pytest.skip("only root can make network namespaces")
        self._namespace = _in_thread(_new_namespace)
        path = f"/proc/{os.getpid()}/fd/{self._namespace}"
        self.enter = ("nsenter", f"--net={path}")
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._namespace)


_libc = ctypes.CDLL(None, use_errno=True)


def _new_namespace() -> int:
    _check(_libc.unshare(_CLONE_NEWNET))
    with socket.socket() as any_socket:
        request = struct.pack("16sH14x", b"lo", _IFF_UP)
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, request)
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _in_thread(call: Callable[[], _T]) -> _T:
    """Call something in a thread of its own, whose namespace may change."""
    results: list[_T] = []
    errors: list[OSError] = []

    def work() -> None:
        try:
            results.append(call())
        except OSError as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if errors:
        pytest.skip(f"no network namespace here: {errors[0]}")
    return results[0]
