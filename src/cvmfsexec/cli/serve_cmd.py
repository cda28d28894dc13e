"""Serve repositories over HTTP on loopback."""

import argparse
import os
import signal
import sys

from cvmfsexec.publish.server import RepositoryServer

DEFAULT_PORT = 8000

_PORT_MAX = 65535


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "directory",
        metavar="DIR",
        help="one repository, or a directory with one per name",
    )
    parser.add_argument(
        "--port",
        metavar="N",
        type=_port,
        default=DEFAULT_PORT,
        help="0 takes a free one (default: %(default)s)",
    )
    parser.add_argument(
        "--bind",
        metavar="ADDRESS",
        default="127.0.0.1",
        help="address to listen on (default: %(default)s)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal ends it."""
    server = RepositoryServer(
        arguments.directory,
        host=arguments.bind,
        port=arguments.port,
        report=_report if arguments.verbose else None,
    )
    signalled = _announce_signals()
    for fqrn in server.files.fqrns():
        print(f"{server.url}/{fqrn}", flush=True)
    server.serve(until=signalled)
    return 0


def _announce_signals() -> int:
    """Return a descriptor that can be read when we are to end.

    Python's handlers would not do: they are run between two instructions of the main
    thread, and what comes just before that waits, or strikes another thread, ends no
    wait.
    """
    signalled, announcing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(announcing, warn_on_full_buffer=False)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: None)
    return signalled


def _report(line: str) -> None:
    sys.stderr.write(f"cvmfs serve: {line}\n")


def _port(typed: str) -> int:
    if not typed.isdecimal() or int(typed) > _PORT_MAX:
        raise argparse.ArgumentTypeError(f"{typed!r} is no port")
    return int(typed)
