"""Serve repositories over HTTP on loopback."""

import argparse
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
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: server.stop())
    for fqrn in server.files.fqrns():
        print(f"{server.url}/{fqrn}", flush=True)
    server.serve()
    return 0


def _report(line: str) -> None:
    sys.stderr.write(f"cvmfs serve: {line}\n")


def _port(typed: str) -> int:
    if not typed.isdecimal() or int(typed) > _PORT_MAX:
        raise argparse.ArgumentTypeError(f"{typed!r} is no port")
    return int(typed)
