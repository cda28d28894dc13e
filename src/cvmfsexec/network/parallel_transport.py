"""Many transfers at once, driven by one thread: for what nobody waits for yet.

Threads that each wait for one transfer fight for Python's interpreter lock: 5,000 small
objects over 16 connections at 20 ms cost 3.9 s of CPU by 16 threads, 2.4 s by one
thread (libcurl's multi interface), on a quiet machine at no distance 2.0 s and 0.4 s.

Each transfer asks one route, once, as ``Transport.get`` does, with the same handles;
what fails is for the caller to decide. All methods belong to one thread, but for
``wake``.
"""

import os
import select
import time
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from cvmfsexec.errors import CvmfsError
from cvmfsexec.network import libcurl
from cvmfsexec.network.curl_transport import CurlHandle

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from cvmfsexec.network.settings import NetworkSettings
    from cvmfsexec.network.transport import Answer, Request

Token = TypeVar("Token")

_WAIT_MAX_S = 1.0  # libcurl says how long at most; this is if it does not know


class Finished(NamedTuple, Generic[Token]):
    """A transfer that is over.

    Attributes:
        token: What ``start`` was given.
        answer: What came back; None if there was no complete answer.
        error: Why there was none; also what the sink raised.
        seconds: How long it took.
    """

    token: Token
    answer: "Answer | None"
    error: CvmfsError | None
    seconds: float


class _Transfer(NamedTuple, Generic[Token]):
    """One that is under way."""

    handle: CurlHandle
    proxy: str
    token: Token
    started_s: float


class ParallelTransport(Generic[Token]):
    """Transfers under way.

    Args:
        settings: As for ``CurlTransport``.
        connections_max: How many connections are kept.
    """

    def __init__(self, settings: "NetworkSettings", connections_max: int) -> None:
        self._settings = settings
        pycurl = libcurl.load()
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_MAXCONNECTS, connections_max)
        self._idle: dict[str, list[CurlHandle]] = {}
        self._transfers: dict[Any, _Transfer[Token]] = {}
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    @property
    def active_count(self) -> int:
        """How many transfers are under way."""
        return len(self._transfers)

    def start(
        self, request: "Request", sink: "Callable[[bytes], object]", token: Token
    ) -> None:
        """Begin a transfer.

        Args:
            request: What to ask, and how.
            sink: As of ``Transport.get``; called by ``work``.
            token: Comes back when it is over.
        """
        idle = self._idle.setdefault(request.proxy, [])
        handle = idle.pop() if idle else CurlHandle(self._settings, request.proxy)
        handle.begin(request, sink)
        self._transfers[handle.curl] = _Transfer(
            handle, request.proxy, token, time.monotonic()
        )
        self._multi.add_handle(handle.curl)

    def work(self) -> list[Finished[Token]]:
        """Do what can be done without waiting; return the transfers that are over."""
        self._multi.perform()
        finished: list[Finished[Token]] = []
        more = True
        while more:
            more, succeeded, failed = self._multi.info_read()
            for curl in succeeded:
                self._end(curl, 0, "", finished)
            for curl, code, text in failed:
                self._end(curl, code, text, finished)
        return finished

    def wait(self) -> None:
        """Wait until there is something to do, or ``wake`` is called."""
        readable, writable, broken = self._multi.fdset()
        timeout_s: float | None = None
        if self._transfers:
            timeout_ms = self._multi.timeout()
            timeout_s = _WAIT_MAX_S if timeout_ms < 0 else timeout_ms / 1000
        ready, _, _ = select.select(
            [*readable, self._bell], writable, broken, timeout_s
        )
        if self._bell in ready:
            os.eventfd_read(self._bell)

    def wake(self) -> None:
        """End ``wait``, or the next one; any thread may call."""
        os.eventfd_write(self._bell, 1)

    def close(self) -> None:
        """Give everything up; nothing is finished any more."""
        for transfer in self._transfers.values():
            self._multi.remove_handle(transfer.handle.curl)
            transfer.handle.close()
        self._transfers.clear()
        for idle in self._idle.values():
            while idle:
                idle.pop().close()
        self._multi.close()
        os.close(self._bell)

    def _end(
        self,
        curl: "Any",  # noqa: ANN401 -- pycurl has no type hints
        code: int,
        text: str,
        finished: list[Finished[Token]],
    ) -> None:
        self._multi.remove_handle(curl)
        transfer = self._transfers.pop(curl)
        answer: Answer | None = None
        fault: CvmfsError | None = None
        try:
            answer = transfer.handle.end(code, text)
        except CvmfsError as error:
            fault = error
        else:
            if answer is None:  # redirected
                self._transfers[curl] = transfer
                self._multi.add_handle(curl)
                return
        self._idle[transfer.proxy].append(transfer.handle)
        seconds = time.monotonic() - transfer.started_s
        finished.append(Finished(transfer.token, answer, fault, seconds))
