"""Whom a thread works for, and whether somebody still waits for what it does.

A thread that answers requests may have to wait for the network. Meanwhile who asked
can go away: a reader is killed, a user presses Ctrl-C. Then the thread should be free
again, and the download end, unless others wait for the same object.

A thread that works for somebody has a :class:`Caller`. Whatever makes threads wait
looks here, and only when it is about to: nothing is done for work that needs no
waiting. Threads without a caller work for the process, and nobody can go away.

Who may call: the functions look at the calling thread; ``leave`` and ``look_again`` may
be called by any. A lock for each caller guards what they share.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

LOOK_S = 0.5
"""How long a thread waits before it looks whether its caller is still there."""


class CannotWait(BaseException):
    """The calling thread has to go back to where it was called from.

    Its caller has gone, or wants it not to wait. It is not an ``Exception``, so that
    nobody takes it for a failed download.
    """


class Asker(NamedTuple):
    """Who asks a kernel for something, in its words.

    Attributes:
        pid: The thread, as the pid namespace of the mount numbers it; 0 if it does not.
        uid: The user, as the user namespace of the mount has it.
        gid: The group, likewise.
        inode: What it is about.
    """

    pid: int
    uid: int
    gid: int
    inode: int


class Caller:
    """Somebody a thread works for, one task after the other.

    Attributes:
        task: What the thread works on at the moment; each is another object.
        waits_for: The last task that had, or would have had, to wait.
    """

    __slots__ = ("_cut", "_has_company", "_left", "_lock", "_lost", "task", "waits_for")

    def __init__(self) -> None:
        self.task: object = None
        self.waits_for: object = None
        self._left: object = self  # a task that nobody asks for any more
        self._lost: object = self  # a task whose outcome nobody at all waits for
        self._lock = threading.Lock()
        self._cut: Callable[[], object] | None = None
        self._has_company: Callable[[], bool] | None = None

    def may_wait(self) -> bool:
        """Whether the task may wait now, or has to be done by another thread."""
        return True

    def asker(self) -> Asker | None:
        """Return who asks for the task, if it is known."""
        return None

    @property
    def has_left(self) -> bool:
        """Whether nobody asks for the task any more."""
        return self._left is self.task

    @property
    def is_lost(self) -> bool:
        """Whether nobody at all waits for what the task brings."""
        return self._lost is self.task

    def leave(self, task: object) -> None:
        """Say that nobody asks for a task any more; nothing if it is over."""
        with self._lock:
            self._left = task
        self.look_again()

    def look_again(self) -> None:
        """Have what is being done ended, if nobody waits for it."""
        with self._lock:
            if not self.has_left or (self._has_company and self._has_company()):
                return
            self._lost = self._left
            if self._cut is not None:
                self._cut()

    @contextmanager
    def in_company(self, has_company: Callable[[], bool]) -> Iterator[None]:
        """Work for others, too, for the time of a ``with``.

        Args:
            has_company: Whether there are any; who is the last to go away calls
                ``look_again``.
        """
        before, self._has_company = self._has_company, has_company
        try:
            yield
        finally:
            self._has_company = before

    @contextmanager
    def ended_by(self, cut: Callable[[], object]) -> Iterator[None]:
        """Do what can be ended from outside, for the time of a ``with``.

        Args:
            cut: Makes it end soon, in whatever way; called by any thread.

        Raises:
            CannotWait: Nobody waits for it.
        """
        with self._lock:
            if self.is_lost:
                raise CannotWait
            self._cut = cut
        try:
            yield
        finally:
            with self._lock:
                self._cut = None


class _Here(threading.local):
    caller: Caller | None = None


_here = _Here()


def work_for(caller: Caller | None) -> None:
    """Let the calling thread work for somebody from now on."""
    _here.caller = caller


def current() -> Caller | None:
    """Return whom the calling thread works for."""
    return _here.caller


def before_waiting() -> None:
    """Be about to wait for the network.

    Raises:
        CannotWait: This thread must not.
    """
    caller = _here.caller
    if caller is None:
        return
    caller.waits_for = caller.task
    if caller.has_left or not caller.may_wait():
        raise CannotWait


def has_left() -> bool:
    """Whether the thread's caller has gone."""
    caller = _here.caller
    return caller is not None and caller.has_left


def is_lost() -> bool:
    """Whether nobody waits for what the thread does."""
    caller = _here.caller
    return caller is not None and caller.is_lost


def pause(seconds: float) -> None:
    """Sleep.

    Raises:
        CannotWait: Nobody waits for what comes after.
    """
    until_s = time.monotonic() + seconds
    while seconds > 0:
        time.sleep(min(seconds, LOOK_S))
        if is_lost():
            raise CannotWait
        seconds = until_s - time.monotonic()
