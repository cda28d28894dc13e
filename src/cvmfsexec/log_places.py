"""The places where a file server keeps its messages: opened with the first of them."""

import contextlib
import logging
import os
from logging.handlers import SysLogHandler

from cvmfsexec.log_file import LimitedFile

FILE_BYTES_MAX = 10 << 20
DEBUG_FILE_BYTES_MAX = 100 << 20
"""A longer log file is moved aside; two such files are kept at the most."""

SYSLOG_SOCKET = "/dev/log"


def open_places(
    label: str,
    file: str = "",
    debug_file: str = "",
    syslog_facility: int | None = None,
    syslog_priority: str = "notice",
) -> list[logging.Handler]:
    """Open what can be opened; what cannot is left out, as stderr is there still.

    Args:
        label: As all others, a field of ``log.LogPlaces``.
        file: For normal events and troubles.
        debug_file: For everything.
        syslog_facility: For what a file would be given.
        syslog_priority: What normal events are called there.
    """
    handlers: list[logging.Handler] = []
    with contextlib.suppress(OSError):
        if file:
            handlers.append(_file(file, FILE_BYTES_MAX, logging.INFO))
    with contextlib.suppress(OSError):
        if debug_file:
            handlers.append(_file(debug_file, DEBUG_FILE_BYTES_MAX, logging.DEBUG))
    for handler in handlers:
        handler.setFormatter(
            logging.Formatter(f"%(asctime)s %(levelname)s {label}: %(message)s")
        )
    if syslog_facility is not None:
        handlers.append(_Syslog(label, syslog_facility, syslog_priority))
    return handlers


def _file(path: str, bytes_max: int, level: int) -> logging.Handler:
    os.makedirs(os.path.dirname(path) or ".", mode=0o700, exist_ok=True)
    handler = LimitedFile(path, bytes_max)
    handler.setLevel(level)
    return handler


class _Syslog(SysLogHandler):
    """Speaks to the system's log as the original client does."""

    ident = "cvmfs2: "

    def __init__(self, label: str, facility: int, priority: str) -> None:
        super().__init__(SYSLOG_SOCKET, facility=facility)
        self._priority = priority
        self.setLevel(logging.INFO)
        self.setFormatter(logging.Formatter(f"({label}) %(message)s"))

    def encodePriority(self, facility: int | str, priority: int | str) -> int:  # noqa: N802 -- its name there
        """Return the number of a message; a normal event has the configured one."""
        chosen = self._priority if priority == "info" else priority
        return super().encodePriority(facility, chosen)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Go on without: whoever listens to the system's log may come and go."""
