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

**The last one never waits.** If all threads waited for the network, nobody would read
what the kernel says, nor answer what is in the cache. A leader with nobody in line sets
aside what would have to wait (``callers.before_waiting``), for those who come back.

**Who is to end gets his answer at once**; ``requesters`` knows who that is. The thread
that reads INTERRUPT answers the other request with EINTR, wherever that is held up, and
tells its worker that the caller has left. What the worker answers later is for nobody.
Once a second the thread that called ``run`` looks for those who have gone without a
word, as long as anybody waits. Nothing is done for a request that is answered from the
cache: what a worker is at, the deputy has to know anyway.
"""

import errno
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from typing import NamedTuple

from cvmfsexec import callers, log
from cvmfsexec.errors import NamespaceError
from cvmfsexec.fuse.protocol import (
    OPCODE_LIMIT,
    READ_BUFFER_BYTES_MIN,
    REQUEST_HEADER,
    Opcode,
    Reply,
    error_reply,
)
from cvmfsexec.fuse.requesters import Requesters

# Above what any answer from memory takes, below one network round trip.
_PATIENCE_S = 0.002

# Without a request for so many times the patience, the deputy sleeps until one comes.
_QUIET_WATCHES = 50

_EAGER_REQUESTS = 32

_LOOK_S = 1.0  # for those who have gone without a word
_NEVER = float("inf")

_OPCODE_OFFSET = 4  # in a request; its lowest byte, which is all of a known one
_UNIQUE = slice(8, 16)
_PID_FIELD = 6  # of REQUEST_HEADER

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


class Worker(callers.Caller):
    """What other threads see of one that leads. Its tasks are requests.

    Attributes:
        done: The last request that is done with; the same as the task if none is
            being answered.
        has_resigned: Whether the lead was given away.
        counts: Requests by opcode, and what else is counted behind; exact, since only
            its own thread writes it.
    """

    __slots__ = ("_may_wait", "counts", "done", "has_resigned")

    def __init__(self, counts: int, may_wait: Callable[["Worker"], bool]) -> None:
        super().__init__()
        self.done: object = None
        self.has_resigned = False
        self.counts = [0] * counts
        self._may_wait = may_wait

    def may_wait(self) -> bool:
        """See ``Caller``."""
        return self._may_wait(self)

    def asker(self) -> callers.Asker | None:
        """See ``Caller``."""
        request = self.request()
        if request is None:
            return None
        _, _, _, inode, uid, gid, pid, *_ = REQUEST_HEADER.unpack_from(request)
        return callers.Asker(pid, uid, gid, inode)

    def request(self) -> bytes | None:
        """Return what is being answered."""
        done, task = self.done, self.task  # in this order, or what is done may seem new
        return task if task is not done and isinstance(task, bytes) else None


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
        self._call = _locked()  # the same for the thread that called ``run``
        self._is_lookout_asleep = True
        self._aside: deque[bytes] = deque()  # requests; ``_line_lock`` guards it, too
        self._requesters = Requesters()
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
        alarm_s = _NEVER if alarm is None else time.monotonic() + alarm.in_s
        while self._ending is None:
            self._sleep_until(alarm_s)
            if alarm is not None and time.monotonic() >= alarm_s:
                alarm_s = _NEVER
                alarm.call()
            self._look_out()
        return self._ending

    def interrupt(self, unique: int) -> bool:
        """Answer a request at once if whoever made it is to end.

        Returns:
            Whether it is known here. If not, it is answered, or has not come yet.
        """
        for worker in self.workers:
            request = worker.request()
            if request is not None and _unique(request) == unique:
                if self._requesters.wants_out(_pid(request)):
                    self._leave(worker, request)
                return True
        with self._line_lock:
            found = [request for request in self._aside if _unique(request) == unique]
        for request in found:
            if self._requesters.wants_out(_pid(request)):
                with self._line_lock, suppress(ValueError):  # somebody is at it by now
                    self._aside.remove(request)
                    self._send(error_reply(unique, errno.EINTR))
        return bool(found)

    def _leave(self, worker: Worker, request: bytes) -> None:
        worker.leave(request)
        self._send(error_reply(_unique(request), errno.EINTR))

    def _sleep_until(self, alarm_s: float) -> None:
        """Sleep until the alarm, the end, or, if somebody waits, for a second."""
        self._is_lookout_asleep = True  # set before it looks, so that no call is lost
        left_s = alarm_s - time.monotonic()
        if self._has_waiting():
            self._is_lookout_asleep = False
            self._call.acquire(timeout=max(min(left_s, _LOOK_S), 0.0))
        elif left_s > threading.TIMEOUT_MAX:
            self._call.acquire()
        else:
            self._call.acquire(timeout=max(left_s, 0.0))

    def _has_waiting(self) -> bool:
        requests = ((worker, worker.request()) for worker in self.workers)
        return any(one and worker.waits_for is one for worker, one in requests)

    def _look_out(self) -> None:
        """Look for those who have gone, or were told to end after their INTERRUPT."""
        for worker in self.workers:
            request = worker.request()
            if request is None or worker.waits_for is not request or worker.has_left:
                continue
            may_be_gone = request[_OPCODE_OFFSET] == Opcode.READ
            if self._requesters.is_gone(_pid(request), may_be_gone=may_be_gone):
                self._leave(worker, request)

    def _may_wait(self, worker: Worker) -> bool:
        """Whether somebody else reads, or will, while a worker waits."""
        if self._is_lookout_asleep:
            self._is_lookout_asleep = False
            _unlock(self._call)
        return (
            self._in_line > 0
            or worker.has_resigned
            or self._leader is not worker
            or self._threads_max == 1
        )

    def stop(self) -> None:
        """End ``run`` soon; may be called by a signal handler, and more than once.

        A thread that waits in ``read`` stays there until the file system is unmounted
        or the process ends.
        """
        self._finish(Ending.STOPPED)

    def _finish(self, ending: Ending) -> None:
        self._ending = self._ending or ending
        _unlock(self._call)
        _unlock(self._bell)

    def _start_thread(self) -> bool:
        """Put one more thread in the line."""
        worker = Worker(self._counts, self._may_wait)
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
        callers.work_for(worker)
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
            while (request := self._next_aside()) is not None:
                worker.task = request
                self._answer_again(worker, request)
                worker.done = request

    def _next_aside(self) -> bytes | None:
        """Return a request that was set aside, or stand in line again."""
        with self._line_lock:
            if self._aside:
                return self._aside.popleft()
            self._in_line += 1
            return None

    def _be_deputy(self) -> None:
        """Return when the lead is to be taken, or at the end."""
        seen: object = self  # no task
        quiet_watches = 0
        while self._ending is None:
            leader = self._leader
            if leader is None or leader.has_resigned:
                return
            done, task = leader.done, leader.task  # in this order, see ``request``
            if task is not seen:
                seen = task
                quiet_watches = 0
            elif task is not done:
                self._eager_requests = _EAGER_REQUESTS
                return
            else:
                quiet_watches += 1
            if quiet_watches < _QUIET_WATCHES:
                if self._bell.acquire(timeout=_PATIENCE_S):
                    seen = self  # woken early: no time has passed
                continue
            self._is_deputy_asleep = True
            if leader.task is task:  # no request came before it could know
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
            worker.task = request
            if self._eager_requests and self._in_line:
                self._resign_and_answer(worker, request)
                return
            if self._is_deputy_asleep:
                _unlock(self._bell)
            try:
                self._send(answer(request, counts))
            except callers.CannotWait:
                self._set_aside(worker, request)
            worker.done = request

    def _resign_and_answer(self, worker: Worker, request: bytes) -> None:
        """Let another one lead, and answer a request that may be slow."""
        self._eager_requests -= 1
        worker.has_resigned = True
        _unlock(self._bell)
        begun_s = time.monotonic()
        self._answer_waiting(worker, request)
        worker.done = request
        if time.monotonic() - begun_s > _PATIENCE_S:
            self._eager_requests = _EAGER_REQUESTS

    def _answer_waiting(self, worker: Worker, request: bytes) -> None:
        """Answer a request that may have to wait."""
        try:
            self._send(self._answer(request, worker.counts))
        except callers.CannotWait:
            self._set_aside(worker, request)

    def _set_aside(self, worker: Worker, request: bytes) -> None:
        """Leave a request to those who may wait, unless nobody wants the answer."""
        if worker.has_left:
            self._send(error_reply(_unique(request), errno.EINTR))
            return
        with self._line_lock:
            if not self._in_line:
                self._aside.append(request)
                return
        self._answer_again(worker, request)  # somebody has come back meanwhile

    def _answer_again(self, worker: Worker, request: bytes) -> None:
        """Answer what was counted when it could not be."""
        worker.counts[request[_OPCODE_OFFSET]] -= 1
        self._answer_waiting(worker, request)

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


def _unique(request: bytes) -> int:
    return int.from_bytes(request[_UNIQUE], "little")


def _pid(request: bytes) -> int:
    pid: int = REQUEST_HEADER.unpack_from(request)[_PID_FIELD]
    return pid


def _locked() -> threading.Lock:
    lock = threading.Lock()
    lock.acquire()
    return lock


def _unlock(lock: threading.Lock) -> None:
    """Unlock; nothing happens if it is."""
    with suppress(RuntimeError):
        lock.release()
