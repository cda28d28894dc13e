"""Run a proxy configuration file in a process of its own, within limits.

The file is JavaScript from the network. The engines that run it cannot be interrupted,
or print where they like; so each file gets a new interpreter that ends after the
answers: with a limit for time, CPU, memory and output, without our environment,
descriptors and memory, killed by the kernel if we end first. It is started anew
rather than forked: this process may have threads, and secrets.

An engine is the module ``pacparser``, or ``dukpy`` where that has no wheel.
"""

import os
import sys
from typing import TYPE_CHECKING, BinaryIO, cast

from cvmfsexec import log
from cvmfsexec.errors import TransferError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from subprocess import Popen

TIME_LIMIT_S = 10.0
"""Of the wall clock, as a file may ask slow name servers; CPU has its own limit."""

_EXIT_TIME_LIMIT_S = 2.0  # once the output has ended
OUTPUT_BYTES_MAX = 1 << 20
QUESTIONS_MAX = 16
_CHATTER_BYTES_SHOWN = 2000

_ENGINES = ("pacparser", "dukpy")
_NEEDED_VARIABLES = ("LD_LIBRARY_PATH", "TZ", "RES_OPTIONS", "LOCALDOMAIN")
"""What an interpreter may need to start, and a resolver to find names."""

_START = (
    "import sys; sys.path[:] = sys.argv[3:];"
    "from cvmfsexec.network.pac_engine import main;"
    "main(sys.argv[1], int(sys.argv[2]))"
)


class PacFault(TransferError):  # noqa: N818 -- a fault, not yet an error
    """A file that gives no answer; never leaves this package."""


def evaluate(
    script: bytes,
    urls: "Sequence[str]",
    address: str,
    *,
    environment: "Mapping[str, str]",
    engine: str = "",
) -> list[str]:
    """Ask a file for the proxies of URLs; return what it says for one after the other.

    URLs for which it says nothing are left out.

    Args:
        script: The file.
        urls: Printable ASCII without blanks.
        address: What ``myIpAddress`` returns.
        environment: Of the user; little of it is passed on.
        engine: Name of the module that does it; the best there is by default.

    Raises:
        PacFault: It does not say anything for any of them.
    """
    engine = engine or find_engine()
    questions = [f"{url} {host_of(url)}" for url in urls[:QUESTIONS_MAX]]
    request = "\n".join([address, *questions]).encode("ascii") + b"\n\n" + script
    output, chatter, end = _run(engine, request, environment)
    for line in chatter.decode("utf-8", "replace").splitlines():
        log.debug("proxy configuration file: %s", log.harmless(line))
    answers, complaints = parse_output(output)
    if answers:
        return answers
    if end:
        raise PacFault(end)
    raise PacFault(complaints[0] if complaints else "the engine gave no answer")


def parse_output(output: bytes) -> tuple[list[str], list[str]]:
    """Read what an engine wrote, which a file may have taken over.

    Returns:
        Answers, as they are, and complaints, for people. Lines that are cut off, too
        many or of no known kind are not there.
    """
    answers: list[str] = []
    complaints: list[str] = []
    for line in output.split(b"\n")[:-1][:QUESTIONS_MAX]:
        mark, text = line[:1], line[1:].decode("utf-8", "replace")
        if mark == b"=":
            answers.append(text)
        elif mark == b"!":
            complaints.append(log.harmless(text) or "it does not work")
        elif mark == b"-":
            complaints.append("FindProxyForURL returns nothing")
    return answers, complaints


def find_engine() -> str:
    """Return the name of the first engine that is installed.

    Raises:
        PacFault: None is.
    """
    from importlib.machinery import PathFinder

    for name in _ENGINES:
        if PathFinder.find_spec(name) is not None:
            return name
    raise PacFault(f"no engine for it is installed ({' or '.join(_ENGINES)})")


def host_of(url: str) -> str:
    """Return the host of a URL that has one, without user, port and brackets."""
    authority = url.partition("://")[2].partition("/")[0].rpartition("@")[2]
    if authority.startswith("["):
        return authority[1:].partition("]")[0]
    return authority.partition(":")[0]


def _run(
    engine: str, request: bytes, environment: "Mapping[str, str]"
) -> tuple[bytes, bytes, str]:
    """Return what the process wrote to stdout and stderr, and how it was ended."""
    questions = os.memfd_create("questions")
    chatter = os.memfd_create("chatter")
    lifeline, ours = os.pipe()
    try:
        with open(questions, "wb", closefd=False) as stream:
            stream.write(request)
        os.lseek(questions, 0, os.SEEK_SET)
        process = _start(engine, (questions, chatter, lifeline), environment)
        output, end = _follow(process)
        return output, os.pread(chatter, _CHATTER_BYTES_SHOWN, 0), end
    except OSError as error:
        raise PacFault(f"cannot run {sys.executable}: {error.strerror}") from error
    finally:
        for descriptor in (questions, chatter, lifeline, ours):
            os.close(descriptor)


def _start(
    engine: str, descriptors: tuple[int, int, int], environment: "Mapping[str, str]"
) -> "Popen[bytes]":
    from subprocess import PIPE, Popen

    questions, chatter, lifeline = descriptors
    words = [sys.executable or "", "-I", "-S", "-c", _START, engine, str(lifeline)]
    needed = {
        name: environment[name] for name in _NEEDED_VARIABLES if name in environment
    }
    return Popen(
        [*words, *(os.path.abspath(path) for path in sys.path if path)],
        stdin=questions,
        stdout=PIPE,
        stderr=chatter,
        pass_fds=(lifeline,),
        env=needed,
        cwd="/",
    )


def _follow(process: "Popen[bytes]") -> tuple[bytes, str]:
    """Read what a process writes until it ends or has to be ended."""
    import select
    import time
    from subprocess import TimeoutExpired

    with cast("BinaryIO", process.stdout) as stream:
        output, end = b"", ""
        poll = select.poll()
        poll.register(stream, select.POLLIN)
        deadline_s = time.monotonic() + TIME_LIMIT_S
        while not end:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0 or not poll.poll(left_s * 1000):
                end = f"it gave no answer within {TIME_LIMIT_S:.0f} s"
            elif len(output) > OUTPUT_BYTES_MAX:
                end = "it says too much"
            elif data := os.read(stream.fileno(), 1 << 16):
                output += data
            else:
                break
    if end:
        process.kill()
    try:
        status = process.wait(_EXIT_TIME_LIMIT_S)
    except TimeoutExpired:
        process.kill()
        status = process.wait()
    if not end and status:
        end = _describe(status)
    return output, end


def _describe(status: int) -> str:
    import signal

    if status == -signal.SIGKILL:
        return "it was stopped: it takes too much time"
    if status < 0:
        return f"its engine died of signal {-status}"
    return f"its engine ended with status {status}"
