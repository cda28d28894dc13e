"""Several processes that inspect one cache together.

To inspect is to compress everything again, which one processor does at some 25 MiB a
second. Each process takes every n-th part and tells what it found in a line of JSON.
One whose reader has gone ends with its next line; none outlives its work.
"""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from typing import NoReturn

from cvmfsexec.cache.faults import Fault, Problem, Remedy, Tally
from cvmfsexec.cache.inspection import PARTS, TOP, Inspector
from cvmfsexec.cache.open_files import close_quietly
from cvmfsexec.cache.scratch import write_all
from cvmfsexec.errors import CacheError, CvmfsError
from cvmfsexec.format.digest import ContentHash

PROCESSES_MAX = 32


def inspect_all(
    path: str, remedy: Remedy, in_use: frozenset[ContentHash], process_count: int
) -> Iterator[Tally]:
    """Yield what is found in each part of a cache directory.

    This process must have no threads when the first is asked for. That is ``TOP``; the
    others come in any order.

    Args:
        path: The directory.
        remedy: What to do about faults.
        in_use: Objects that sessions have open.
        process_count: How many processes to use.

    Raises:
        CacheError: The directory cannot be opened, or a process ended early.
    """
    # What lies on the way to objects is mended before anybody looks at them.
    inspector = Inspector(path, remedy, in_use)
    try:
        top = inspector.inspect(TOP)
        parts = [part for part in PARTS if part != TOP]
        count = max(1, min(process_count, PROCESSES_MAX))
        if count == 1:
            yield top
            yield from map(inspector.inspect, parts)
            return
        shares = [parts[number::count] for number in range(count)]
        yield from _inspect_by_processes(inspector, top, shares)
    finally:
        inspector.close()


def _inspect_by_processes(
    inspector: Inspector, top: Tally, shares: list[list[str]]
) -> Iterator[Tally]:
    children: dict[int, int] = {}
    readers: dict[int, bytes] = {}
    try:
        for share in shares:
            outlet, inlet, pid = _fork_with_pipe()
            if pid == 0:
                for other in (outlet, *readers):
                    close_quietly(other)
                _be_inspector(inspector, share, inlet)
            close_quietly(inlet)
            children[pid] = outlet
            readers[outlet] = b""
        yield top
        yield from _received(readers)
        _see_that_all_ended_well(children)
    finally:
        for outlet in readers:
            close_quietly(outlet)
        for pid in children:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)


def _fork_with_pipe() -> tuple[int, int, int]:
    """Return a pipe's ends, and what ``fork`` returns."""
    try:
        outlet, inlet = os.pipe()
        try:
            return outlet, inlet, os.fork()
        except OSError:
            close_quietly(outlet)
            close_quietly(inlet)
            raise
    except OSError as error:
        raise CacheError(
            f"cannot start a process to inspect the cache: {error.strerror}",
            hint="use fewer with -j",
        ) from error


def _be_inspector(inspector: Inspector, share: list[str], inlet: int) -> NoReturn:
    status = 1
    try:
        for part in share:
            write_all(inlet, _line_of(inspector.inspect(part)))
        status = 0
    except CvmfsError as error:
        with suppress(OSError):
            write_all(inlet, json.dumps({"error": str(error)}).encode() + b"\n")
    finally:
        os._exit(status)


def _received(readers: dict[int, bytes]) -> Iterator[Tally]:
    import select

    poller = select.poll()
    for outlet in readers:
        poller.register(outlet, select.POLLIN)
    open_count = len(readers)
    while open_count:
        for outlet, _ in poller.poll():
            data = os.read(outlet, 1 << 16)
            if not data:
                poller.unregister(outlet)
                open_count -= 1
                continue
            *lines, readers[outlet] = (readers[outlet] + data).split(b"\n")
            yield from map(_tally_of, lines)


def _see_that_all_ended_well(children: dict[int, int]) -> None:
    while children:
        pid, wait_status = os.waitpid(next(iter(children)), 0)
        del children[pid]
        if wait_status:
            raise CacheError("a process that inspected the cache ended early")


def _line_of(tally: Tally) -> bytes:
    faults = [(*fault._replace(problem=fault.problem.name),) for fault in tally.faults]  # type: ignore[arg-type]
    return json.dumps((*tally[:2], faults, tally.foreign)).encode() + b"\n"


def _tally_of(line: bytes) -> Tally:
    values = json.loads(line)
    if isinstance(values, dict):
        raise CacheError(values["error"])
    object_count, total_bytes, faults, foreign = values
    return Tally(
        object_count,
        total_bytes,
        tuple(Fault(path, Problem[name], *rest) for path, name, *rest in faults),
        tuple(foreign),
    )
