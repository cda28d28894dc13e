"""The threads that read requests from the device and answer them.

How they share the work. If several threads wait in ``read``, the kernel wakes them in
turn: every request wakes another one, which then has to win Python's interpreter lock
from the one before. A LOOKUP of a single client so cost 8 us of processor time with one
thread, but 13 to 26 us with eight. One thread alone, however, would let everybody wait
for one download. Therefore:

- The *leader* alone reads. It answers what it has read itself, and reads on.
- The *deputy* watches the leader. When a request lasts longer than ``_PATIENCE_S``, it
  takes the lead; the old leader finishes its request and goes to the end of the line.
- The others stand in line to become deputy. A thread is started when none is left.

Where one request was slow, more will be (a job starts on a cold cache): for the next
``_EAGER_REQUESTS`` requests each leader gives the lead away before it answers, so that
all threads work at once. While nothing happens, all of them sleep without timeouts.

Who writes what: ``_leader`` belongs to the deputy, of whom there is one at a time
(``_deputy_lock``); what a ``Worker`` holds belongs to its own thread. A leader learns
after its request that it was deposed. Until then two threads may read, which does no
harm.
"""

import errno
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from typing import NamedTuple

from cvmfsexec import log
from cvmfsexec.errors import NamespaceError
from cvmfsexec.fuse.protocol import OPCODE_LIMIT, READ_BUFFER_BYTES_MIN, Reply

# Above what any answer from memory takes, below one network round trip.
_PATIENCE_S = 0.002

# Without a request for so many times the patience, the deputy sleeps until one comes.
_QUIET_WATCHES = 50

_EAGER_REQUESTS = 32

_READ_AGAIN = frozenset({errno.ENOENT, errno.EINTR, errno.EAGAIN})
"""The request was taken back before it could be read, or nothing happened."""


class Ending(Enum):
    """Why no more requests are answered."""

    UNMOUNTED = "the file system was unmounted"
    NOT_MOUNTED = "the device is not mounted"
    ABORTED = "the connection was aborted"
    STOPPED = "stopped on request"


_ENDING_BY_ERRNO = {
    errno.ENODEV: Ending.UNMOUNTED,
    errno.EPERM: Ending.NOT_MOUNTED,
    errno.ECONNABORTED: Ending.ABORTED,
}


class Alarm(NamedTuple):
    """Something to be done once.

    Attributes:
        in_s: When, in seconds from now; less than ``threading.TIMEOUT_MAX``.
        call: What.
    """

    in_s: float
    call: Callable[[], object]


class Worker:
    """What other threads see of one that leads.

    Attributes:
        pulse: Grows as a request is taken up and as it is done: odd while one is.
        has_resigned: Whether the lead was given away.
        counts: Requests by opcode, and what else is counted behind; exact, since only
            its own thread writes it.
    """

    __slots__ = ("counts", "has_resigned", "pulse")

    def __init__(self, counts: int) -> None:
        self.pulse = 0
        self.has_resigned = False
        self.counts = [0] * counts


class Crew:
    """Threads that answer the requests of one device.

    Attributes:
        workers: All that were ever started.
    """

    def __init__(
        self,
        device_fd: int,
        answer: Callable[[bytes, list[int]], Reply],
        threads_max: int,
        counts: int = OPCODE_LIMIT,
    ) -> None:
        """Prepare; no thread is started yet.

        Args:
            device_fd: Blocking.
            answer: Called with a request and the counts of its worker; never raises.
            threads_max: How many requests may be answered at once, at least 1.
            counts: How many numbers each worker counts.
        """
        self._counts = counts
        self.workers: list[Worker] = []
        self._device_fd = device_fd
        self._answer = answer
        self._threads_max = threads_max
        self._leader: Worker | None = None
        self._in_line = 0
        self._line_lock = threading.Lock()
        self._deputy_lock = threading.Lock()
        self._is_deputy_asleep = False
        self._eager_requests = 0
        self._bell = _locked()  # unlocked by whoever wants the deputy to look
        self._end = _locked()  # unlocked at the end
        self._ending: Ending | None = None

    def run(self, alarm: "Alarm | None" = None) -> Ending:
        """Answer requests until the end, and return what it was.

        A signal handler that calls ``stop`` has to run in the calling thread.

        Args:
            alarm: What to call meanwhile, and when; it must not take long.

        Raises:
            NamespaceError: Not even one thread can be started.
        """
        if not self._start_thread():
            raise NamespaceError(
                "cannot start a thread",
                syscall="clone",
                errno=errno.EAGAIN,
                hint="look at the limit of processes: ulimit -u",
            )
        if alarm is None or not self._end.acquire(timeout=alarm.in_s):
            if alarm is not None:
                alarm.call()
            self._end.acquire()
        return self._ending or Ending.STOPPED

    def stop(self) -> None:
        """End ``run`` soon; may be called by a signal handler, and more than once.

        A thread that waits in ``read`` stays there until the file system is unmounted
        or the process ends.
        """
        self._finish(Ending.STOPPED)

    def _finish(self, ending: Ending) -> None:
        self._ending = self._ending or ending
        _unlock(self._end)
        _unlock(self._bell)

    def _start_thread(self) -> bool:
        """Put one more thread in the line."""
        worker = Worker(self._counts)
        thread = threading.Thread(
            target=self._work, args=(worker,), name="fuse", daemon=True
        )
        with self._line_lock:
            self.workers.append(worker)
            self._in_line += 1
        try:
            thread.start()
        except RuntimeError as error:
            with self._line_lock:
                self.workers.remove(worker)
                self._in_line -= 1
            self._threads_max = len(self.workers)
            log.warning("going on with %d threads: %s", self._threads_max, error)
            return False
        return True

    def _work(self, worker: Worker) -> None:
        """Be a worker: stand in line, be deputy, lead, and again."""
        while True:
            with self._deputy_lock:
                self._be_deputy()
                if self._ending is not None:
                    return
                worker.has_resigned = False
                self._leader = worker
            with self._line_lock:
                self._in_line -= 1
                is_nobody_left = not self._in_line
            if is_nobody_left and len(self.workers) < self._threads_max:
                self._start_thread()
            self._lead(worker)
            with self._line_lock:
                self._in_line += 1

    def _be_deputy(self) -> None:
        """Return when the lead is to be taken, or at the end."""
        seen = -1
        quiet_watches = 0
        while self._ending is None:
            leader = self._leader
            if leader is None or leader.has_resigned:
                return
            pulse = leader.pulse
            if pulse != seen:
                seen = pulse
                quiet_watches = 0
            elif pulse & 1:
                self._eager_requests = _EAGER_REQUESTS
                return
            else:
                quiet_watches += 1
            if quiet_watches < _QUIET_WATCHES:
                if self._bell.acquire(timeout=_PATIENCE_S):
                    seen = -1  # woken early: no time has passed
                continue
            self._is_deputy_asleep = True
            if leader.pulse == pulse:  # no request came before it could know
                self._bell.acquire()
            self._is_deputy_asleep = False

    def _lead(self, worker: Worker) -> None:
        """Read and answer requests until another one leads."""
        answer = self._answer
        counts = worker.counts
        while self._leader is worker:
            request = receive(self._device_fd)
            if isinstance(request, Ending):
                self._finish(request)
                return
            worker.pulse += 1
            if self._eager_requests and self._threads_max > 1:
                self._resign_and_answer(worker, request)
                return
            if self._is_deputy_asleep:
                _unlock(self._bell)
            self._send(answer(request, counts))
            worker.pulse += 1

    def _resign_and_answer(self, worker: Worker, request: bytes) -> None:
        """Let another one lead, and answer a request that may be slow."""
        self._eager_requests -= 1
        worker.has_resigned = True
        _unlock(self._bell)
        begun_s = time.monotonic()
        self._send(self._answer(request, worker.counts))
        worker.pulse += 1
        if time.monotonic() - begun_s > _PATIENCE_S:
            self._eager_requests = _EAGER_REQUESTS

    def _send(self, reply: Reply) -> None:
        """Give the reply to the kernel, if there is one."""
        try:
            if isinstance(reply, tuple):
                os.writev(self._device_fd, reply)
            elif reply is not None:
                os.write(self._device_fd, reply)
        except OSError as error:
            if error.errno == errno.EINVAL:
                log.error("the kernel did not understand a reply")
            # ENOENT: nobody waits for it any more. All others: the next read tells.


def receive(device_fd: int) -> bytes | Ending:
    """Wait for the next request and return it, or why there will be none."""
    while True:
        try:
            request = os.read(device_fd, READ_BUFFER_BYTES_MIN)
        except OSError as error:
            if error.errno in _READ_AGAIN:
                continue
            ending = _ENDING_BY_ERRNO.get(error.errno or 0)
            if ending is None:
                log.error("cannot read from the FUSE device: %s", error)
            return ending or Ending.ABORTED
        return request or Ending.UNMOUNTED


def _locked() -> threading.Lock:
    lock = threading.Lock()
    lock.acquire()
    return lock


def _unlock(lock: threading.Lock) -> None:
    """Unlock; nothing happens if it is."""
    with suppress(RuntimeError):
        lock.release()
