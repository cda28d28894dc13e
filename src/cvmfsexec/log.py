"""Messages for the log, without paying for ``logging`` at start.

A quiet start never says anything, and importing ``logging`` costs 8 ms of the 60
that a warm start has. So the import happens with the first message. Handlers and
levels are set by ``cli`` through the ordinary ``logging`` interface; a file server
also keeps its messages in a file, which comes into being with the first of them.
"""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from logging import Logger

FILE_BYTES_MAX = 10 << 20
"""A longer log file is moved aside; two such files are kept at the most."""


def debug(message: str, *values: object) -> None:
    """Log what only somebody who hunts a fault wants to read."""
    if _debugging:
        _log(10, message, values)


def detail(message: str, *values: object) -> None:
    """Log what goes well, for those who asked what is going on."""
    if _detailed:
        _log(20, message, values)


def info(message: str, *values: object) -> None:
    """Log a normal event worth a line in the log file."""
    _log(20, message, values)


def warning(message: str, *values: object) -> None:
    """Log what the user should know although the work goes on."""
    _log(30, message, values)


def error(message: str, *values: object) -> None:
    """Log why an application was given an error."""
    _log(40, message, values)


def enable_detail(*, debug: bool = False) -> None:
    """Let ``detail`` messages through from now on, and ``debug`` messages if wanted."""
    global _detailed, _debugging
    _detailed, _debugging = True, debug


def is_debugging() -> bool:
    """Whether ``debug`` messages are read, so that work for them is not in vain."""
    return _debugging


def speak_as(speaker: str) -> None:
    """Let messages on stderr begin with a name, from now on."""
    _speaker["speaker"] = speaker


def keep_in_file(path: str, label: str) -> None:
    """Write the messages of this process to a file as well, from now on.

    Args:
        path: The file; its directory is made if needed.
        label: What the lines begin with, after the time.
    """
    global _file  # noqa: PLW0603 -- one file, set once per file server
    _file = (path, label)


def harmless(text: str) -> str:
    """Return a text on one line, in which control characters are spelled out.

    What servers say and names in repositories may hold anything: line feeds that begin
    a forged message, codes that a terminal obeys, bytes that no encoding knows.
    """
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


_detailed = False
_debugging = False
_speaker = {"speaker": "cvmfsexec"}
_file: tuple[str, str] | None = None


def _log(level: int, message: str, values: tuple[object, ...]) -> None:
    global _file
    import logging

    logger = logging.getLogger("cvmfsexec")
    if not logger.hasHandlers():
        to_stderr = logging.StreamHandler()
        to_stderr.setLevel(logging.WARNING)
        to_stderr.setFormatter(
            logging.Formatter("%(speaker)s: %(message)s", defaults=_speaker)
        )
        logger.addHandler(to_stderr)
    if _file is not None:
        (path, label), _file = _file, None
        _add_file(logger, path, label)
    logger.log(level, "%s", harmless(message % values if values else message))


def _add_file(logger: "Logger", path: str, label: str) -> None:
    import logging

    from cvmfsexec.log_file import LimitedFile

    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        to_file = LimitedFile(path, FILE_BYTES_MAX)
    except OSError:
        return  # a directory that cannot be written: stderr must do
    to_file.setFormatter(
        logging.Formatter(f"%(asctime)s %(levelname)s {label}: %(message)s")
    )
    logger.addHandler(to_file)
