"""The places where a file server keeps its messages: opened with the first of them."""

import contextlib
import logging
import os
from logging.handlers import SysLogHandler
from typing import TYPE_CHECKING

from cvmfsexec.log_file import LimitedFile

if TYPE_CHECKING:
    from cvmfsexec.log import LogPlaces

FILE_BYTES_MAX = 10 << 20
DEBUG_FILE_BYTES_MAX = 100 << 20
"""A longer log file is moved aside; two such files are kept at the most."""

SYSLOG_SOCKET = "/dev/log"


def open_places(places: "LogPlaces") -> list[logging.Handler]:
    """Open what can be opened; what cannot is left out, as stderr is there still."""
    line = logging.Formatter(f"%(asctime)s %(levelname)s {places.label}: %(message)s")
    handlers: list[logging.Handler] = []
    with contextlib.suppress(OSError):
        if places.file:
            handlers.append(_file(places.file, FILE_BYTES_MAX, logging.INFO))
    with contextlib.suppress(OSError):
        if places.debug_file:
            size_bytes = DEBUG_FILE_BYTES_MAX
            handlers.append(_file(places.debug_file, size_bytes, logging.DEBUG))
    for handler in handlers:
        handler.setFormatter(line)
    if places.syslog_facility is not None:
        handlers.append(_Syslog(places.syslog_facility, places))
    return handlers


def _file(path: str, bytes_max: int, level: int) -> logging.Handler:
    os.makedirs(os.path.dirname(path) or ".", mode=0o700, exist_ok=True)
    handler = LimitedFile(path, bytes_max)
    handler.setLevel(level)
    return handler


class _Syslog(SysLogHandler):
    """Speaks to the system's log as the original client does."""

    ident = "cvmfs2: "

    def __init__(self, facility: int, places: "LogPlaces") -> None:
        super().__init__(SYSLOG_SOCKET, facility=facility)
        self._priority = places.syslog_priority
        self.setLevel(logging.INFO)
        self.setFormatter(logging.Formatter(f"({places.label}) %(message)s"))

    def encodePriority(self, facility: int | str, priority: int | str) -> int:  # noqa: N802 -- its name there
        """Return the number of a message; a normal event has the configured one."""
        chosen = self._priority if priority == "info" else priority
        return super().encodePriority(facility, chosen)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Go on without: whoever listens to the system's log may come and go."""
