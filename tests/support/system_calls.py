"""System calls that fail, or at which the process dies."""

import fcntl
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

ChangingCall = Callable[..., Any]

STORAGE_CALLS = (
    *("open", "write", "pwrite", "sendfile", "dup", "close"),
    *("link", "rename", "mkdir", "unlink"),
    *("ftruncate", "posix_fallocate", "utime", "fchmod"),
)
"""What changes a directory or a file; and ``fcntl``, which takes and gives locks. To
die at a call that only reads is the same as to die at the next one that does not."""


def fail_calls(
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    error: int,
    when: Callable[..., bool] = lambda *_, **__: True,
) -> list[tuple[Any, ...]]:
    """Let the calls of ``os.<name>`` fail that ``when`` chooses by their arguments.

    Returns:
        The arguments of the calls that failed so far; grows.
    """
    real: ChangingCall = getattr(os, name)
    failed: list[tuple[Any, ...]] = []

    def call(*arguments: Any, **keywords: Any) -> Any:  # noqa: ANN401
        if when(*arguments, **keywords):
            failed.append(arguments)
            raise OSError(error, os.strerror(error))
        return real(*arguments, **keywords)

    monkeypatch.setattr(os, name, call)
    return failed


def count_calls(monkeypatch: pytest.MonkeyPatch, *names: str) -> list[str]:
    """Note the name of each call to ``os.<name>``, in order; the list grows."""
    calls: list[str] = []

    def count_and_call(name: str, real: ChangingCall) -> ChangingCall:
        def call(*arguments: Any, **keywords: Any) -> Any:  # noqa: ANN401
            calls.append(name)
            return real(*arguments, **keywords)

        return call

    for name in names:
        monkeypatch.setattr(os, name, count_and_call(name, getattr(os, name)))
    return calls


def run_and_die_at(call_number: int, work: Callable[[], object]) -> bool:
    """Do work in a child process that is killed before its n-th call to storage.

    Returns:
        Whether it was; ``False`` if the work has fewer calls and was done.
    """
    _, wait_status = os.waitpid(_begin(call_number, signal.SIGKILL, work), 0)
    code = os.waitstatus_to_exitcode(wait_status)
    assert code in (0, -9), f"the work failed: {code}"
    return code == -9


def run_and_stop_at(
    call_number: int, work: Callable[[], object], meanwhile: Callable[[], object]
) -> bool:
    """Do work in a child process that stops before its n-th call to storage.

    Something else is done then, and the child goes on.

    Returns:
        Whether it stopped; ``False`` if the work has fewer calls and was done.
    """
    child = _begin(call_number, signal.SIGSTOP, work)
    _, wait_status = os.waitpid(child, os.WUNTRACED)
    is_stopped = os.WIFSTOPPED(wait_status)
    if is_stopped:
        try:
            meanwhile()
        finally:
            os.kill(child, signal.SIGCONT)
            _, wait_status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(wait_status) == 0, "the work failed"
    return is_stopped


def _begin(call_number: int, number: signal.Signals, work: Callable[[], object]) -> int:
    """Return the pid of a child that sends itself a signal before its n-th call."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            _signal_at(call_number, number)
            work()
            status = 0
        finally:
            os._exit(status)
    return child


def _signal_at(call_number: int, number: signal.Signals) -> None:
    count = 0

    def count_and_call(real: ChangingCall) -> ChangingCall:
        def call(*arguments: Any, **keywords: Any) -> Any:  # noqa: ANN401
            nonlocal count
            count += 1
            if count == call_number:
                os.kill(os.getpid(), number)
            return real(*arguments, **keywords)

        return call

    for name in STORAGE_CALLS:
        setattr(os, name, count_and_call(getattr(os, name)))
    vars(fcntl)["fcntl"] = count_and_call(fcntl.fcntl)
