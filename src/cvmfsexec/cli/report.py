"""How a command speaks to its user: on stderr, one sentence and what to do."""

import os
import sys

from cvmfsexec import log
from cvmfsexec.errors import CvmfsError, TransferError


def replace_missing_streams() -> None:
    """Let output go nowhere if the caller has closed it.

    What is opened for that is closed again by exec: the payload finds what it was
    given.
    """
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 -- for good
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 -- for good


def report_error(program: str, error: CvmfsError) -> None:
    """Write an error that ends a command."""
    write_message(program, str(error), error.hint)
    if isinstance(error, TransferError) and _verbosity > 0:
        for route in error.routes:
            write_message(program, f"  tried {route}")


def write_message(program: str, message: str, hint: str = "") -> None:
    """Write one message; control characters of foreign names do no harm."""
    text = f"{program}: {message}" + (f"; {hint}" if hint else "")
    try:
        safe = log.harmless(text).encode(errors="backslashreplace").decode()
        sys.stderr.write(safe + "\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        # Nobody listens: there is no better place to complain. What is left in the
        # buffer would make another status of ours when it is flushed at the end.
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 -- for good


def set_verbosity(program: str, verbosity: int) -> None:
    """Choose what reaches stderr: 0 warnings, 1 also events, 2 everything."""
    global _verbosity  # noqa: PLW0603 -- set once, by the command line
    _verbosity = verbosity
    log.speak_as(program)
    if verbosity:
        log.enable_detail(debug=verbosity > 1)


_verbosity = 0
