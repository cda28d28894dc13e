"""Evaluate a configuration file as the original does: by a shell.

One shell reads one file, in the file's directory and with the results of the earlier
files in its environment, and then prints the values of the names asked for, by
``echo $NAME`` without quotes. Different from the original on purpose:

- The file is sourced instead of being fed to the shell's input, so that a ``return``
  in it ends it (packaged files contain that) instead of ending the shell.
- What the file itself prints goes nowhere. The original takes it for values.
- The environment is made up by the caller, so no secret of the user reaches the file.
- The shell gets a limit of time and of output, and nothing that it starts survives.
- A shell that does not reach the end of the file is an error, where the original goes
  on with empty values.

``posix_spawn`` is used directly: it starts the shell as fast as the system can, and
the ``subprocess`` module would cost four milliseconds to import.
"""

import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING

from cvmfsexec import log
from cvmfsexec.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cvmfsexec.configuration.files import ConfigurationFile

SHELL = "/bin/sh"
TIME_LIMIT_S = 20.0
"""Files may look up names or ask a local service, but a start must not hang."""

OUTPUT_BYTES_MAX = 1 << 20

_VALUES_FD = 9  # the highest that every POSIX shell can write to


def evaluate_in_shell(
    file: "ConfigurationFile",
    names: "Sequence[str]",
    environment: "Mapping[str, str]",
    *,
    shell: str = SHELL,
    time_limit_s: float = TIME_LIMIT_S,
) -> dict[str, str]:
    """Return what the shell says about each of ``names`` after reading a file.

    Args:
        file: What to read.
        names: Shell variables: identifiers, nothing else.
        environment: The whole environment of the shell.
        shell: Program to run.
        time_limit_s: After this time the shell is killed.

    Raises:
        ConfigurationError: The shell ended before the end of the file, took too long,
            printed too much, or could not be started.
    """
    output, complaints = _run(file, names, environment, shell, time_limit_s)
    answers = output.split(b"\0")[:-1]
    if len(answers) != len(names):
        complaint = os.fsdecode(complaints.strip().partition(b"\n")[0][:300])
        reason = complaint or "it ended the shell"
        raise ConfigurationError(
            f"cannot evaluate configuration file {file.name}: {reason}",
            hint="the file is a shell script and must run to its end",
        )
    if complaints:
        log.debug("%s: the shell says %r", file.name, complaints[:1000])
    return {
        name: os.fsdecode(answer.partition(b"\n")[0])
        for name, answer in zip(names, answers, strict=True)
    }


def _script(path: str, names: "Sequence[str]") -> str:
    directory, name = os.path.split(path)
    echoes = "".join(f"echo ${name};printf '\\0';" for name in names)
    return (
        f"cd -- {_quoted(directory or '/')} || exit\n"
        f". {_quoted('./' + name)}\n"
        f"{{ {echoes} }} >&{_VALUES_FD}\n"
    )


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _run(
    file: "ConfigurationFile",
    names: "Sequence[str]",
    environment: "Mapping[str, str]",
    shell: str,
    time_limit_s: float,
) -> tuple[bytes, bytes]:
    """Run the shell; return its values and its complaints, as far as they came."""
    values_in, values_out = _pipe()
    complaints_in, complaints_out = _pipe()
    try:
        try:
            pid = os.posix_spawn(
                shell,
                [shell, "-c", _script(file.path, names)],
                environment,
                file_actions=(
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                    (os.POSIX_SPAWN_DUP2, complaints_out, 2),
                    (os.POSIX_SPAWN_DUP2, values_out, _VALUES_FD),
                ),
                setpgroup=0,
                setsigmask=(),
                setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),  # Python ignores them
            )
        finally:
            os.close(values_out)
            os.close(complaints_out)
        try:
            return _collect(file, values_in, complaints_in, len(names), time_limit_s)
        finally:
            _end(pid)
    except OSError as error:
        raise ConfigurationError(
            f"cannot run {shell} on configuration file {file.name}: {error.strerror}"
        ) from error
    finally:
        os.close(values_in)
        os.close(complaints_in)


def _pipe() -> tuple[int, int]:
    """Return a pipe whose descriptors are not among those that a shell gets."""
    from fcntl import F_DUPFD_CLOEXEC, fcntl

    high = []
    for fd in os.pipe():
        high.append(fcntl(fd, F_DUPFD_CLOEXEC, _VALUES_FD + 1))
        os.close(fd)
    return high[0], high[1]


def _collect(
    file: "ConfigurationFile",
    values_in: int,
    complaints_in: int,
    wanted: int,
    time_limit_s: float,
) -> tuple[bytes, bytes]:
    """Read until ``wanted`` values are there or the shell has closed its side."""
    from select import POLLIN, poll

    collected = {values_in: bytearray(), complaints_in: bytearray()}
    values = collected[values_in]
    poller = poll()
    for fd in collected:
        poller.register(fd, POLLIN)
    deadline = time.monotonic() + time_limit_s
    is_open = True
    while is_open and values.count(0) < wanted:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise ConfigurationError(
                f"configuration file {file.name} takes longer than {time_limit_s:g} s "
                "to evaluate",
                hint="it starts a command that waits for something",
            )
        for fd, _ in poller.poll(left_s * 1000):
            data = os.read(fd, 65536)
            collected[fd] += data
            if not data:
                poller.unregister(fd)
                is_open = is_open and fd != values_in
        if sum(map(len, collected.values())) > OUTPUT_BYTES_MAX:
            raise ConfigurationError(
                f"configuration file {file.name} makes too much output"
            )
    if not is_open and any(fd == complaints_in for fd, _ in poller.poll(0)):
        # What it complained about before it ended is in the pipe already.
        collected[complaints_in] += os.read(complaints_in, 65536)
    return bytes(values), bytes(collected[complaints_in])


def _end(pid: int) -> None:
    """End the shell and whatever it has started in the background."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):  # SIGCHLD is ignored by the caller
        os.waitpid(pid, 0)
