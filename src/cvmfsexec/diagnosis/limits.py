"""Limits of this process that sessions inherit."""

import resource
from collections.abc import Iterator

from cvmfsexec.diagnosis.finding import Finding, State

FILES_MIN = 512
"""A file server stays below 400 open files, however many the payload opens."""

PROCESSES_MIN = 128
"""Threads count too: up to 40 of a file server, and some for the payload."""


def examine_limits() -> Iterator[Finding]:
    """Look at the limits of open files, processes, and file sizes."""
    yield _judge(
        "open files (ulimit -n)",
        resource.getrlimit(resource.RLIMIT_NOFILE),
        FILES_MIN,
        "raise it (ulimit -n), or ask for a higher hard limit",
    )
    yield _judge(
        "processes (ulimit -u)",
        resource.getrlimit(resource.RLIMIT_NPROC),
        PROCESSES_MIN,
        "raise it (ulimit -u), or ask for a higher hard limit",
    )
    size_max = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if size_max != resource.RLIM_INFINITY:
        yield Finding(
            "file size (ulimit -f)",
            State.WARNING,
            f"files may not grow beyond {size_max} bytes; larger objects are not kept",
            "raise it: ulimit -f unlimited",
        )


def _judge(subject: str, limit: tuple[int, int], minimum: int, hint: str) -> Finding:
    soft, hard = limit
    text = f"soft limit {_shown(soft)}, hard limit {_shown(hard)}"
    if soft != resource.RLIM_INFINITY and soft < minimum:
        return Finding(
            subject, State.WARNING, f"{text}; {minimum} are needed at times", hint
        )
    return Finding(subject, State.GOOD, text)


def _shown(value: int) -> str:
    return "unlimited" if value == resource.RLIM_INFINITY else str(value)
