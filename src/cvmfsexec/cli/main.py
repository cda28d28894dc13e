"""``cvmfs``: look into repositories, verify them, publish and serve them.

Each command is a module with ``configure`` (its options) and ``run``; the first line
of the module's docstring is its help. Only the module of the command that was asked
for is imported.

Source: docs/reference/cvmfs.md.
"""

import argparse
import importlib
import io
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from cvmfsexec import __version__
from cvmfsexec.cli import exit_codes
from cvmfsexec.cli.report import (
    replace_missing_streams,
    report_error,
    set_verbosity,
    write_message,
)
from cvmfsexec.errors import CvmfsError

COMMANDS = {
    "ls": "list a directory",
    "cat": "write the content of files to stdout",
    "stat": "tell everything about entries, or how mounts fare",
    "find": "list a tree",
    "verify": "check signatures, catalogs, and every object on request",
    "tags": "list the named revisions",
    "diff": "tell what changed between two revisions",
    "showconfig": "show each parameter with the file that set it",
    "proxy": "tell which proxies were found, from where, and how they fare",
    "host": "tell in which order servers are asked, and how they fare",
    "status": "list what is mounted, where, and by which process",
    "fuser": "list the processes that use a mount",
    "talk": "talk to mounts, in the words of cvmfs_talk",
    "top": "see live what the mounts on this node do",
    "probe": "see whether repositories can be reached and are believed",
    "doctor": "tell what works here, what does not, and what to do about it",
    "cache": "tell what is in caches, remove from them, keep things in them",
    "prefetch": "fill the cache with what a job will need",
    "trace": "tell what a trace says that a job touched",
    "fsck": "check caches, and repair them",
    "sessions": "list the sessions of this user on this node",
    "publish": "make or continue a repository from a directory",
    "serve": "serve repositories over HTTP on loopback",
}


def main() -> NoReturn:
    """Run the command line and exit."""
    replace_missing_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # What the user's encoding lacks is spelled out.
        sys.stdout.reconfigure(errors="backslashreplace")
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        # Python would let a transfer come to its end first. Who reads leaves nothing
        # behind; who writes has a handler of its own.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        status = _main(sys.argv[1:])
    except KeyboardInterrupt:
        status = exit_codes.INTERRUPTED
    sys.exit(status)


def _main(words: list[str]) -> int:
    arguments = _parse(words)
    set_verbosity("cvmfs", arguments.verbose)
    module = importlib.import_module(f"cvmfsexec.cli.{arguments.command}_cmd")
    try:
        status = int(module.run(arguments))
        sys.stdout.flush()
    except CvmfsError as error:
        report_error("cvmfs", error)
        return exit_codes.exit_status_of(error)
    except BrokenPipeError:
        # The reader has seen enough, as with "cvmfs ls … | head".
        _forget_output()
        return int(getattr(module, "OUTPUT_LOST_STATUS", exit_codes.OK))
    except OSError as error:
        # All others are translated below, so it was the output.
        _forget_output()
        write_message("cvmfs", f"cannot write the output: {error.strerror}")
        return int(getattr(module, "OUTPUT_LOST_STATUS", exit_codes.UNKNOWN_ERROR))
    return status


def _forget_output() -> None:
    """Let what is still to be written go nowhere, so that the exit is quiet."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _CommandParser(argparse.ArgumentParser):
    """Takes options and arguments in any order: ``ls FQRN -l PATH``."""

    usage_status = 2
    _is_intermixing = False

    def error(self, message: str) -> NoReturn:
        """See ``ArgumentParser``; some commands have a status of their own."""
        self.print_usage(sys.stderr)
        self.exit(self.usage_status, f"{self.prog}: error: {message}\n")

    def parse_known_args(  # type: ignore[override]
        self,
        args: Sequence[str] | None = None,
        namespace: argparse.Namespace | None = None,
    ) -> tuple[argparse.Namespace, list[str]]:
        """See ``ArgumentParser``."""
        if self._is_intermixing:  # the line below comes here again
            return super().parse_known_args(args, namespace)
        self._is_intermixing = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._is_intermixing = False


def _parse(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="cvmfs", description="Look into CernVM-FS repositories, and make them."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(
        dest="command", metavar="COMMAND", required=True, parser_class=_CommandParser
    )
    wanted = next((word for word in words if word in COMMANDS), None)
    for name, summary in COMMANDS.items():
        child = commands.add_parser(name, help=summary, description=summary)
        child.add_argument(
            "--verbose",
            action="count",
            default=0,
            help="say on stderr what is going on; twice: everything",
        )
        if name == wanted:
            module = importlib.import_module(f"cvmfsexec.cli.{name}_cmd")
            child.usage_status = getattr(module, "USAGE_STATUS", child.usage_status)
            module.configure(child)
    arguments, unknown = parser.parse_known_args(words)
    if unknown:
        commands.choices[arguments.command].error(
            f"unrecognized arguments: {' '.join(unknown)}"
        )
    return arguments
