"""The server of one mount: agrees with the kernel, then lets a crew answer.

The device may come from anywhere: opened and mounted by us, received from
``fusermount``, or handed in by Apptainer. It is used as it is and never opened again by
its path, which would give another device that is not mounted.

Notifications to the kernel (a new revision) are written to the same device.
"""

import errno
import os
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress

from cvmfsexec.errors import CvmfsError, FormatError
from cvmfsexec.fuse.crew import Alarm, Crew, Ending, receive
from cvmfsexec.fuse.faults import FaultAccount
from cvmfsexec.fuse.negotiation import (
    ALL_FEATURES,
    WANTED,
    InitRequest,
    Terms,
    negotiate,
    version_reply,
)
from cvmfsexec.fuse.notifications import Notifier
from cvmfsexec.fuse.operations import Operations
from cvmfsexec.fuse.protocol import (
    BODY_OFFSET,
    MINOR,
    OPCODE_LIMIT,
    OPCODE_NAMES,
    REQUEST_START,
    Feature,
    Opcode,
    error_reply,
)
from cvmfsexec.vfs.attributes import Changes, FileSystem

# A thread is started only when all others were busy with slow requests. Sixteen clients
# who each wait 20 ms for an answer took 2.0 s with 8 threads, 1.0 s with 16. One more
# never waits: see ``crew``.
THREADS_DEFAULT = 16 + 1

BOUNDED_VALIDITY_S = 60
"""How long a kernel keeps names if it cannot be told of changes; the original's."""


class FuseServer:
    """Serves one file system on one FUSE device.

    Attributes:
        terms: What was agreed with the kernel; ``None`` until then.
        faults: The account of failed requests.
        bounded_validity_s: How long the kernel may keep names if it cannot be told of
            changes.
        file_system: Answers the requests.
        wanted: Features that are used if the kernel has them.
    """

    wanted = WANTED

    def __init__(
        self,
        device_fd: int,
        file_system: FileSystem,
        *,
        mask: int = ALL_FEATURES,
        minor_max: int = MINOR,
        threads: int = THREADS_DEFAULT,
        on_error: Callable[[str, BaseException], None] | None = None,
    ) -> None:
        """Prepare; nothing is read yet.

        Args:
            device_fd: ``/dev/fuse``, mounted by whomever. It stays the caller's, who
                must not close it while answers may be under way: best never.
            file_system: Answers the requests.
            mask: ``Feature`` bits that may be used.
            minor_max: The newest minor version of the protocol to use.
            threads: How many requests may be answered at once, at least 1.
            on_error: Called for each failed request, by the thread that met it, with
                what was asked and the error.
        """
        self._is_measured = False
        self.terms: Terms | None = None
        self.faults = FaultAccount(on_fault=on_error)
        self._device_fd = device_fd
        self.file_system = file_system
        self._mask = mask
        self._minor_max = minor_max
        self._threads = max(threads, 1)
        self._notifier = Notifier(device_fd)
        self.bounded_validity_s = BOUNDED_VALIDITY_S
        self._init_requests = 0
        self._crew: Crew | None = None
        self._operations: Operations | None = None
        self._is_stop_wanted = False

    @property
    def requests(self) -> Mapping[str, int]:
        """Number of requests so far by name of the opcode, if there were any."""
        counter = Counter({"INIT": self._init_requests})
        for worker in self._crew.workers if self._crew else ():
            for opcode, count in enumerate(worker.counts[:OPCODE_LIMIT]):
                counter[OPCODE_NAMES.get(opcode, "UNKNOWN")] += count
        return +counter

    @property
    def latencies(self) -> tuple[int, ...]:
        """Requests by how long they took, in powers of two; empty if not measured."""
        if not self._is_measured or self._crew is None:
            return ()
        from cvmfsexec.fuse.latency import latencies_in

        return latencies_in(worker.counts for worker in self._crew.workers)

    def tell(self, changes: Changes) -> None:
        """Tell the kernel what has changed; not from a thread that answers requests."""
        if self.terms is not None and not self.terms.is_bounded:
            self._notifier.tell(changes)

    def refuse(self, error: CvmfsError | None) -> None:
        """Fail every request from now on; none any more if ``None``."""
        if self._operations is not None:
            self._operations.refusal = error

    def serve(self, alarm: Alarm | None = None) -> Ending:
        """Answer requests until the end, and say what it was.

        ``NOT_MOUNTED`` tells that the device was handed in for nothing (Apptainer does
        so when it joins an instance): end quietly.

        Args:
            alarm: What to call meanwhile, and when, in the calling thread.

        Raises:
            FormatError: The kernel's protocol is too old.
            NamespaceError: No thread can be started.
        """
        os.set_blocking(self._device_fd, True)
        agreed = self._agree()
        if isinstance(agreed, Ending):
            return agreed
        self.terms = agreed
        self._operations = operations = self.operations(agreed)
        operations.interrupt = self.interrupt
        self._crew = self._new_crew(operations)
        return Ending.STOPPED if self._is_stop_wanted else self._crew.run(alarm)

    def _new_crew(self, operations: Operations) -> Crew:
        if not self._is_measured:
            return Crew(self._device_fd, operations.answer, self._threads)
        from cvmfsexec.fuse.latency import CELLS, measured

        answer = measured(operations.answer)
        return Crew(self._device_fd, answer, self._threads, CELLS)

    def operations(self, terms: Terms) -> Operations:
        """Return what answers the requests."""
        return Operations(self.file_system, terms, self.faults)

    def interrupt(self, unique: int) -> bool:
        """Answer a request at once if whoever made it is to end.

        Returns:
            Whether there is such a request at the moment.
        """
        return self._crew is not None and self._crew.interrupt(unique)

    def measure(self) -> None:
        """Count how long requests take; to be called before ``serve``."""
        self._is_measured = True

    def stop(self) -> None:
        """Make ``serve`` return soon; may be called by a signal handler.

        What is being answered is left behind: the caller is expected to exit.
        """
        self._is_stop_wanted = True
        if self._crew is not None:
            self._crew.stop()

    def accept(self, terms: Terms) -> Terms:
        """Return what of the terms is to be used."""
        return terms

    def _agree(self) -> Terms | Ending:
        """Answer INIT, the first request, which waits from the moment of the mount."""
        while True:
            request = receive(self._device_fd)
            if isinstance(request, Ending):
                return request
            if len(request) < BODY_OFFSET:
                continue
            _, opcode, unique, _ = REQUEST_START.unpack_from(request)
            if opcode != Opcode.INIT:
                self._reply(error_reply(unique, errno.EIO))
                continue
            self._init_requests += 1
            try:
                terms = negotiate(
                    InitRequest.parse(request),
                    wanted=self.wanted,
                    mask=self._mask,
                    minor_max=self._minor_max,
                )
            except FormatError:
                self._reply(error_reply(unique, errno.EPROTO))
                raise
            if terms is not None:
                terms = self.accept(terms)
                if not self._can_notify():
                    terms = terms.bounded(self.bounded_validity_s)
                self._reply(terms.reply(unique))
                return terms
            self._reply(version_reply(unique))

    def _can_notify(self) -> bool:
        may = bool(self._mask & Feature.NOTIFICATIONS)
        return may and self._notifier.is_understood()

    def _reply(self, reply: bytes) -> None:
        with suppress(OSError):  # unmounted again: the next read tells
            os.write(self._device_fd, reply)
