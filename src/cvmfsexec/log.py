"""Messages for the log, without paying for ``logging`` at start.

A quiet start never says anything, and importing ``logging`` costs 8 ms of the 60
that a warm start has. So the import happens with the first message. Handlers and
levels are set by ``cli`` through the ordinary ``logging`` interface.
"""


def debug(message: str, *values: object) -> None:
    """Log what only somebody who hunts a fault wants to read."""
    if _debugging:
        _log(10, message, values)


def info(message: str, *values: object) -> None:
    """Log a normal event worth a line in the log file."""
    _log(20, message, values)


def warning(message: str, *values: object) -> None:
    """Log what the user should know although the work goes on."""
    _log(30, message, values)


def error(message: str, *values: object) -> None:
    """Log why an application was given an error."""
    _log(40, message, values)


def enable_debug() -> None:
    """Let ``debug`` messages through from now on."""
    global _debugging  # noqa: PLW0603 -- one switch, set once by cli
    _debugging = True


_debugging = False


def _log(level: int, message: str, values: tuple[object, ...]) -> None:
    import logging

    logging.getLogger("cvmfsexec").log(level, message, *values)
