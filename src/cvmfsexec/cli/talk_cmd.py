"""Talk to mounts, in the words of ``cvmfs_talk``."""

import argparse
import json
import os
import sys

from cvmfsexec.cli import exit_codes
from cvmfsexec.cli.configuration import configuration_root
from cvmfsexec.cli.mounts import Sockets, sockets_of_repository
from cvmfsexec.cli.options import add_dist, add_json
from cvmfsexec.cli.report import report_error
from cvmfsexec.client.talk_socket import talk
from cvmfsexec.configuration.evaluate import complete_name, site_repositories
from cvmfsexec.errors import ConfigurationError, CvmfsError
from cvmfsexec.format.talk_message import TALK_COMMANDS, parse_talk_message
from cvmfsexec.log import harmless

FAILED = 1
_FAILURES = ("unknown command", "Usage:", "Failed", "internal error")
PATIENCE_S = 300.0
"""A probe of all servers, or a new revision, may take as long."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("-i", dest="fqrn", metavar="FQRN", help="the repository")
    parser.add_argument("-p", dest="socket", metavar="SOCKET", help="the socket itself")
    parser.add_argument(
        "words",
        metavar="WORD",
        nargs="+",
        help="a command, after the repository if that is not named by -i",
    )
    add_dist(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Say it to each mount that is meant, and write what they answer."""
    told: list[dict[str, object]] = []
    is_ok = True
    wanted, words = _wanted(arguments)
    has_title = len(wanted) > 1 and not arguments.json
    for sockets in wanted:
        if has_title:
            print(f"{sockets.fqrn}:")
        is_ok &= _talk_to(sockets, " ".join(words), told, is_json=arguments.json)
    if arguments.json:
        print(json.dumps(told, indent=1))
    return exit_codes.OK if is_ok else FAILED


def _wanted(arguments: argparse.Namespace) -> tuple[list[Sockets], list[str]]:
    """Return whom to talk to, and the words of the command."""
    words: list[str] = arguments.words
    if arguments.socket is not None:
        path = os.path.abspath(arguments.socket)
        return [Sockets("", path, [path] if os.path.lexists(path) else [])], words
    name = arguments.fqrn
    if name is None and len(words) > 1 and not _is_command(words):
        name, words = words[0], words[1:]
    root = configuration_root(arguments.dist)
    names = [name] if name is not None else site_repositories(root, os.environ)
    if not names:
        raise ConfigurationError(
            "no repository to talk to", hint="name one, or set CVMFS_REPOSITORIES"
        )
    return [
        sockets_of_repository(complete_name(one, root, os.environ), arguments.dist)
        for one in names
    ], words


def _is_command(words: list[str]) -> bool:
    text = " ".join(words)
    return text in TALK_COMMANDS or bool(parse_talk_message(text.encode()).name)


def _talk_to(
    sockets: Sockets, command: str, told: list[dict[str, object]], *, is_json: bool
) -> bool:
    if not sockets.alive:
        directory, _, _ = sockets.first.rpartition("/")
        print(
            f"Seems like CernVM-FS is not running in {harmless(directory)} "
            f"(not found: {harmless(sockets.first)})",
            file=sys.stderr,
        )
        return False
    is_ok = True
    for path in sockets.alive:
        if len(sockets.alive) > 1 and not is_json:
            print(f"{path}:", flush=True)
        try:
            message = command.encode("utf-8", "surrogateescape")
            answer, pid = talk(path, message, PATIENCE_S)
        except CvmfsError as error:
            report_error("cvmfs", error)
            is_ok = False
            continue
        text = answer.decode("utf-8", "backslashreplace")
        told.append({"socket": path, "pid": pid, "answer": text})
        if not is_json:
            sys.stdout.write(text)
            sys.stdout.flush()
        is_ok &= not text.startswith(_FAILURES)
    return is_ok
