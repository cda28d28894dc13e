"""How values from repositories are written, whatever somebody has put into them."""

import sys


def printable(name: bytes) -> bytes:
    """Return a name for stdout: raw for programs, harmless for a terminal."""
    if not sys.stdout.isatty():
        return name
    text = name.decode(errors="replace")
    return "".join(c if c.isprintable() else "?" for c in text).encode()


def write_line(line: bytes) -> None:
    """Write one line of bytes to stdout."""
    sys.stdout.buffer.write(line + b"\n")


def local_time(seconds: int) -> str:
    """Return a time as a person reads it, in the time zone of this machine."""
    return _time(seconds, "%Y-%m-%d %H:%M", is_local=True)


def utc_time(seconds: int) -> str:
    """Return a time as everybody reads it, e.g. ``2026-01-31T23:59:59Z``."""
    return _time(seconds, "%Y-%m-%dT%H:%M:%SZ", is_local=False)


def _time(seconds: int, pattern: str, *, is_local: bool) -> str:
    """Format a time; the bare number of seconds if no calendar goes that far."""
    import time

    try:
        moment = time.localtime(seconds) if is_local else time.gmtime(seconds)
        return time.strftime(pattern, moment)
    except (OverflowError, ValueError, OSError):
        return str(seconds)
