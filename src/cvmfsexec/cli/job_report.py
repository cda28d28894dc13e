"""``cvmfsexec --report FILE``: a page about a job, written when it has ended."""

import os
import time
from collections.abc import Callable

from cvmfsexec import __version__
from cvmfsexec.cli.report import write_message
from cvmfsexec.errors import ConfigurationError
from cvmfsexec.session import ExecRequest

Run = Callable[[ExecRequest], int]


def run_and_report(path: str, request: ExecRequest, run: Run) -> int:
    """Run a job, write what its file servers have recorded, and return its status.

    A report that cannot be written in the end does not make a failure of the job.

    Args:
        path: The page; absolute.
        request: What to run.
        run: Runs it, and returns its exit status.

    Raises:
        ConfigurationError: Nothing can be written there; the job was not started.
    """
    _check_place(path)
    recorded = _open_record()
    begin_s = time.time()
    status = run(request._replace(recording=recorded))
    try:
        _write_page(path, request.command, recorded, begin_s, status)
    except OSError as error:
        write_message("cvmfsexec", f"cannot write {path}: {error.strerror}")
    finally:
        os.close(recorded)
    return status


def _check_place(path: str) -> None:
    directory = os.path.dirname(path)
    if os.path.isdir(path):
        problem = "it is a directory"
    elif not os.path.isdir(directory):
        problem = f"there is no directory {directory}"
    elif not os.access(directory, os.W_OK | os.X_OK):
        problem = f"{directory} cannot be written"
    else:
        return
    raise ConfigurationError(
        f"--report {path}: {problem}", hint="name a file in a directory of yours"
    )


def _open_record() -> int:
    """Return a file without a name, that several processes append to."""
    import fcntl
    import tempfile

    try:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    except OSError as error:
        raise ConfigurationError(
            f"--report: nothing can be recorded: {error.strerror}",
            hint="set TMPDIR to a directory that you can write to",
        ) from error
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_APPEND)
    return descriptor


def _write_page(
    path: str, command: tuple[str, ...], recorded: int, begin_s: float, status: int
) -> None:
    from cvmfsexec.reporting.history import histories_of
    from cvmfsexec.reporting.page import Job, compose_page

    job = Job(command, begin_s, time.time() - begin_s, status, __version__)
    content = os.pread(recorded, os.fstat(recorded).st_size, 0)
    page = compose_page(job, histories_of(content, begin_s))
    part = f"{path}.{os.getpid()}.part"
    try:
        with open(part, "x", encoding="utf-8") as file:
            file.write(page)
        os.replace(part, path)
    except OSError:
        if os.path.lexists(part):
            os.unlink(part)
        raise
