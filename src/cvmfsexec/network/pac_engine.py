"""Body of the process that runs a proxy configuration file: foreign code, in a cage.

It has little memory, little time, no environment, no descriptors but the four that
``pac_evaluation`` gives it, and it is killed by the kernel when its parent ends. On
stdin come our address, one line for each question (URL, blank, host), an empty line,
and the file. For each question one line goes to stdout: ``=`` and the answer, ``-``
for none, or ``!`` and what went wrong. What else is printed goes to stderr.

Nothing is imported from the rest of the package: a start counts.
"""

import fcntl
import importlib
import os
import resource
import signal
import sys
from collections.abc import Callable

CPU_LIMIT_S = 2
MEMORY_LIMIT_BYTES = 256 << 20  # twenty times what an ordinary file takes
CHATTER_BYTES_MAX = 64 << 10
ANSWER_BYTES_MAX = 64 << 10
_DESCRIPTORS_MAX = 32

_LIMITS = {
    resource.RLIMIT_CPU: CPU_LIMIT_S,
    resource.RLIMIT_AS: MEMORY_LIMIT_BYTES,
    resource.RLIMIT_FSIZE: CHATTER_BYTES_MAX,
    resource.RLIMIT_CORE: 0,
    resource.RLIMIT_NOFILE: _DESCRIPTORS_MAX,
}

Ask = Callable[[str, str], object]
"""Returns what ``FindProxyForURL`` does for a URL and its host."""


def main(engine: str, lifeline: int) -> None:
    """Answer the questions on stdin.

    Args:
        engine: Name of the module to use.
        lifeline: Descriptor of a pipe that ends with the parent.
    """
    _hang_on(lifeline)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    answers = os.dup(1)
    os.dup2(2, 1)
    with open(0, "rb", closefd=False) as stream:
        header, _, script = stream.read().partition(b"\n\n")
    address, *questions = header.decode("ascii").split("\n")
    load = ENGINES[engine]
    module = importlib.import_module(engine)
    _limit()
    try:
        ask = load(module, _text_of(script), address)
    except Exception as error:  # noqa: BLE001 -- whatever an engine raises
        _tell(answers, "!", f"not a proxy configuration file: {error}")
        return
    for question in questions:
        url, _, host = question.partition(" ")
        try:
            answer = ask(url, host)
        except Exception as error:  # noqa: BLE001 -- whatever an engine raises
            _tell(answers, "!", f"FindProxyForURL failed: {error}")
        else:
            if isinstance(answer, str):
                _tell(answers, "=", answer)
            else:
                _tell(answers, "-", "")


def _limit() -> None:
    for kind, wanted in _LIMITS.items():
        _, hard = resource.getrlimit(kind)
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(kind, (limit, limit))


def _hang_on(lifeline: int) -> None:
    """Let the kernel kill this process when the other end of the pipe is closed."""
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
    flags = fcntl.fcntl(lifeline, fcntl.F_GETFL)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, flags | os.O_NONBLOCK | fcntl.FASYNC)
    try:
        os.read(lifeline, 1)
    except BlockingIOError:
        return
    sys.exit(1)  # the parent was faster


def _tell(descriptor: int, mark: str, text: str) -> None:
    line = mark + " ".join(text[:ANSWER_BYTES_MAX].split())
    os.write(descriptor, line.encode("utf-8", "replace") + b"\n")


def _text_of(script: bytes) -> str:
    try:
        return script.decode("utf-8-sig").replace("\0", " ")
    except UnicodeDecodeError:
        return script.decode("latin-1").replace("\0", " ")


def _load_pacparser(module: object, script: str, address: str) -> Ask:
    pacparser: _Pacparser = module  # type: ignore[assignment]
    pacparser.init()
    pacparser.setmyip(address)
    pacparser.parse_pac_string(script)

    def ask(url: str, host: str) -> object:
        # The URL becomes part of a script, between quotes.
        answer = pacparser.find_proxy(url.replace("'", "%27"), host)
        # The words of JavaScript for nothing come as texts.
        return None if answer in {"null", "undefined"} else answer

    return ask


def _load_dukpy(module: object, script: str, address: str) -> Ask:
    dukpy: _Dukpy = module  # type: ignore[assignment]
    functions = importlib.import_module("cvmfsexec.network.pac_functions")
    interpreter = dukpy.JSInterpreter()
    interpreter.export_function("resolve", _resolve)
    interpreter.export_function("address", lambda: address)
    interpreter.evaljs(
        "var _call = call_python;"
        "function dnsResolve(host) { return _call('resolve', String(host)); }"
        "function myIpAddress() { return _call('address'); }"
        "delete globalThis.require; 0"
    )
    interpreter.evaljs(functions.JAVASCRIPT + "0")
    interpreter.evaljs(f"{script}\n;0")

    def ask(url: str, host: str) -> object:
        return interpreter.evaljs(
            "FindProxyForURL(dukpy['url'], dukpy['host'])", url=url, host=host
        )

    return ask


def _resolve(name: str) -> str | None:
    import socket

    try:
        return socket.gethostbyname(name)
    except (OSError, UnicodeError):
        return None


class _Pacparser:
    """What is used of the module ``pacparser``."""

    init: Callable[[], None]
    setmyip: Callable[[str], None]
    parse_pac_string: Callable[[str], None]
    find_proxy: Callable[[str, str], object]


class _Interpreter:
    """What is used of an interpreter of ``dukpy``."""

    export_function: Callable[[str, Callable[..., object]], None]
    evaljs: Callable[..., object]


class _Dukpy:
    """What is used of the module ``dukpy``."""

    JSInterpreter: Callable[[], _Interpreter]


ENGINES: dict[str, Callable[[object, str, str], Ask]] = {
    "pacparser": _load_pacparser,
    "dukpy": _load_dukpy,
}
"""Engines by the name of their module, the preferred one first."""
