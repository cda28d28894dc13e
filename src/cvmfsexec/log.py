"""Messages for the log, without paying for ``logging`` at start.

A quiet start never says anything, and importing ``logging`` costs 8 ms of the 60
that a warm start has. So the import happens with the first message. ``cli`` chooses how
much of it reaches stderr; a file server also keeps its messages in other places
(``LogPlaces``), which come into being with the first of them.
"""

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from logging import Logger

_RECENT_MAX = 100

DEBUG, INFO, WARNING, ERROR = 10, 20, 30, 40  # the numbers of ``logging``


class LogPlaces(NamedTuple):
    """Where a process keeps its messages, besides stderr.

    Attributes:
        label: What the lines begin with, after the time.
        file: For normal events and troubles; empty for none.
        debug_file: For everything; empty for none.
        syslog_facility: Number of the part of the system's log that is told what a
            file would be; ``None`` for none.
        syslog_priority: What it calls normal events; troubles have names of their own.
    """

    label: str
    file: str = ""
    debug_file: str = ""
    syslog_facility: int | None = None
    syslog_priority: str = "notice"


def debug(message: str, *values: object) -> None:
    """Log what only somebody who hunts a fault wants to read."""
    if _debugging:
        _log(DEBUG, message, values)


def detail(message: str, *values: object) -> None:
    """Log what goes well, for those who asked what is going on."""
    if _detailed:
        _log(INFO, message, values)


def info(message: str, *values: object) -> None:
    """Log a normal event worth a line in the log file."""
    _log(INFO, message, values)


def warning(message: str, *values: object) -> None:
    """Log what the user should know although the work goes on."""
    _log(WARNING, message, values)


def error(message: str, *values: object) -> None:
    """Log why an application was given an error."""
    _log(ERROR, message, values)


def enable_detail(*, debug: bool = False) -> None:
    """Let ``detail`` messages through from now on, and ``debug`` messages if wanted."""
    global _detailed, _debugging, _stderr_level  # noqa: PLW0603 -- by the command line
    _detailed, _debugging = True, debug
    _stderr_level = DEBUG if debug else INFO


def is_debugging() -> bool:
    """Whether ``debug`` messages are read, so that work for them is not in vain."""
    return _debugging


def speak_as(speaker: str) -> None:
    """Let messages on stderr begin with a name, from now on."""
    _speaker["speaker"] = speaker


def keep_in(places: LogPlaces) -> None:
    """Keep the messages of this process elsewhere as well, from now on."""
    global _unopened, _detailed, _debugging  # noqa: PLW0603 -- once per file server
    _unopened = places
    if places.debug_file:
        _detailed = _debugging = True


def recent() -> list[tuple[float, str]]:
    """Return the last messages of this process, the newest first.

    Each has its time in seconds since 1970.
    """
    return list(reversed(_recent))


def harmless(text: str) -> str:
    """Return a text on one line, in which control characters are spelled out.

    What servers say and names in repositories may hold anything: line feeds that begin
    a forged message, codes that a terminal obeys, bytes that no encoding knows.
    """
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


_detailed = False
_debugging = False
_recent: deque[tuple[float, str]] = deque(maxlen=_RECENT_MAX)
_stderr_level = WARNING
_speaker = {"speaker": "cvmfsexec"}
_unopened: LogPlaces | None = None
_opening = threading.RLock()  # a signal handler may have something to say


def _log(level: int, message: str, values: tuple[object, ...]) -> None:
    import logging

    logger = logging.getLogger("cvmfsexec")
    with _opening:
        _open_handlers(logger)
    text = harmless(message % values if values else message)
    _recent.append((time.time(), text))
    logger.log(level, "%s", text)


def _open_handlers(logger: "Logger") -> None:
    """See that the logger has a handler for each place."""
    global _unopened
    import logging

    if not logger.hasHandlers():
        to_stderr = logging.StreamHandler()
        to_stderr.setLevel(_stderr_level)
        to_stderr.setFormatter(
            logging.Formatter("%(speaker)s: %(message)s", defaults=_speaker)
        )
        logger.addHandler(to_stderr)
        logger.setLevel(_stderr_level)
    if _unopened is not None:
        from cvmfsexec.log_places import open_places

        places, _unopened = _unopened, None
        for handler in open_places(*places):
            logger.addHandler(handler)
            logger.setLevel(min(logger.level or handler.level, handler.level))
